"""Writes the results as a table: for the screen, and as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from llie import __version__
from llie.benchmark.plan import Plan
from llie.benchmark.published import Published, published
from llie.benchmark.runs import Row
from llie.engine.checkpoint import write_atomically

FORMAT = 1  # of results.json
DECIMALS = {"psnr": 2, "delta_e": 2, "niqe": 2, "brisque": 1, "loe": 0}


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All `metric/protocol` of the rows, in order."""
    return list(dict.fromkeys(column for row in rows for column in row.means))


def published_of(plan: Plan, row: Row) -> dict[str, list[Published]]:
    """The published figures of a row, see `published`."""
    methods = {model.name: model.published for model in plan.models}
    return published(row, methods.get(row.model))


def write_tables(plan: Plan, rows: Sequence[Row], folder: Path) -> None:
    """Write `results.csv`, `results.json` (which `--check` reads) and `results.md`."""
    content = {
        "format": FORMAT,
        "plan": plan.as_dict(),
        "rows": [asdict(row) for row in rows],
        "versions": {"llie": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    write_atomically(folder / "results.csv", as_csv(plan, rows).encode("utf-8"))
    write_atomically(folder / "results.json", (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8"))
    write_atomically(folder / "results.md", as_markdown(plan, rows).encode("utf-8"))


def as_csv(plan: Plan, rows: Sequence[Row]) -> str:
    """CSV with a line for each row, without the figures of single images."""
    columns = columns_of(rows)
    lines = []
    for row in rows:
        others = published_of(plan, row)
        line: dict[str, Any] = {"model": row.model, "dataset": row.dataset, "network": row.network}
        line |= {"images": len(row.images), "error": row.error}
        for column in columns:
            line[column] = row.means.get(column)
            if column in others:
                line[f"published {column}"] = others[column][0].value
                line[f"published {column}: images"] = others[column][0].images
        line |= flat_cost(row)
        line |= {key: row.identity.get(key) for key in ("seed", "weights", "data", "llie")}
        lines.append(line)
    header = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted(header, key=lambda key: _place(key, columns)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_markdown(plan: Plan, rows: Sequence[Row]) -> str:
    """Markdown with a table for each data set, its conditions above and its failures below."""
    parts = []
    for dataset, lines, own in _by_dataset(rows):
        table = _cells(plan, lines)
        parts.append(f"## {dataset}\n\n{conditions(own)}\n\n" + "\n".join(_markdown_lines(table)))
        parts += [f"- {row.model} failed: {' '.join(str(row.error).split())}" for row in own if row.error]
    return "\n\n".join(parts) + "\n"


def as_text(plan: Plan, rows: Sequence[Row]) -> str:
    """Aligned text with a table for each data set, for the screen."""
    parts = []
    for dataset, lines, own in _by_dataset(rows):
        table = _cells(plan, lines)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        aligned = [
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        failures = [f"{row.model} failed: {row.error}" for row in own if row.error]
        parts.append("\n".join([f"{dataset}: {conditions(own)}", *aligned, *failures, *_notes(lines)]))
    return "\n\n".join(parts)


def conditions(rows: Sequence[Row]) -> str:
    """A line about the conditions of a table: number of images, size, processor, threads."""
    done = [row for row in rows if not row.error]
    images = "; ".join(f"{count} images" for count in sorted({len(row.images) for row in done})) or "nothing measured"
    machines = {
        f"latency and memory at {'x'.join(map(str, row.cost['size']))} on {row.cost['device']}, "
        f"{row.cost['threads']} thread{'s' * (row.cost['threads'] != 1)}"
        for row in rows
        if row.cost
    }
    return "; ".join([images, *sorted(machines)])


def _notes(rows: Sequence[Row]) -> list[str]:
    """Each note once; a note that is not about all rows names them."""
    models: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            models.setdefault(note, []).append(row.model)
    return [f"note{'' if len(own) == len(rows) else ' on ' + ', '.join(own)}: {note}" for note, own in models.items()]


def flat_cost(row: Row) -> dict[str, Any]:
    """The cost of a row as a flat mapping."""
    cost = row.cost
    if cost is None:
        return {}
    latency = cost["latency"]
    return {
        "parameters": cost["parameters"],
        "macs": cost["macs"],
        "latency_median": latency["median"],
        "latency_q1": latency["q1"],
        "latency_q3": latency["q3"],
        "peak_memory": cost["peak_memory"],
        "cost_size": "x".join(map(str, cost["size"])),
        "device": cost["device"],
        "threads": cost["threads"],
    }


def _by_dataset(rows: Sequence[Row]) -> list[tuple[str, list[Row], list[Row]]]:
    """Name, rows with figures and all rows of each data set."""
    names = dict.fromkeys(row.dataset for row in rows)
    grouped = [(name, [row for row in rows if row.dataset == name]) for name in names]
    return [(name, [row for row in own if not row.error], own) for name, own in grouped]


def _cells(plan: Plan, rows: Sequence[Row]) -> list[list[str]]:
    """Header and lines."""
    columns = columns_of(rows)
    known = {row.model: published_of(plan, row) for row in rows}
    compared = [column for column in columns if any(column in figures for figures in known.values())]
    header = ["model", *columns]
    for column in compared:
        header += [f"published {column}", "difference"]
    lines = [[*header, "parameters", "GMACs", "ms (quartiles)", "MiB"]]
    for row in rows:
        line = [row.model, *(number(row.means.get(column), column) for column in columns)]
        for column in compared:
            line += _beside(row, column, known[row.model])
        lines.append(line + _cost_cells(row))
    return lines


def _beside(row: Row, column: str, known: dict[str, list[Published]]) -> list[str]:
    """The published figure and the difference, with a star if the numbers of images differ."""
    if column not in known:
        return ["", ""]
    first, own = known[column][0], row.means.get(column)
    star = "*" if first.images != len(row.images) else ""
    difference = "" if own is None else f"{own - first.value:+.{DECIMALS.get(column.rsplit('/', 1)[0], 4)}f}{star}"
    return [number(first.value, column) + (f" ({first.images} images)" if star else ""), difference]


def _cost_cells(row: Row) -> list[str]:
    if row.cost is None:
        return [""] * 4
    latency, memory, macs = row.cost["latency"], row.cost["peak_memory"], row.cost["macs"]
    times = [1000 * latency[key] for key in ("median", "q1", "q3")]
    return [
        f"{row.cost['parameters']:,}",
        "" if macs is None else f"{macs / 1e9:.3g}",
        "{} ({} to {})".format(*(f"{time:.0f}" if time >= 100 else f"{time:.3g}" for time in times)),
        "" if memory is None else f"{memory / 2**20:.0f}",
    ]


def number(value: float | None, column: str) -> str:
    """A figure as text, with the usual number of decimals of its metric."""
    return "" if value is None else f"{value:.{DECIMALS.get(column.rsplit('/', 1)[0], 4)}f}"


def _markdown_lines(table: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [table[0], rule, *table[1:]]
    ]


def _place(key: str, columns: list[str]) -> tuple[int, int]:
    """Sort key of a CSV column: names, then each figure with its published value, then cost and hashes."""
    first = ["model", "dataset", "network", "images", "error"]
    if key in first:
        return 0, first.index(key)
    plain = key.removeprefix("published ").partition(":")[0]
    if plain in columns:
        return 1, 3 * columns.index(plain) + (key != plain) + key.endswith(": images")
    return 2, 0
