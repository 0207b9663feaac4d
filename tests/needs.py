"""What some tests need and not every machine has: a missing one skips them, and the reason says how to get it."""

from __future__ import annotations

import importlib.util
import shutil
from types import ModuleType

import pytest

from llie.data.formats import missing_package

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "needs Chromium on the path, such as the package chromium of the system"

heic_only = pytest.mark.skipif(
    missing_package(".heic") is not None, reason="needs pillow-heif: pip install 'llie[photo]'"
)
raw_only = pytest.mark.skipif(missing_package(".dng") is not None, reason="needs rawpy: pip install 'llie[photo]'")
basicsr_only = pytest.mark.skipif(
    importlib.util.find_spec("basicsr") is None, reason="needs BasicSR, which installs on Python 3.12 and older"
)


def package(name: str, extra: str) -> ModuleType:
    """Import a package of one of our extras, or skip."""
    return pytest.importorskip(name, reason=f"needs {name.partition('.')[0]}: pip install 'llie[{extra}]'")
