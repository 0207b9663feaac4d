"""What some tests need and not every machine has: a missing one skips them, and the reason says how to get it."""

from __future__ import annotations

import importlib.util
import shutil
from types import ModuleType

import pytest
import torch

from llie.data.formats import missing_package
from llie.export.extra import OLDEST_TORCH

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "needs Chromium on the path, such as the package chromium of the system"
OLD_TORCH = f"needs PyTorch {OLDEST_TORCH} or newer: pip install --upgrade torch torchvision"

heic_only = pytest.mark.skipif(
    missing_package(".heic") is not None, reason="needs pillow-heif: pip install 'llie[photo]'"
)
raw_only = pytest.mark.skipif(missing_package(".dng") is not None, reason="needs rawpy: pip install 'llie[photo]'")
basicsr_only = pytest.mark.skipif(
    importlib.util.find_spec("basicsr") is None, reason="needs BasicSR, which installs on Python 3.12 and older"
)
record_only = pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=OLD_TORCH)


def package(name: str, extra: str) -> ModuleType:
    """Import a package of one of our extras, or skip."""
    return pytest.importorskip(name, reason=f"needs {name.partition('.')[0]}: pip install 'llie[{extra}]'")
