"""The page of a benchmark: one HTML file with the table, charts and pictures."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llie import __version__
from llie.benchmark.pictures import INPUT, REFERENCE, Pictures
from llie.benchmark.plan import Plan
from llie.benchmark.runs import Row
from llie.benchmark.tables import columns_of, conditions, published_of
from llie.engine.checkpoint import write_atomically
from llie.metrics.protocols import PROTOCOLS
from llie.pages import assemble, data_uri

HERE = Path(__file__).parent
SCRIPTS = [HERE / "state.js", HERE / "table.js", HERE / "charts.js", HERE / "pictures.js"]
BUDGET = 16e6  # bytes of pictures on a page
EXTREMES = 3  # worst and best images of each model that are always shown


def write_page(plan: Plan, rows: Sequence[Row], folder: str | Path) -> Path:
    """Write `index.html`.

    Args:
        plan: what was measured.
        rows: the results.
        folder: folder of the benchmark, which contains the pictures that `measure` wrote.

    Returns:
        The path of the page.
    """
    path = Path(folder) / "index.html"
    body = (HERE / "page.html").read_text(encoding="utf-8").replace("$title", html.escape(plan.title))
    text = assemble(plan.title, body, page_data(plan, rows, Path(folder)), SCRIPTS)
    write_atomically(path, text.encode("utf-8"))
    return path


def page_data(plan: Plan, rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """The data of the page's scripts, as plain values."""
    columns = columns_of(rows)
    better = {name: way for row in rows for name, way in row.better.items()}
    return {
        "columns": [_column(column, better) for column in columns],
        "datasets": [_dataset(name, rows, folder, columns, BUDGET / len(plan.datasets)) for name in plan.datasets],
        "rows": [_row(plan, row, columns) for row in rows],
        "protocols": {
            column.rsplit("/", 1)[1]: [step.__name__ for step in PROTOCOLS.get(column.rsplit("/", 1)[1], ())]
            for column in columns
        },
        "average": plan.average,
        "versions": {"llie": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _column(column: str, better: dict[str, str]) -> dict[str, str]:
    metric, protocol = column.rsplit("/", 1)
    return {"key": column, "metric": metric, "protocol": protocol, "better": better.get(metric, "higher")}


def _row(plan: Plan, row: Row, columns: list[str]) -> dict[str, Any]:
    known = {column: [asdict(figure) for figure in figures] for column, figures in published_of(plan, row).items()}
    return {
        "model": row.model,
        "dataset": row.dataset,
        "network": row.network,
        "error": row.error,
        "means": [row.means.get(column) for column in columns],
        "images": [[image.get(column) for column in columns] for image in row.images],
        "published": [known.get(column, []) for column in columns],
        "cost": row.cost,
        "notes": row.notes,
        **{key: row.identity.get(key) for key in ("weights", "data", "seed")},
    }


def _dataset(name: str, rows: Sequence[Row], folder: Path, columns: list[str], budget: float) -> dict[str, Any]:
    own = [row for row in rows if row.dataset == name]
    done = [row for row in own if not row.error]
    names = [str(image["name"]) for image in done[0].images] if done else []
    return {
        "name": name,
        "conditions": conditions(own),
        "images": names,
        "pictures": _pictures(Pictures(folder / "pictures" / name), done, len(names), columns, budget),
    }


def _pictures(
    kept: Pictures, rows: Sequence[Row], count: int, columns: list[str], budget: float
) -> dict[str, dict[int, str]]:
    """`{kind: {number of the image: address}}`, of as many images as fit into `budget` bytes."""
    kinds = list(dict.fromkeys([INPUT, REFERENCE, *(row.model for row in rows)]))
    result: dict[str, dict[int, str]] = {kind: {} for kind in kinds}
    used = 0.0
    for number in _by_interest(rows, count, columns):
        files = {kind: kept.path(number, kind) for kind in kinds}
        contents = {kind: file.read_bytes() for kind, file in files.items() if file.is_file()}
        used += sum(map(len, contents.values())) * 4 / 3
        if used > budget:
            break
        for kind, content in contents.items():
            result[kind][number] = data_uri(content)
    return {kind: pictures for kind, pictures in result.items() if pictures}


def _by_interest(rows: Sequence[Row], count: int, columns: list[str]) -> Iterable[int]:
    """Numbers of images in the order in which they are kept: worst and best of each model, then all in random order."""
    order: list[int] = []
    for column in columns[:1]:
        for row in rows:
            figures = [(image.get(column), n) for n, image in enumerate(row.images)]
            ranked = [n for value, n in sorted((value, n) for value, n in figures if value is not None)]
            order += [*ranked[:EXTREMES], *ranked[-EXTREMES:]]
    spread = np.random.default_rng(0).permutation(count).tolist()
    return dict.fromkeys([*order, *spread])
