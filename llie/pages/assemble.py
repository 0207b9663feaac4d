"""Put a page together: its data as JSON, styles and scripts in the file itself, so that opening it asks no server."""

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
        title: of the window.
        body: HTML of the page.
        data: plain values; scripts find them as `DATA`.
        scripts: files of JavaScript, which run in this order after `draw.js`.

    Raises:
        ValueError: data hold NaN or infinity, which JSON does not know.
    """
    code = "\n".join(file.read_text(encoding="utf-8") for file in [DRAWING, *scripts])
    assert "</script" not in code
    # "<" as an escape: a name in the data cannot end the element that they are in.
    content = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(title), style=STYLE.read_text(encoding="utf-8"), body=body, data=content, code=code
    )


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    """A file's content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
