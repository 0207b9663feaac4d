"""llie: one toolkit to train, evaluate and use low-light image enhancement networks."""

from __future__ import annotations

import importlib
from typing import Any

from llie import bridge as bridge  # adds BasicSR's classes to our registries as fall-backs

__version__ = "0.1.0"

# Public name -> its module, which is imported at first use, so that `import llie` is fast.
_PUBLIC = {
    "create_network": "llie.archs",
    "load_weights": "llie.weights",
    "load": "llie.inference",
    "UserError": "llie.errors",
}
_SUBPACKAGES = ("archs", "data", "engine", "inference", "losses", "metrics", "models", "ops")

__all__ = ["__version__", *_PUBLIC, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"llie.{name}")
    raise AttributeError(f"module 'llie' has no attribute {name!r}")
