"""Compares results with stored ones: lists the figures that changed by more than the tolerance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llie.benchmark.runs import Row
from llie.benchmark.tables import FORMAT
from llie.errors import UserError

# Absolute tolerances: figures differ between processors in the last digits.
TOLERANCES = {
    "psnr": 0.01,
    "ssim": 0.0005,
    "ms_ssim": 0.0005,
    "lpips": 0.001,
    "dists": 0.001,
    "delta_e": 0.01,
    "niqe": 0.02,
    "mae": 1e-4,
}
RELATIVE = 0.001  # relative tolerance of all other metrics


def read_results(place: str | Path) -> dict[str, Any]:
    """Read a `results.json`.

    Args:
        place: the file, or its folder.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    path = Path(place).expanduser()
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the stored results {path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is not a results.json of llie benchmark (it is not JSON)") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a results.json of this version of llie benchmark")
    return content


def read_tolerances(words: Sequence[str]) -> dict[str, float]:
    """The default tolerances, with changes from words of the form `METRIC=NUMBER`.

    Raises:
        UserError: a word has another form.
    """
    tolerances = dict(TOLERANCES)
    for word in words:
        name, _, number = word.partition("=")
        try:
            tolerances[name] = float(number)
        except ValueError:
            raise UserError(f"cannot read the tolerance {word!r}; write it like psnr=0.02") from None
    return tolerances


def differences(stored: Mapping[str, Any], rows: Sequence[Row], tolerances: Mapping[str, float]) -> list[str]:
    """List the differences between stored and new results, one line each; new rows are ignored.

    Compared are failures, the hash of the data, the means of each row, and the numbers of parameters and MACs, which
    must be equal. Latency and memory depend on the machine and are not compared.

    Args:
        stored: from `read_results`.
        rows: the new results.
        tolerances: metric -> largest absolute change, from `read_tolerances`.
    """
    present = {(row.model, row.dataset): row for row in rows}
    lines = []
    for old in (Row(**row) for row in stored["rows"]):
        where = f"{old.model} on {old.dataset}"
        new = present.get((old.model, old.dataset))
        if new is None:
            lines.append(f"{where}: not measured any more")
        elif new.error:
            if not old.error:
                lines.append(f"{where}: fails now: {new.error}")
        elif not old.error:
            lines += [f"{where}: {line}" for line in _moved(old, new, tolerances)]
    return lines


def _moved(old: Row, new: Row, tolerances: Mapping[str, float]) -> list[str]:
    if old.identity.get("data") != new.identity.get("data"):
        return ["the data differ from the stored ones"]
    lines = []
    hint = "" if old.identity.get("weights") == new.identity.get("weights") else " (with other weights)"
    for column, before in old.means.items():
        after = new.means.get(column)
        if before is None and after is None:
            continue
        if before is None or after is None:
            lines.append(f"{column} was {_text(before)} and is {_text(after)}")
            continue
        allowed = tolerances.get(column.rsplit("/", 1)[0], RELATIVE * abs(before))
        if abs(after - before) > allowed:
            lines.append(f"{column} was {before:.6g} and is {after:.6g}; {allowed:.3g} is allowed{hint}")
    if old.cost and new.cost:
        lines += [
            f"{name} were {old.cost[name]:,} and are {new.cost[name]:,}"
            for name in ("parameters", "macs")
            if None not in (old.cost[name], new.cost[name]) and old.cost[name] != new.cost[name]
        ]
    return lines


def _text(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
