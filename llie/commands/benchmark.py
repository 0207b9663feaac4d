"""`llie benchmark`: models on data sets, as a table and a page."""

from __future__ import annotations

import argparse

from llie.commands import Verbs
from llie.commands._network import add_device_argument, add_plugin_argument

_EPILOG = """\
examples:
  llie benchmark --models dawn clahe lime --data LOLv1      a data set that llie knows, in datasets/LOLv1
  llie benchmark --models mine=experiments/demo --data photos=holiday/night
  llie benchmark leaderboard.yml -o leaderboard             run it again to continue; new rows are added
  llie benchmark --check leaderboard                        measure the same again; exit code 1 if a figure changed
  torchrun --nproc_per_node 4 -m llie benchmark leaderboard.yml     processes share the images

exit code: 0 all rows have figures, 1 some failed (or changed, with --check), 2 a mistake in the command
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "benchmark", help="measure models on data sets: figures, cost, published values, as a table and a page",
        epilog=_EPILOG,
    )  # fmt: skip
    parser.add_argument("plan", nargs="?", metavar="PLAN", help="YAML file with models, datasets, metrics ...")
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="[NAME=]MODEL",
        help="checkpoints, runs or names of networks, see `llie enhance --help`",
    )  # fmt: skip
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="[NAME=]PLACE",
        help="data sets that llie knows (LOLv1), or folders of pairs or photographs",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="METRIC",
        help="metrics to measure (default: psnr ssim delta_e niqe)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder of the results (default: results/benchmark)")
    parser.add_argument("--again", action="store_true", help="measure again what has a result already")
    parser.add_argument(
        "--check", metavar="STORED", help="earlier results: measure again, and fail if a figure changed"
    )
    parser.add_argument(
        "--tolerance", nargs="+", default=[], metavar="METRIC=X",
        help="largest change that --check allows, such as psnr=0.01",
    )  # fmt: skip
    add_device_argument(parser)
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, write, compare; returns 1 when rows failed or figures moved."""
    import tempfile
    from pathlib import Path

    from llie.benchmark import check, measure, read_plan
    from llie.benchmark.page import write_page
    from llie.benchmark.plan import plan_of
    from llie.benchmark.tables import as_text, write_tables
    from llie.engine import distributed
    from llie.engine.allocator import keep_large_blocks

    keep_large_blocks()
    stored = check.read_results(options.check) if options.check else None
    tolerances = check.read_tolerances(options.tolerance)
    if stored and not (options.plan or options.models or options.data):
        plan = plan_of(stored["plan"], options.check)
    else:
        plan = read_plan(options.plan, options.models, options.data, options.metrics, options.plugin)
    with (
        distributed.group(0 if options.device == "cpu" else "auto") as device,
        tempfile.TemporaryDirectory() as scratch,
    ):
        # A check must not read what it checks; under a launcher, all processes write to the first one's folder.
        folder = Path(options.output or (scratch if stored else "results/benchmark"))
        folder = Path(distributed.broadcast(str(folder)))
        rows = measure(plan, folder, options.device or device, again=options.again or stored is not None)
        moved = check.differences(stored, rows, tolerances) if stored else []
        if distributed.is_main():
            print("\n" + as_text(plan, rows))
            if stored:
                print("\n".join(["", *moved]) if moved else f"\nnothing moved since {options.check}")
            if options.output or not stored:
                write_tables(plan, rows, folder)
                print(f"\n{write_page(plan, rows, folder)}; the same as results.csv, .json and .md beside it")
        distributed.barrier()
    return 1 if moved or (stored is None and any(row.error for row in rows)) else 0
