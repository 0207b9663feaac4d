"""Compares runs that differ only in their seed: mean, deviation and each seed, for last and best checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from llie.engine.checkpoint import write_atomically
from llie.history.runs import Run


@dataclass(frozen=True)
class SeedTable:
    """Figures of runs that differ only in their seed.

    Attributes:
        name: name of the experiment.
        runs: one for each seed.
    """

    name: str
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[Any]:
        """The seeds, in order."""
        return [run.options.get("manual_seed") for run in self.runs]

    def lines(self) -> list[dict[str, Any]]:
        """`{figure, checkpoint, mean, deviation, seeds: [value ...]}` for each figure and checkpoint.

        The deviation is that of a sample (n - 1); None with one seed.
        """
        result = []
        for column in dict.fromkeys(column for run in self.runs for column in run.validation):
            for checkpoint, figures in (
                ("last", [run.last_figures() for run in self.runs]),
                ("best", [run.best_figures() for run in self.runs]),
            ):
                values = [of_run.get(column) for of_run in figures]
                known = [value for value in values if value is not None and math.isfinite(value)]
                if known:
                    deviation = stdev(known) if len(known) > 1 else None
                    line = {"figure": column, "checkpoint": checkpoint, "mean": fmean(known), "deviation": deviation}
                    result.append(line | {"seeds": [_finite(value) for value in values]})
        return result

    def notes(self) -> list[str]:
        """Notes on the table: which weights it is about, and how the best checkpoint was chosen."""
        weights = sorted({run.weights for run in self.runs})
        notes = [f"last and best are checkpoints of the {' or the '.join(weights)}, as validation measures them"]
        choice = _choice(self.runs[0])
        return [*notes, choice] if choice else notes

    def text(self) -> str:
        """The table for the screen, with the notes."""
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        aligned = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        title = f"{self.name}: {len(self.runs)} seeds ({', '.join(map(str, self.seeds))})"
        return "\n".join([title, *aligned, *(f"note: {note}" for note in self.notes())])

    def markdown(self) -> str:
        """The same as Markdown."""
        header, *lines = self._table()
        rule = ["---", "---", *["---:"] * (len(header) - 2)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])
        return f"# {self.name}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in self.notes()) + "\n"

    def write(self, folder: Path) -> None:
        """Write `seeds.json` and `seeds.md`."""
        content = {"name": self.name, "seeds": self.seeds, "lines": self.lines(), "notes": self.notes()}
        content["runs"] = [str(run.folder) for run in self.runs]
        write_atomically(folder / "seeds.json", (json.dumps(content, indent=1) + "\n").encode("utf-8"))
        write_atomically(folder / "seeds.md", self.markdown().encode("utf-8"))

    def _table(self) -> list[list[str]]:
        header = ["figure", "checkpoint", "mean", "deviation", *(f"seed {seed}" for seed in self.seeds)]
        lines = [
            [line["figure"], line["checkpoint"], *map(_text, (line["mean"], line["deviation"], *line["seeds"]))]
            for line in self.lines()
        ]
        return [header, *lines]


def _choice(run: Run) -> str | None:
    """How the best checkpoint was chosen, and whether that makes its figures too good."""
    if run.best is None or not run.validation:
        return None
    datasets = run.options.get("datasets") or {}
    sections = {key: section for key, section in datasets.items() if key.startswith("val") and section}
    if not sections:
        return None
    key, first = next(iter(sections.items()))
    by = next(iter(run.validation))
    if "split" in first:
        return (
            f"best was chosen by {by} on {first['split']:.3g} of the training set, split off by the seed: "
            "no test image was seen"
        )
    return (
        f"best was chosen by {by} on {first.get('name') or key}, the images of its figures, so that they are too good; "
        "quote the last checkpoint, or split validation images off with datasets.val: {split: 0.05}"
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
