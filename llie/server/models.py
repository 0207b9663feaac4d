"""The networks of the server, by the names that clients use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llie.archs import controls_of
from llie.errors import UserError
from llie.inference import Enhancer, load
from llie.inference.loading import SHIPPED

# Test-time controls that clients may set, with their ranges. Others are left out: with `size`, a client could make the
# server use any amount of memory.
CONTROLS = {"denoise": (0.0, 1.0), "alpha_s": (0.0, 10.0), "alpha_i": (0.0, 10.0), "alpha_rgb": (0.0, 10.0)}

Models = dict[str, Enhancer]


def load_models(words: Sequence[str], devices: Sequence[str], memory: str | None = None) -> list[Models]:
    """Load every network on every device, and run it once, so that mistakes are found before the server listens.

    Args:
        words: `MODEL` or `NAME=MODEL`, where MODEL is what `llie.load` takes; the default name is that of the file or
            folder. The first network is the default for clients. If empty: the network that ships with llie.
        devices: "cpu", "cuda:0" ...; if empty: all GPUs, or the CPU if there is none.
        memory: memory limit for one image, see `llie.inference.Enhancer`.

    Returns:
        For each device, its networks by name.

    Raises:
        UserError: see `llie.load`; or two networks have the same name.
    """
    sources: dict[str, str] = {}
    for word in words or [SHIPPED]:
        name, _, source = word.rpartition("=")
        name = name or Path(source).stem
        if name in sources:
            raise UserError(f"two networks would be called {name!r}; name one yourself: --model NAME={source}")
        sources[name] = source
    loaded = [
        {name: load(source, device, memory=memory) for name, source in sources.items()}
        for device in devices or default_devices()
    ]
    for models in loaded:
        for enhance in models.values():
            enhance(np.zeros((64, 64, 3), np.uint8))
    return loaded


def default_devices() -> list[str]:
    """All GPUs, or the CPU if there is none."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{number}" for number in range(gpus)] or ["cpu"]


def described(models: Models) -> list[dict[str, Any]]:
    """The networks as /models lists them; the first is the default."""
    return [
        {
            "name": name,
            "network": type(enhance.network).__name__,
            "settings": ["strength", "exposure", *settable(enhance)],
            "default": name == next(iter(models)),
        }
        for name, enhance in models.items()
    ]


def settable(enhance: Enhancer) -> list[str]:
    """The controls of a network that clients may set."""
    return [name for name in controls_of(enhance.network) if name in CONTROLS]
