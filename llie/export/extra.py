"""Imports the packages of the extra [export]."""

from __future__ import annotations

import importlib
from typing import Any

from llie.errors import UserError


def require(package: str) -> Any:
    """Import a package of the extra.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"this needs the package {package.partition('.')[0]}: pip install 'llie[export]'") from None
