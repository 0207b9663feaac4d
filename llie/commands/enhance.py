"""`llie enhance`: an image or a folder of images."""

from __future__ import annotations

import argparse
import sys

from llie.commands import Verbs
from llie.commands._network import add_network_arguments, load_enhancer


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("enhance", help="enhance an image or a folder of images")
    parser.add_argument("input", help="image file, or folder (with its subfolders)")
    parser.add_argument("-o", "--output", required=True, help="folder, or file for a single image")
    add_network_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Enhance; returns 1 when some images failed."""
    from llie.inference.files import enhance_files

    failures = enhance_files(load_enhancer(options), options.input, options.output)
    for path, reason in failures.items():
        print(f"failed: {reason}" if str(path) in reason else f"failed: {path}: {reason}", file=sys.stderr)
    print(f"{len(failures)} failed; all others are in {options.output}" if failures else f"written to {options.output}")
    return 1 if failures else 0
