"""The figures of an evaluation: means, a table for the screen, a CSV of all images, a JSON of everything else."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import cv2
import numpy
import torch

from llie import __version__
from llie.errors import UserError
from llie.metrics import PROTOCOLS, Metric


@dataclass(frozen=True)
class Report:
    """The figures of a data set.

    Attributes:
        name: name of the data set.
        rows: one per image, in order: `index`, `name`, `path`, and figures: `psnr/rgb8` (metric/protocol) of the
            result, `input/psnr/rgb8` of the unprocessed input.
        metrics: metrics by name.
        average: `image` or `folder`; see `evaluate`.
        notes: metrics that were left out, and why.
    """

    name: str
    rows: list[dict[str, Any]]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    average: Literal["image", "folder"] = "image"
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the figures, in order."""
        return list(dict.fromkeys(key for row in self.rows for key in row if "/" in key))

    @property
    def means(self) -> dict[str, float]:
        """The mean of each column over the images with a finite figure.

        A result equal to its reference has infinite PSNR, and an image that is too small has no NIQE. One such image
        would make the mean meaningless, so it is left out, and `exclusions` reports it.
        """
        return {column: self._mean(column) for column in self.columns}

    @property
    def exclusions(self) -> list[str]:
        """A line for each column whose mean leaves out images."""
        lines = []
        for column in self.columns:
            values = [row[column] for row in self.rows if column in row]
            for count, what in (
                (sum(map(math.isinf, values)), "infinite (equal to the reference)"),
                (sum(map(math.isnan, values)), "NaN (not measurable)"),
            ):
                if count:
                    lines.append(f"{column}: {count} of {len(values)} images {what}, left out of the mean")
        return lines

    def _mean(self, column: str) -> float:
        groups: dict[Any, list[float]] = {}
        for row in self.rows:
            if math.isfinite(row.get(column, math.nan)):
                group = Path(row["path"]).parent if self.average == "folder" else None
                groups.setdefault(group, []).append(row[column])
        if groups:
            return fmean(map(fmean, groups.values()))
        return math.inf if any(math.isinf(row.get(column, 0)) for row in self.rows) else math.nan

    def table(self) -> str:
        """The means as text, one line per metric and protocol."""
        means = self.means
        of_results = [column for column in means if not column.startswith("input/")]
        has_input = len(of_results) < len(means)
        lines = [["metric", "protocol", *(["input"] if has_input else []), "enhanced", "better"]]
        for column in of_results:
            metric, protocol = column.rsplit("/", 1)
            figures = [means[f"input/{column}"]] if has_input else []
            better = self.metrics[metric].better if metric in self.metrics else ""
            lines.append([metric, protocol, *(f"{value:.4f}" for value in [*figures, means[column]]), better])
        over = "folder means" if self.average == "folder" else "images"
        title = f"{self.name}: {len(self.rows)} images, mean over {over}"
        notes = [f"note: {note}" for note in [*self.notes, *self.exclusions]]
        return "\n".join([title, *_aligned(lines), *notes])

    def write(self, folder: str | Path) -> None:
        """Write `<name>.csv` (all images) and `<name>.json` (means, counts, protocols, versions) into a folder.

        Raises:
            UserError: the folder cannot be written.
        """
        table = io.StringIO()
        writer = csv.DictWriter(table, ["name", *self.columns, "path"], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        # JSON has no NaN, so the mean of no values is null.
        facts = json.dumps(self._facts(), indent=2, ensure_ascii=False, allow_nan=False)
        for suffix, text in ((".csv", table.getvalue()), (".json", facts + "\n")):
            _write(Path(folder) / f"{self.name}{suffix}", text)

    def _facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "images": len(self.rows),
            "average": self.average,
            "means": {column: mean if math.isfinite(mean) else None for column, mean in self.means.items()},
            "counts": {
                column: sum(math.isfinite(row.get(column, math.nan)) for row in self.rows) for column in self.columns
            },
            "protocols": {
                protocol: [step.__name__ for step in PROTOCOLS.get(protocol, ())]
                for protocol in dict.fromkeys(column.rsplit("/", 1)[1] for column in self.columns)
            },
            "better": {name: metric.better for name, metric in self.metrics.items()},
            "arguments": {name: dict(metric.arguments) for name, metric in self.metrics.items()},
            "notes": [*self.notes, *self.exclusions],
            "versions": {
                "llie": __version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "opencv": cv2.__version__,
                "python": platform.python_version(),
            },
        }


def _aligned(lines: list[list[str]]) -> Iterable[str]:
    """Columns of text, left-aligned, and of figures, right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if place < 2 or place == len(line) - 1 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
