"""The trainer's settings as one typed object, from the `train`, `val` and `logger` sections of an option file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from llie.errors import UserError


@dataclass
class Settings:
    """All settings of the trainer.

    Attributes:
        total_iter: optimiser steps in the whole run.
        seed: all random numbers depend on (seed, rank, iteration).
        device: device of the networks.
        accumulate: micro-batches per step.
        amp: None, "bf16" or "fp16".
        compile: compile the trained networks (torch.compile).
        channels_last: NHWC memory layout.
        clip_grad_norm: largest gradient norm; None: no clipping.
        ema_decay: decay of the moving average of the weights; 0: none.
        max_nonfinite: stop after this many steps in a row with a non-finite loss or gradient.
        warmup_iter: linear warm-up up to this iteration.
        optimizers: network name -> `{type, lr, ...}` of torch.optim.
        schedules: network name -> `{type, ...}`; networks without an entry use that of "g".
        val_freq: iterations between validations; None: validate only at the end.
        best: name of the value that decides which checkpoint is the best; None: the first one of the validation.
        lower_is_better: whether a lower value of `best` is better.
        print_freq: iterations between log lines.
        save_freq: iterations between checkpoints.
        keep_last: number of checkpoints to keep.
        tensorboard: write TensorBoard files.
        find_unused_parameters: DDP must search for parameters without a gradient (official HVI-CIDNet wiring).
        facts: plain values stored in every checkpoint (resolved options, versions).
    """

    total_iter: int
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    accumulate: int = 1
    amp: str | None = None
    compile: bool = False
    channels_last: bool = False
    clip_grad_norm: float | None = None
    ema_decay: float = 0.0
    max_nonfinite: int = 10
    warmup_iter: int = -1
    optimizers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"g": {"type": "Adam", "lr": 1e-4}})
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"g": {"type": "constant"}})
    val_freq: int | None = None
    best: str | None = None
    lower_is_better: bool = False
    print_freq: int = 100
    save_freq: int = 5000
    keep_last: int = 3
    tensorboard: bool = False
    find_unused_parameters: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], batches_per_epoch: int, **more: Any) -> Settings:
        """Build the settings from resolved options.

        Args:
            options: the whole option file, resolved.
            batches_per_epoch: length of the loader, for runs with a length in epochs.
            **more: attributes that are not in option files (device, facts, best).

        Raises:
            UserError: the run's length is not given.
        """
        train, val, logger = options["train"], options.get("val") or {}, options.get("logger") or {}
        accumulate = train.get("accumulate", 1)
        total_iter = train.get("total_iter")
        if total_iter is None and train.get("total_epochs"):
            total_iter = train["total_epochs"] * max(1, batches_per_epoch // accumulate)
        if total_iter is None:
            raise UserError("train: give the length of the run: total_iter or total_epochs")
        same = ("amp", "compile", "channels_last", "clip_grad_norm", "ema_decay", "max_nonfinite", "warmup_iter")
        return cls(
            total_iter=total_iter,
            accumulate=accumulate,
            seed=options.get("manual_seed") or 0,
            optimizers={key[6:]: spec for key, spec in train.items() if key.startswith("optim_") and spec},
            schedules={
                key[9:].lstrip("_") or "g": spec for key, spec in train.items() if key.startswith("scheduler") and spec
            },
            val_freq=val.get("val_freq"),
            print_freq=logger.get("print_freq", 100),
            save_freq=logger.get("save_checkpoint_freq", 5000),
            keep_last=logger.get("keep_last", 3),
            tensorboard=logger.get("use_tb_logger", True),
            find_unused_parameters=options.get("find_unused_parameters", False),
            **{key: train[key] for key in same if key in train},
            **more,
        )
