"""What others published about a model on a data set, with the source, as `published.yml` has it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llie.benchmark.runs import Row


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        method: as its authors call it.
        value: the figure.
        images: how many images it is the mean of.
        source: where it was read.
    """

    method: str
    value: float
    images: int
    source: str


def published(row: Row, method: str | None = None) -> dict[str, list[Published]]:
    """Published figures of a row's network on its data set: `metric/protocol` -> figures, the best known first.

    Args:
        row: what was measured.
        method: only figures of this method; by default of all methods of that network.
    """
    found: dict[str, list[Published]] = {}
    for entry in entries():
        same = entry["method"] == method if method else row.network and entry.get("network") == row.network
        if not same or entry["dataset"] != row.dataset:
            continue
        for column, value in entry["figures"].items():
            figure = Published(entry["method"], value, entry["images"], entry["source"])
            found.setdefault(column, []).append(figure)
    return found


@functools.cache
def entries() -> list[dict[str, Any]]:
    """All entries of the packaged file."""
    return yaml.safe_load(Path(__file__).with_name("published.yml").read_text(encoding="utf-8"))
