"""`llie export`: a trained network as a file that runs without llie."""

from __future__ import annotations

import argparse

from llie.commands import Verbs
from llie.commands._network import add_network_argument, add_plugin_argument, add_settings_argument, read_settings

_EPILOG = """\
examples:
  llie export -o dawn.onnx                                 the network that ships with llie
  llie export experiments/demo -o demo.onnx                your own run, or a checkpoint file
  llie enhance photo.jpg --model dawn.onnx                 run it with onnxruntime

needs: pip install 'llie[export]'
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export", help="write a network as a file that runs without llie (ONNX), checked against it", epilog=_EPILOG
    )
    parser.add_argument(
        "model", nargs="?", metavar="CHECKPOINT",
        help="file, run folder, run name, hf:OWNER/REPO, or name of a network (default: the one that ships with llie)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write, ending in .onnx or .pt2")
    add_network_argument(parser)
    add_settings_argument(
        parser, "defaults of the network's controls, such as denoise=0.8; lists, such as size=400,608, are fixed"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--fp16", action="store_true", help="ONNX in float16; the loss is printed in dB")
    form.add_argument(
        "--int8", action="store_true", help="ONNX with convolutions in 8-bit integers; the loss is printed in dB"
    )
    form.add_argument(
        "--compile", action="store_true", help="a .pt2 file with machine code for this kind of processor; needs g++"
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER",
        help="dark photographs to calibrate --int8 (default: scikit-image's, darkened)",
    )  # fmt: skip
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the weights, for the file")
    parser.add_argument(
        "--tolerance", type=float, metavar="T",
        help="largest difference from the network, of values in [0, 1] (default: half a level of 8 bits)",
    )  # fmt: skip
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file."""
    from pathlib import Path

    from llie.export.write import TOLERANCE, export
    from llie.inference import load
    from llie.registry import load_plugins

    load_plugins(options.plugin)
    output = Path(options.output)
    enhancer = load(options.model, "cpu", options.network, **read_settings(options.set))
    export(
        enhancer.network,
        output,
        enhancer.controls,
        options.licence or ("" if options.model else "Apache-2.0"),
        TOLERANCE if options.tolerance is None else options.tolerance,
        "float16" if options.fp16 else "int8" if options.int8 else "float32",
        options.calibrate,
        options.compile,
        report=lambda line: print(line, flush=True),
    )
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    return 0
