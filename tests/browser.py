"""Pages in a headless Chromium, where the machine has one and the package playwright."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs

PATIENCE = 600_000  # milliseconds, for a machine at its limit


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The page of a file, as playwright's `Page`; at the end, it must have asked no server and reported no error."""
    api = needs.package("playwright.sync_api", "test")
    if needs.BROWSER is None:
        pytest.skip(needs.NO_BROWSER)
    asked: list[str] = []
    errors: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needs.BROWSER, args=["--no-sandbox"], timeout=PATIENCE)
        view = browser.new_page(viewport={"width": 1300, "height": 900})
        view.set_default_timeout(PATIENCE)
        view.on("request", lambda request: asked.append(request.url))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        view.goto(path.as_uri())
        yield view
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
