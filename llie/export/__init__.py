"""Export: writes a trained network to a file that runs without llie, and compares the file with the network.

`write` calls the other modules in order: `graph` wraps the network, `capture` records it (`sizes` keeps expressions of
sizes short), `onnx_file` (with `scan` for the selective scan), `program` or `compiled` writes the file, `quantise`
makes it smaller, `facts` collects the metadata, and `verify` compares the file with the network. `runtime` runs ONNX
files as networks, `program` runs `.pt2` files. `llie export` and `llie.load` call the package.
"""
