"""`llie compare`: show folders of images side by side."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("compare", help="make one picture that shows folders of images side by side")
    parser.add_argument(
        "columns", nargs="+", metavar="[LABEL=]FOLDER",
        help="folder of images, or one image; a column of the picture, with its label",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="picture to write")
    parser.add_argument(
        "--rows", type=int, default=8, metavar="N", help="largest number of images per column (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the picture."""
    from llie.inference.compare import compare

    columns = {}
    for column in options.columns:
        label, _, folder = column.rpartition("=")
        columns[label or folder] = folder
    print(f"side by side: {compare(columns, options.output, options.rows)}")
    return 0
