"""Measure a network on a data set: every image once, under every protocol, keeping the figures of each image.

The images are divided among the processes of a run; all processes return the same report.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from llie.data.readers import write_image
from llie.engine import allocator
from llie.engine.distributed import broadcast, gather, is_main, rank, world_size
from llie.errors import UserError
from llie.evaluation.report import Report
from llie.metrics import Metric, MetricUnavailable, create_metric
from llie.metrics.protocols import protocol_steps, with_counterparts

Item = dict[str, Any]


class Items(Protocol):
    """Any data set: `dataset[index]` is `{"lq": (3, H, W) in [0, 1], "lq_path": str}`, perhaps with `gt`, `gt_path`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item: ...


def evaluate(
    predict: Callable[[Item], Tensor],
    dataset: Items,
    metrics: Mapping[str, Mapping[str, Any] | Metric],
    protocols: Iterable[str] = ("rgb8",),
    *,
    name: str = "results",
    save_folder: str | Path | None = None,
    results_folder: str | Path | None = None,
    include_input: bool = False,
    average: Literal["image", "folder"] = "image",
    progress: bool = True,
) -> Report:
    """Enhance every image of a data set and measure the results; in a group of processes, all ranks must call it.

    Args:
        predict: function of a batch of one (`lq` (1, 3, H, W), `lq_path` [str], ...) that returns (1, 3, H, W).
        dataset: see `Items`. Without `gt`, metrics that need a reference are left out.
        metrics: name in tables -> `{type, **arguments}` as in option files, or a `Metric`.
        protocols: names in `llie.metrics.PROTOCOLS`; a plain one adds its GT-mean form, and vice versa.
        name: name of the data set, and of the files in `results_folder`.
        save_folder: folder for the results as PNG, each under the name of its input; created if missing.
        results_folder: folder for `<name>.csv` and `<name>.json`, which are written even if the evaluation fails.
        include_input: also measure the unprocessed input.
        average: `image`: mean over all images; `folder`: mean over the means of folders (clips), as in SNR-Aware.
        progress: show a progress bar on a terminal.

    Returns:
        The report, the same on every rank; its rows are in the order of the data set.

    Raises:
        UserError: unknown metric or protocol, an unreadable image, or an invalid output (NaN, infinite, not the size of
            the reference); the message names the image. Figures measured before are written.
    """
    if len(dataset) == 0:
        raise UserError(f"{name}: there are no images to evaluate")
    measured = _Columns(metrics, with_counterparts(protocols), include_input)
    names = image_names(dataset)
    rows: list[dict[str, Any]] = []
    failure: Exception | None = None
    share = range(rank(), len(dataset), world_size())
    bar = tqdm(share, desc=name, unit="image", leave=False, disable=None if progress and is_main() else True)
    try:
        for index in bar:
            item = dataset[index]
            allocator.suit(pixels=item["lq"].shape[-2] * item["lq"].shape[-1])
            output = _result(predict, item)
            row = {"index": index, "name": names[index] if names else Path(item["lq_path"]).stem}
            if save_folder is not None:
                write_image(Path(save_folder) / f"{row['name']}.png", output[0].permute(1, 2, 0).float().cpu().numpy())
            rows.append(row | {"path": item["lq_path"]} | measured.figures(output, item))
    except Exception as error:  # raised later: other ranks are still working, and the results so far must be written
        failure = error
    allocator.suit(pixels=0)  # training continues
    rows = broadcast(sorted(gather(rows), key=lambda row: row["index"]))
    notes = broadcast(gather(measured.notes))
    failures = broadcast(gather([str(failure)] if failure else []))
    report = Report(name, rows, measured.metrics, average, sorted(set(notes)))
    if results_folder is not None and rows and is_main():
        report.write(results_folder)
    if failure and not isinstance(failure, UserError):
        raise failure
    if failures:
        done = f" ({len(rows)} of {len(dataset)} images were measured; figures in {results_folder})"
        raise UserError(failures[0] + (done if results_folder is not None and rows else ""))
    return report


def image_names(dataset: Items) -> list[str] | None:
    """A name for each image: its path below the common folder, without ending.

    None for a data set without `pairs` of paths; results then have the file name of the input.
    """
    pairs = getattr(dataset, "pairs", None)
    if pairs is None:
        return None
    paths = [Path(pair[0]) for pair in pairs]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    if len(set(names)) < len(names):  # a.png beside a.jpg
        names = [path.relative_to(root).as_posix() for path in paths]
    return names


def _result(predict: Callable[[Item], Tensor], item: Item) -> Tensor:
    """The output for one item, (1, 3, H, W), finite and in [0, 1]."""
    batch = {key: value[None] if isinstance(value, Tensor) else [value] for key, value in item.items()}
    with torch.no_grad():
        output = predict(batch)
    if output.ndim != 4 or len(output) != 1:
        raise UserError(f"{item['lq_path']}: expected one result (1, 3, H, W), got shape {tuple(output.shape)}")
    broken = int((~torch.isfinite(output)).sum())
    if broken:
        raise UserError(
            f"{item['lq_path']}: the network's output is broken: {broken} of its {output.numel()} values are NaN or "
            "infinite"
        )
    return output.clamp(0, 1)


class _Columns:
    """The figures to measure of each image, and notes about them.

    Attributes:
        metrics: all metrics by name.
        notes: why metrics were left out.
    """

    def __init__(self, metrics: Mapping[str, Mapping[str, Any] | Metric], protocols: Sequence[str], input_too: bool):
        self.metrics = {
            name: spec if isinstance(spec, Metric) else create_metric({"type": name, **(spec or {})}, name)
            for name, spec in metrics.items()
        }
        self.notes: list[str] = []
        self._input_too = input_too
        self._columns = [
            (metric, protocol) for metric in self.metrics.values() for protocol in metric.protocols(protocols)
        ]
        for _, protocol in self._columns:
            protocol_steps(protocol)  # so that a misspelt name fails before the first image

    def figures(self, output: Tensor, item: Item) -> dict[str, float]:
        """`{"psnr/rgb8": ..., "input/psnr/rgb8": ...}`."""
        images = {"": output[0]} | ({"input/": item["lq"]} if self._input_too else {})
        figures = {}
        for metric, protocol in list(self._columns):
            if metric.needs_reference and item.get("gt") is None:
                self._note(f"{metric.name} needs references; images without one are left out")
                continue
            try:
                for prefix, image in images.items():
                    figures[f"{prefix}{metric.name}/{protocol}"] = _measure(metric, image, item, protocol)
            except MetricUnavailable as error:
                self._columns = [column for column in self._columns if column[0] is not metric]
                self._note(f"{metric.name} is left out: {error}")
        return figures

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _measure(metric: Metric, image: Tensor, item: Item, protocol: str) -> float:
    """Measure one figure; warnings and errors name the image."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = metric(image, item.get("gt"), protocol, item["lq"])
        except MetricUnavailable:
            raise
        except UserError as error:
            raise UserError(f"{item['lq_path']}: {error}") from None
    for warning in caught:
        warnings.warn(f"{item['lq_path']}: {warning.message}", warning.category, stacklevel=2)
    return value
