"""Check and time everything on a GPU in less than 20 minutes: one JSON file and one Markdown page.

    make gpu, or: python benchmarks/gpu.py [-o results/gpu] [--pairs datasets/LOLv1]

Each check runs in its own process, so a failure, a crash or a hang is a row of the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import isolated
import torch
from gpu_checks import CHECKS, Setup, scan, several_processes
from gpu_timings import inference, real_training, training_step

from llie.archs import card_of
from llie.engine.checkpoint import write_atomically
from llie.registry import ARCH_REGISTRY

SIZES = ((256, 256), (400, 608))


class Table:
    """The rows, written after each one.

    Args:
        folder: folder for `gpu.json`, `gpu.md` and `gpu.log`.
        minutes: time for everything but the training.
        seconds: time limit of a single check.
    """

    def __init__(self, folder: Path, minutes: float, seconds: float):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seconds, self.end = folder, seconds, time.monotonic() + 60 * minutes
        self.rows: list[isolated.Row] = []
        self.machine = machine()
        self.lock = Lock()

    def add(self, check: str, subject: str, function: Callable[..., Any], *arguments: Any, seconds: float = 0) -> None:
        """Run one check, within its time limit and the rest of the time for all."""
        limit = seconds or min(self.seconds, self.end - time.monotonic())
        if limit <= 0:
            row: isolated.Row = {"status": "not run", "reason": "the time was up"}
        else:
            row = isolated.run(function, *arguments, seconds=limit, log=self.folder / "gpu.log")
        with self.lock:
            self.rows.append({"check": check, "subject": subject, **row})
            print(f"{check}, {subject}: {row['status']} {row.get('reason', '')}", flush=True)
            content = {"machine": self.machine, "rows": self.rows}
            write_atomically(self.folder / "gpu.json", json.dumps(content, indent=1).encode())
            write_atomically(self.folder / "gpu.md", markdown(self.machine, self.rows).encode())

    def add_all(self, checks: Sequence[Sequence[Any]], jobs: int) -> None:
        """Run checks that take no times, several at once; each is the arguments of `add`."""
        with ThreadPoolExecutor(jobs) as pool:
            for result in [pool.submit(self.add, *check) for check in checks]:
                result.result()


def machine() -> dict[str, Any]:
    """Facts about this machine that a figure needs."""
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
    }
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        facts["gpus"] = [torch.cuda.get_device_name(number) for number in range(count)]
        facts["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    else:
        facts |= {"gpus": [], "processor": platform.machine(), "threads": torch.get_num_threads()}
    return facts


def markdown(facts: dict[str, Any], rows: Sequence[isolated.Row]) -> str:
    """All rows as a page: checks by network, failures, times, and the training."""
    lines = ["# GPU", "", ", ".join(f"{key}: {value}" for key, value in facts.items()), ""]
    checks = [row for row in rows if not row["check"].startswith(("inference", "training"))]
    names = list(dict.fromkeys(row["check"] for row in checks))
    status = {(row["check"], row["subject"]): row["status"] for row in checks}
    lines += _table(
        ["", *names],
        [
            [subject, *(status.get((name, subject), "") for name in names)]
            for subject in dict.fromkeys(row["subject"] for row in checks)
        ],
    )
    failures = [[row["check"], row["subject"], row["status"], row["reason"]] for row in rows if row["status"] != "ok"]
    if failures:
        lines += ["## Failures", "", *_table(["check", "subject", "status", "reason"], failures)]
    times = [
        [row["check"], row["subject"], name, v["ms"], v["speedup"] or "", v["peak_mib"] or ""]
        for row in rows
        for name, v in row.get("variants", {}).items()
    ]
    if times:
        title = ["", "network", "variant", "ms", "x literal", "peak MiB"]
        lines += ["## Times", "", *_table(title, times)]
    for row in rows:
        if row["check"] == "training" and row["status"] == "ok":
            facts = {key: value for key, value in row.items() if key not in ("check", "status", "seconds")}
            lines += ["## Training", "", *_table(["", ""], [[key, value] for key, value in facts.items()])]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(re.sub(r'[|`]', ' ', str(cell)) for cell in row)} |" for row in cells] + [""]


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; returns 1 if a row is not ok."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default="results/gpu", metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="(default: %(default)s)")
    parser.add_argument(
        "--pairs", metavar="FOLDER", help="data set to train on (default: one in datasets/, or the demo's)"
    )
    parser.add_argument("--minutes", type=float, default=19.0, help="time for everything (default: %(default)s)")
    parser.add_argument("--train-minutes", type=float, default=10.0, help="part of it for a training (default: 10)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=4,
        help="checks at the same time; times are always taken alone (default: %(default)s)",
    )
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument(
        "--tiny", metavar="JSON", help="network arguments by name, and small images: a test of this script"
    )
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU; --device cpu runs the same checks on the CPU")

    setup = Setup(device=arguments.device, processes=max(1, torch.cuda.device_count()))
    sizes, rounds, crop = SIZES, 9, 256
    if arguments.tiny:
        small: Any = {"size": (32, 32), "batch": 2, "steps": 2, "processes": 2, "compiler": "eager", "seconds": 3600}
        setup = Setup(device=arguments.device, arguments=json.loads(arguments.tiny), **small)
        sizes, rounds, crop = ((32, 40),), 1, 32
    names = arguments.networks or [
        name
        for name, network in ARCH_REGISTRY
        if network.__module__.startswith("llie.archs.") and card_of(network).learned
    ]

    table = Table(Path(arguments.output).resolve(), arguments.minutes - arguments.train_minutes, setup.seconds)
    table.add("scan", "selective scan", scan, setup)
    counts = [count for count in (1, 2, 4, 8) if count <= setup.processes]
    for count in counts:
        table.add(f"processes: {count}", names[0], several_processes, setup, names[0], count)
    slowest_first = list(reversed(CHECKS.items()))
    table.add_all(
        [(check, name, function, setup, name, *more) for check, (function, more) in slowest_first for name in names],
        arguments.jobs,
    )
    for name in names:
        if name == "MambaLLIE":  # its literal form takes one step per pixel
            table.add("inference 32x32", name, inference, setup, name, 32, 32, rounds)
            table.add("training step 32x32", name, training_step, setup, name, 32, 32, 3)
        for height, width in sizes:
            table.add(f"inference {width}x{height}", name, inference, setup, name, height, width, rounds)
        height, width = sizes[0]
        table.add(f"training step {width}x{height}", name, training_step, setup, name, height, width, rounds)
    limit = 60 * arguments.train_minutes + setup.seconds
    facts = (setup, arguments.pairs, arguments.train_minutes, crop, table.folder)
    if arguments.train_minutes:
        table.add("training", "HVISMM", real_training, *facts, seconds=limit)
    print(f"{table.folder / 'gpu.md'}, {table.folder / 'gpu.json'}")
    return int(any(row["status"] != "ok" for row in table.rows))


if __name__ == "__main__":
    raise SystemExit(main())
