"""Export: a trained network goes in, a file that runs without llie comes out, checked against the network.

`graph` wraps a network as a function of tensors alone, `capture` records it, `onnx_file` (with `scan` for the selective
scan) and `program` write it, `quantise` makes it smaller, `facts` says what it holds, `verify` compares it with the
network; `write` does all of that in order. `runtime` runs an ONNX file as a network, `program` one of `torch.export`.
The command and `llie.load` call them.
"""
