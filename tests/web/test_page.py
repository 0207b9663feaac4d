"""The page of `llie web` in a real browser: upload, result, slider, download, refusals, and only local requests."""

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

import llie
from llie.data.readers import read_image, write_image
from tests import needs

needs.package("gradio", "web-test")
playwright = needs.package("playwright.sync_api", "web-test")
pytestmark = pytest.mark.skipif(needs.BROWSER is None, reason=needs.NO_BROWSER)

# fmt: off
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]
# fmt: on
# The command, in a process that notes whom it talks to.
PROGRAM = """
import sys
from llie import cli

def note(event, details):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = details[1] if event == "socket.connect" else details
        host = address[0] if isinstance(address, tuple) else address
        if host not in ("127.0.0.1", "::1", "localhost", None):
            print("foreign:", event, host, file=sys.stderr, flush=True)

sys.addaudithook(note)
sys.exit(cli.main(sys.argv[1:]))
"""
PATIENCE = 300  # seconds, on a machine that has other work


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the running command, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    words = ["web", "--port", "0", "--device", "cpu", "--max-pixels", "20000", "--max-bytes", "50000"]
    errors = tmp_path_factory.mktemp("log") / "errors.txt"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        )
    try:
        said = process.stdout.readline()
        assert said.startswith("the page is at http://127.0.0.1:"), said + errors.read_text()
        yield said.split()[4], folder
        process.terminate()
        process.terminate()  # as from a wrapper that passes signals on
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert not list(folder.iterdir()), "SIGTERM leaves nothing"
    assert "foreign:" not in errors.read_text() and "Traceback" not in errors.read_text()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as machine:
        chromium = machine.chromium.launch(executable_path=needs.BROWSER, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser, server):
    """The page, opened; whatever it fetches must be local."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(server[0])
    page.wait_for_selector("#upload input[type=file]", state="attached")
    yield page
    page.close()
    foreign = [url for url in addresses if urlsplit(url).scheme in ("http", "https") and not url.startswith(server[0])]
    assert addresses and not foreign


def upload(tab, path: Path) -> None:
    tab.set_input_files("#upload input[type=file]", path)


def wait_for_result(tab, other_than: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Wait until both pictures are shown; returns their addresses."""
    shown = """before => {
        const images = [...document.querySelectorAll('#slider img')];
        return images.length >= 2 && images.every(i => i.complete && i.naturalWidth && !before.includes(i.src));
    }"""
    tab.wait_for_function(shown, arg=list(other_than))
    return tuple(tab.eval_on_selector_all("#slider img", "images => images.map(image => image.src)"))


def download(tab, folder: Path) -> Path:
    tab.wait_for_selector("#download:not([disabled])")
    with tab.expect_download() as waiting:
        tab.click("#download")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def brightness(tab) -> float:
    """Of the slider as it is seen."""
    picture = np.frombuffer(tab.locator("#slider").screenshot(), np.uint8)
    return float(cv2.imdecode(picture, cv2.IMREAD_COLOR).mean())


def dark_photograph(path: Path, height: int = 90, width: int = 120) -> Path:
    shapes = cv2.resize(np.random.default_rng(0).integers(5, 50, (4, 6, 3), np.uint8), (width, height))
    write_image(path, shapes)
    return path


def test_a_photograph_is_shown_compared_and_downloaded(tab, tmp_path):
    photograph = dark_photograph(tmp_path / "night.jpg")
    upload(tab, photograph)
    first = wait_for_result(tab)
    result = download(tab, tmp_path)
    assert result.name == "night_enhanced.jpg"
    expected = llie.load(device="cpu")(read_image(photograph)).astype(float)
    assert np.abs(read_image(result) - expected).mean() < 3, "but for JPEG"

    before = brightness(tab)
    box = tab.locator("#slider").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 0.4 * box["width"], y, steps=5)
    tab.mouse.up()
    assert brightness(tab) > before + 5, "more of the result is seen"

    tab.click("#model input")
    tab.get_by_role("option", name="Gamma", exact=True).click()
    tab.get_by_text("Noise removal").wait_for(state="hidden")
    tab.click("#enhance")
    wait_for_result(tab, other_than=first)
    (tmp_path / "gamma").mkdir()
    other = read_image(download(tab, tmp_path / "gamma"))
    assert np.abs(other - llie.load("Gamma", "cpu")(read_image(photograph)).astype(float)).mean() < 3


def test_what_is_refused_says_why(tab, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "fake.png").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    write_image(tmp_path / "heavy.png", np.random.default_rng(0).integers(0, 255, (140, 140, 3), np.uint8))
    dark_photograph(tmp_path / "large.png", 200, 200)
    for name, message in (
        ("notes.txt", "Invalid file type: notes.txt"),
        ("heavy.png", "exceed the maximum allowed size"),
    ):
        upload(tab, tmp_path / name)
        tab.locator(".toast-body").filter(has_text=message).wait_for()
    for name, message in (
        ("fake.png", "fake.png is not an image"),
        ("cut.jpg", "cut.jpg is a damaged or truncated JPEG file"),
        ("large.png", "large.png has 200x200 pixels, more than the limit of 20000"),
    ):
        upload(tab, tmp_path / name)
        tab.locator(".toast-body").filter(has_text=message).wait_for()
        tab.click("#upload button[aria-label*=lear]")


def test_nothing_is_kept_after_the_page_is_closed(tab, server, tmp_path):
    _, folder = server
    upload(tab, dark_photograph(tmp_path / "secret.png"))
    wait_for_result(tab)
    assert {path.name for path in folder.rglob("secret*.png")} == {"secret.png", "secret_enhanced.png"}
    tab.goto("about:blank")
    end = time.monotonic() + PATIENCE
    # gradio leaves an empty file with a random name for each upload until the end of the command.
    while kept := [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]:
        assert time.monotonic() < end, kept
        time.sleep(0.1)
