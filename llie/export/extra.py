"""What only export and running exported files need: further packages, and a newer PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from llie.errors import UserError

OLDEST_TORCH = "2.9"  # 2.6 fails at the scan and at AOTInductor's options, and its graphs take small images wrongly


def require_torch() -> None:
    """Check that this PyTorch can record networks and run what was recorded.

    Raises:
        UserError: it is too old.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise UserError(
            f"llie export and .pt2 files need PyTorch {OLDEST_TORCH} or newer, and this is {torch.__version__}: "
            "pip install --upgrade torch torchvision"
        )


def require(package: str) -> Any:
    """Import a package of the extra.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"this needs the package {package.partition('.')[0]}: pip install 'llie[export]'") from None
