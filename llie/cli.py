"""The `llie` command: train, test, enhance, compare, models, data. Each verb only reads its words and hands over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import llie
from llie.errors import UserError, run_command

_HVI_CONTROLS = ("alpha_s", "alpha_i", "alpha_rgb")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for a mistake of the user's, 1 when some images failed)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"] or words[:1] == ["test"]:
        return run_command(lambda: _option_file_command(words[0], words[1:]))
    options = _parser().parse_args(words)
    return run_command(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llie", description="Low-light image enhancement: train, measure and use.")
    parser.add_argument("--version", action="version", version=f"llie {llie.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verbs.add_parser("train", help="train as an option file says (llie train -h)")
    verbs.add_parser("test", help="test as an option file says (llie test -h)")

    enhance = verbs.add_parser("enhance", help="enhance an image or a folder of images")
    enhance.add_argument("input", help="image file, or folder (with its subfolders)")
    enhance.add_argument("-o", "--output", required=True, help="folder, or file for a single image")
    enhance.add_argument(
        "--model", required=True, metavar="CHECKPOINT",
        help="file, run folder, run name, hf:OWNER/REPO, or a network's name with weights in $LLIE_WEIGHTS",
    )  # fmt: skip
    enhance.add_argument("--network", metavar="NAME", help="which network the checkpoint is of, where it does not tell")
    enhance.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    enhance.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="CONTROL=VALUE",
        help="test-time controls of the network (`llie models` lists them), e.g. alpha_s=1.3, or size=400,608",
    )  # fmt: skip
    for control in _HVI_CONTROLS:
        option = "--" + control.replace("_", "-")
        enhance.add_argument(option, type=float, metavar="X", help=f"same as --set {control}=X")
    enhance.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="Python files with your own networks")
    enhance.set_defaults(run=_enhance)

    compare = verbs.add_parser("compare", help="show folders of images side by side in one picture")
    compare.add_argument("columns", nargs="+", metavar="[LABEL=]FOLDER", help="folder of images, or one image")
    compare.add_argument("-o", "--output", required=True, help="picture to write")
    compare.add_argument("--rows", type=int, default=8, help="at most so many images (default: 8)")
    compare.set_defaults(run=_compare)

    models = verbs.add_parser("models", help="list the registered networks")
    models.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="Python files with your own networks")
    models.set_defaults(run=_models)

    data = verbs.add_parser("data", help="check data sets, pack them, make the demo's").add_subparsers(
        metavar="ACTION", required=True
    )
    check = data.add_parser("check", help="look at the data sets of an option file, and for leaks between them")
    check.add_argument("options", metavar="OPTION_FILE")
    check.set_defaults(run=_data_check)
    lmdb = data.add_parser("lmdb", help="pack a folder of images into an LMDB")
    lmdb.add_argument("folder")
    lmdb.add_argument("output", help="folder to make, ending in .lmdb")
    lmdb.set_defaults(run=_data_lmdb)
    demo = data.add_parser("demo", help="make the demo's pairs from scikit-image's photographs")
    demo.add_argument("folder", nargs="?", help="default: datasets/demo, or datasets/demo_haze")
    demo.add_argument("--haze", action="store_true", help="hazy instead of dark ones, and depth maps to train with")
    demo.set_defaults(run=_data_demo)
    return parser


# Verbs import what they need themselves: `llie --help` must not wait for torch.


def _option_file_command(verb: str, words: Sequence[str]) -> int | None:
    from llie import test, train

    return {"train": train, "test": test}[verb].main(words)


def _enhance(options: argparse.Namespace) -> int:
    from llie.engine.allocator import keep_large_blocks
    from llie.inference import load
    from llie.inference.files import enhance_files
    from llie.registry import load_plugins

    keep_large_blocks()
    load_plugins(options.plugin)
    enhance = load(options.model, options.device, options.network, **_controls(options))
    failures = enhance_files(enhance, options.input, options.output)
    for path, reason in failures.items():
        print(f"failed: {reason}" if str(path) in reason else f"failed: {path}: {reason}", file=sys.stderr)
    print(f"{len(failures)} failed; all others are in {options.output}" if failures else f"written to {options.output}")
    return 1 if failures else 0


def _controls(options: argparse.Namespace) -> dict[str, float | list[int]]:
    controls: dict[str, float | list[int]] = {name: getattr(options, name) for name in _HVI_CONTROLS}
    controls = {name: value for name, value in controls.items() if value is not None}
    for setting in options.set:
        name, _, value = setting.partition("=")
        try:
            controls[name] = [int(number) for number in value.split(",")] if "," in value else float(value)
        except ValueError:
            raise UserError(f"cannot read {setting!r}; write a control like alpha_s=1.3 or size=400,608") from None
    return controls


def _compare(options: argparse.Namespace) -> int:
    from llie.inference.compare import compare

    columns = {}
    for column in options.columns:
        label, _, folder = column.rpartition("=")
        columns[label or folder] = folder
    print(f"side by side: {compare(columns, options.output, options.rows)}")
    return 0


def _models(options: argparse.Namespace) -> int:
    from llie.inference.catalogue import table
    from llie.registry import load_plugins

    load_plugins(options.plugin)
    print(table())
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from llie.data.check import check
    from llie.options import load_options

    return check(load_options(options.options, phase="data"))  # neither kind of set is required


def _data_lmdb(options: argparse.Namespace) -> int:
    from llie.data import packing

    count = packing.build(options.folder, options.output)
    print(f"{count} images packed into {options.output}; name it as a dataroot in an option file")
    return 0


def _data_demo(options: argparse.Namespace) -> int:
    from llie.data import demo

    if options.haze:
        demo.make_haze(options.folder or "datasets/demo_haze")
    else:
        demo.make(options.folder or "datasets/demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
