"""The page: complete in itself, and at work in a browser where there is one."""

import json
import re

import cv2
import numpy as np
import pytest

from llie.benchmark import read_plan
from llie.benchmark.page import page_data, write_page
from llie.benchmark.pictures import Pictures
from llie.benchmark.runs import Row
from llie.pages import assemble
from tests.benchmark.conftest import COST
from tests.browser import opened

FIGURES = {"one": [10.0, 14.0, 12.0], "two": [20.0, 18.0, 19.0], "three </script>": [15.0, 11.0, 16.0]}


@pytest.fixture
def page(tmp_path):
    """A page of three models on three images, one failed row, and a second data set."""
    plan = read_plan(models=list(FIGURES), datasets=["LOLv1", "SICE"])
    rows = [Row("broken", "LOLv1", {}, error="no memory")]
    for dataset in ("LOLv1", "SICE"):
        for place, (name, figures) in enumerate(FIGURES.items()):
            columns = ("psnr/rgb8", "psnr/rgb8-gtmean")
            rows.append(
                Row(
                    name, dataset, {"weights": "w" * 64, "data": "d" * 64, "seed": 0}, network="DRBN",
                    means=dict.fromkeys(columns, sum(figures) / 3), better={"psnr": "higher"},
                    images=[{"name": f"image{n}"} | dict.fromkeys(columns, value) for n, value in enumerate(figures)],
                    cost=COST | {"parameters": 10 ** (place + 3), "macs": 10**9},
                )
            )  # fmt: skip
            for number in range(3):
                for kind in ("input", "reference", name):
                    path = Pictures(tmp_path / "pictures" / dataset).path(number, kind)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), np.full((20, 30, 3), 40 * number + 20, np.uint8))
    return write_page(plan, rows, tmp_path), plan, rows


def test_it_is_one_file(page):
    path, plan, rows = page
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=[\"']?(?!data:)[\w/.]+", text) and "http-equiv" in text
    assert "url(" not in text and "@import" not in text
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    data = json.loads(stored)
    assert [row["model"] for row in data["rows"]] == ["broken", *FIGURES, *FIGURES]
    assert data["rows"][1]["published"][0][0]["value"] == 20.13
    assert len(data["datasets"][0]["pictures"]["one"]) == 3
    assert data == json.loads(json.dumps(page_data(plan, rows, path.parent)))


def test_pictures_stay_within_their_budget(page, monkeypatch):
    path, plan, rows = page
    size = path.stat().st_size
    of_an_image = sum(file.stat().st_size for file in path.parent.glob("pictures/LOLv1/*/00000.jpg")) * 4 / 3
    monkeypatch.setattr("llie.benchmark.page.BUDGET", 2 * 1.5 * of_an_image)  # for two data sets
    shown = page_data(plan, rows, path.parent)["datasets"][0]["pictures"]["one"]
    assert 0 < len(shown) < 3
    assert write_page(plan, rows, path.parent).stat().st_size < size


def test_data_cannot_end_the_script():
    page = assemble("a < b", "<p>", {"name": "</script><b>"}, [])
    assert "</script><b>" not in page and "<title>a &lt; b</title>" in page
    with pytest.raises(ValueError, match="JSON"):
        assemble("", "", {"value": float("nan")}, [])


def names(view):
    return view.locator("#table tbody tr[data-model]").evaluate_all("rows => rows.map(row => row.dataset.model)")


def test_in_a_browser(page):
    with opened(page[0]) as view:
        check_the_page(view)


def check_the_page(view):
    assert names(view) == ["two", "three </script>", "one"]  # the best first
    assert "no memory" in view.locator("#table .failed").inner_text()
    assert view.locator("td.best").first.inner_text() == "19.00"

    view.click("th[data-key=parameters]")
    assert names(view) == ["three </script>", "two", "one"]
    view.click("th[data-key=parameters]")
    assert names(view) == ["one", "two", "three </script>"]
    view.click("th[data-key=chosen]")

    view.fill("#filter", "t e")
    assert names(view) == ["three </script>"]
    view.fill("#filter", "")
    view.click("tr[data-model=two]")
    assert "w" * 64 in view.locator("td.details").inner_text()

    # DRBN's published figure is of 15 images, this one of 3: both are there, and marked.
    published = view.locator("tr[data-model=two] td").all_inner_texts()
    assert "20.13 *" in published and "\u22121.13 *" in published

    assert view.locator("#scatter circle").count() == 3
    assert view.locator("#spread circle").count() == 9

    before = view.locator("#slider .over").evaluate("image => getComputedStyle(image).clipPath")
    box = view.locator("#slider").bounding_box()
    view.click("#slider input", position={"x": 0.2 * box["width"], "y": box["height"] / 2})
    after = view.locator("#slider .over").evaluate("image => getComputedStyle(image).clipPath")
    at = float(view.locator("#slider").evaluate("node => node.style.getPropertyValue('--at')").rstrip("%"))
    assert before != after and abs(at - 20) < 3
    view.select_option("#slider-controls select >> nth=1", "one")
    assert view.locator("#slider .right").inner_text() == "one"
    assert view.locator("#slider img").first.get_attribute("src").startswith("data:image/jpeg")

    view.select_option("#extremes-controls select", "one")
    assert "image0" in view.locator("#worst .card").first.inner_text()
    assert "image1" in view.locator("#best .card").first.inner_text()

    view.select_option("#controls select >> nth=0", "SICE")
    view.select_option("#controls select >> nth=1", "1")
    assert "flatters" in view.locator("#protocol").inner_text()
