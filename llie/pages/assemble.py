"""Writes a page with its data, styles and scripts in one file, so that a browser loads nothing from a server."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent
STYLE = HERE / "page.css"
DRAWING = HERE / "draw.js"  # elements, scales and axes, for every page's scripts


def assemble(title: str, body: str, data: Any, scripts: Sequence[Path]) -> str:
    """The text of a page.

    Args:
        title: title of the window.
        body: HTML of the page.
        data: plain values, which scripts find as `DATA`.
        scripts: JavaScript files, which run in this order after `draw.js`.

    Raises:
        ValueError: the data contain NaN or infinity, which JSON does not have.
    """
    code = "\n".join(file.read_text(encoding="utf-8") for file in [DRAWING, *scripts])
    assert "</script" not in code
    # Escape "<", so that a name in the data cannot end the script element.
    content = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(title), style=STYLE.read_text(encoding="utf-8"), body=body, data=content, code=code
    )


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    """The content of a file as a `data:` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
