"""`llie data`: check and pack data sets, and make those of the demos."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its actions."""
    parser = verbs.add_parser("data", help="check and pack data sets, make those of the demos")
    actions = parser.add_subparsers(metavar="ACTION", required=True, title="actions", action=Verbs)
    check = actions.add_parser("check", help="check the data sets of an option file, and search for leaks between them")
    check.add_argument("options", metavar="OPTION_FILE", help="option file, for example options/train/LOLv1.yml")
    check.set_defaults(run=run_check)
    lmdb = actions.add_parser("lmdb", help="pack a folder of images into an LMDB")
    lmdb.add_argument("folder", metavar="FOLDER", help="folder of images, with subfolders")
    lmdb.add_argument("output", metavar="OUTPUT.lmdb", help="folder to make, ending in .lmdb")
    lmdb.set_defaults(run=run_lmdb)
    demo = actions.add_parser("demo", help="make image pairs for the demo from scikit-image's photographs")
    demo.add_argument(
        "folder", nargs="?", metavar="FOLDER",
        help="folder to make (default: datasets/demo, or datasets/demo_haze with --haze)",
    )  # fmt: skip
    demo.add_argument(
        "--haze", action="store_true", help="make hazy instead of dark inputs, and depth maps for training"
    )
    demo.set_defaults(run=run_demo)


def run_check(options: argparse.Namespace) -> int:
    """Check the data sets of an option file."""
    from llie.data.check import check
    from llie.options import load_options

    return check(load_options(options.options, phase="data"))  # requires neither a training nor a test set


def run_lmdb(options: argparse.Namespace) -> int:
    """Pack a folder."""
    from llie.data import packing

    count = packing.build(options.folder, options.output)
    print(f"{count} images packed into {options.output}; use it as a dataroot in an option file")
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Make the demo's data set."""
    from llie.data import demo

    if options.haze:
        demo.make_haze(options.folder or "datasets/demo_haze")
    else:
        demo.make(options.folder or "datasets/demo")
    return 0
