"""Published figures of networks on data sets, with their sources, from `published.yml`."""

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
        method: name that its authors use.
        value: the figure.
        images: number of images that it is the mean of.
        source: where the figure was published.
    """

    method: str
    value: float
    images: int
    source: str


def published(row: Row, method: str | None = None) -> dict[str, list[Published]]:
    """Published figures of a row's network on its data set: `metric/protocol` -> figures, in the order of the file.

    Args:
        row: the result to compare with.
        method: only figures of this method; None: of all methods with that network.
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
    """All entries of `published.yml`."""
    return yaml.safe_load(Path(__file__).with_name("published.yml").read_text(encoding="utf-8"))
