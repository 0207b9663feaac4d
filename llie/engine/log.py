"""The logs of a run: console and file, metrics.jsonl, TensorBoard, and a progress bar on terminals. Rank 0 only."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llie.engine.checkpoint import write_atomically
from llie.engine.distributed import is_main
from llie.errors import UserError


class RunLog:
    """The log of one run.

    Args:
        folder: the run folder; gets train.log, metrics.jsonl and tb/.
        first: iteration from which the run continues; later log entries are removed.
        total: number of iterations, for the progress bar.
        tensorboard: whether to write TensorBoard files.
    """

    def __init__(self, folder: Path, first: int = 0, total: int | None = None, tensorboard: bool = False):
        self._on = is_main()
        self._logger = logging.Logger(f"llie {folder.name}")  # not global: runs in one process have separate logs
        if not self._on:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._bar = tqdm(
            total=total, initial=first, unit="it", dynamic_ncols=True, smoothing=0.05, disable=not sys.stderr.isatty()
        )
        self._handlers = [_Console(), logging.FileHandler(folder / "train.log", encoding="utf-8")]
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            self._logger.addHandler(handler)
        self._file = folder / "metrics.jsonl"
        self._forget_after(first)
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tb"), purge_step=first + 1)

    def line(self, text: str, level: int = logging.INFO) -> None:
        """One line on the console and in train.log."""
        if self._on:
            self._logger.log(level, text)

    def warn(self, text: str) -> None:
        """Log a warning."""
        self.line(f"WARNING {text}", logging.WARNING)

    def scalars(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """One line in metrics.jsonl (`{"kind": ..., "iter": ..., **values}`), and TensorBoard curves `kind/name`."""
        if not self._on:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "iter": iteration, **values}) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._file} ({error.strerror})") from error
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, iteration)

    def picture(self, name: str, iteration: int, image: torch.Tensor) -> None:
        """Log a picture, (3, H, W) in [0, 1], to TensorBoard."""
        if self._on and self._writer:
            self._writer.add_image(name, image.detach().float().clamp(0, 1).cpu(), iteration)

    def progress(self, **shown: str) -> None:
        """Advance the progress bar by one iteration; `shown` appears beside it."""
        if self._on:
            self._bar.update()
            if shown:
                self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        """Flush and release the files."""
        if not self._on:
            return
        self._bar.close()
        if self._writer:
            self._writer.close()
        for handler in self._handlers:
            handler.close()

    def _forget_after(self, iteration: int) -> None:
        """Remove entries after the last checkpoint of a killed run; the resumed run logs them again."""
        if not self._file.exists():
            return
        lines = [line for line in self._file.read_text(encoding="utf-8").splitlines(keepends=True) if _whole(line)]
        kept = [line for line in lines if json.loads(line)["iter"] <= iteration]
        write_atomically(self._file, "".join(kept).encode("utf-8"))


def _whole(line: str) -> bool:
    return line.startswith("{") and line.endswith("}\n")


class _Console(logging.Handler):
    """Writes above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def describe(values: Mapping[str, Any]) -> str:
    """`name: value` pairs for a log line."""
    return "  ".join(
        f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in values.items()
    )
