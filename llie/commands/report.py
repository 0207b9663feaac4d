"""`llie report`: training runs as one page."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("report", help="write learning curves, options and pictures of runs as one HTML page")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or name of a run under experiments/")
    parser.add_argument("-o", "--output", metavar="FILE", help="page to write (default: report.html in the first run)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page."""
    from pathlib import Path

    from llie.history import read_run, write_page

    runs = [read_run(place) for place in options.runs]
    print(f"report: {write_page(runs, Path(options.output or runs[0].folder / 'report.html'))}")
    return 0
