"""Writes a page about one or several runs: curves, options, versions, figures, validation pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from llie.engine.checkpoint import write_atomically
from llie.history.runs import Curve, Run
from llie.history.seeds import SeedTable
from llie.pages import assemble, data_uri

HERE = Path(__file__).parent
POINTS = 600  # largest number of points of a curve
STRIPS = 6  # number of pictures of each data set and run, evenly spread over the training
WIDTH = 900  # pixels of a strip


def write_page(runs: Sequence[Run], path: str | Path, table: SeedTable | None = None) -> Path:
    """Write the page.

    Args:
        runs: at least one run.
        path: HTML file to write.
        table: figures over seeds, shown at the top.

    Returns:
        The path.
    """
    title = table.name if table else ", ".join(run.name for run in runs)
    body = (HERE / "page.html").read_text(encoding="utf-8").replace("$title", html.escape(title))
    text = assemble(title, body, page_data(runs, table), [HERE / "curves.js"])
    path = Path(path)
    write_atomically(path, text.encode("utf-8"))
    return path


def page_data(runs: Sequence[Run], table: SeedTable | None = None) -> dict[str, Any]:
    """The data of the page's script, as plain values."""
    return {
        "runs": [
            {
                "name": run.name,
                "training": {name: thinned(curve) for name, curve in run.training.items()},
                "validation": {name: thinned(curve) for name, curve in run.validation.items()},
                "best": run.best,
                "weights": run.weights,
                "last_figures": _plain(run.last_figures()),
                "best_figures": _plain(run.best_figures()),
                "options": {key: str(value) for key, value in flat(run.options).items()},
                "versions": {key: str(value) for key, value in run.versions.items()},
                "strips": _strips(run.folder / "tb"),
            }
            for run in runs
        ],
        "seeds": {"lines": table.lines(), "notes": table.notes(), "names": table.seeds} if table else None,
    }


def thinned(curve: Curve) -> Curve:
    """At most `POINTS` points, each the mean of its neighbours; values that are not finite are left out."""
    points = np.array([point for point in curve if np.isfinite(point[1])], dtype=float).reshape(-1, 2)
    if len(points) > POINTS:
        points = np.array([part.mean(axis=0) for part in np.array_split(points, POINTS)])
    return [(round(float(x)), float(y)) for x, y in points]


def flat(options: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested options as `{dotted path: value}`."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        dotted = f"{path}.{key}" if path else str(key)
        found |= flat(value, dotted) if isinstance(value, Mapping) and value else {dotted: value}
    return found


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def _strips(folder: Path) -> list[dict[str, Any]]:
    """`{name, iteration, picture}` from the TensorBoard log: input, result and reference side by side."""
    if not folder.is_dir():
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 1})
    events.Reload()
    found = []
    for tag in events.Tags()["images"]:
        pictures = {event.step: event.encoded_image_string for event in events.Images(tag)}  # the last of each step
        steps = sorted(pictures)
        for place in sorted({round(float(x)) for x in np.linspace(0, len(steps) - 1, STRIPS)}):
            step = steps[place]
            found.append({"name": tag, "iteration": step, "picture": _small(pictures[step])})
    return found


def _small(encoded: bytes) -> str:
    """The picture as an address of a JPEG, at most `WIDTH` pixels wide."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "TensorBoard wrote this picture"
    scale = min(1.0, WIDTH / image.shape[1])
    if scale < 1:
        size = WIDTH, max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return data_uri(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
