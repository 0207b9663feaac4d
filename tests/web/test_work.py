"""What the page does, without a browser."""

import socket
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import llie
from llie import cli
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from llie.web.models import Devices, offered
from llie.web.sessions import Sessions
from llie.web.work import Limits, Taste, enhance_upload


@pytest.fixture(scope="module")
def devices():
    return Devices(offered(), ["cpu"])


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "uploads" / "a.tif"
    write_image(path, np.random.default_rng(0).integers(0, 9000, (40, 60, 3), dtype=np.uint16))
    return path


def test_the_result_has_the_format_and_depth_of_the_upload(devices, photograph, tmp_path):
    done = enhance_upload(photograph, Taste("dawn", 0.5, 0.3, 1.0), devices, Limits(), tmp_path)
    assert done.result.name == "a_enhanced.tif"
    expected = llie.load(device="cpu", strength=0.5, exposure=1.0, denoise=0.3)(read_image(photograph))
    assert np.array_equal(read_image(done.result), expected) and expected.dtype == np.uint16
    assert [cv2.imread(str(path)).shape for path in done[:2]] == [(40, 60, 3)] * 2


def test_pictures_to_look_at_are_small(devices, tmp_path):
    write_image(tmp_path / "a.png", np.full((100, 3200, 3), 20, np.uint8))
    done = enhance_upload(tmp_path / "a.png", Taste("Gamma"), devices, Limits(), tmp_path)
    assert cv2.imread(str(done.after)).shape == (50, 1600, 3)
    assert read_image(done.result).shape == (100, 3200, 3)


@pytest.mark.parametrize(
    ("limits", "message"),
    [(Limits(bytes=100), r"a.tif has \d+ bytes, more than the limit of 100"), (Limits(pixels=100), "60x40 pixels")],
)
def test_limits(devices, photograph, tmp_path, limits, message):
    with pytest.raises(UserError, match=message):
        enhance_upload(photograph, Taste("dawn"), devices, limits, tmp_path)


def test_networks_that_are_offered(monkeypatch, tmp_path):
    torch.save(llie.create_network("HVISMM").state_dict(), tmp_path / "hvismm.pth")
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    models = offered(["mine=run/net.pth", "other.pth"])
    assert list(models.items())[:3] == [("mine", "run/net.pth"), ("other", "other.pth"), ("dawn", "dawn")]
    assert models["hvismm"] == "hvismm" and {"Gamma", "CLAHE"} <= set(models)
    assert "HVICIDNet" not in models, "it has no weights here"
    assert Devices(models, ["cpu"]).controls("hvismm") == ["alpha_s", "alpha_i", "alpha_rgb"]


def test_a_device_is_free_again_after_an_error():
    devices = Devices({"wrong": "nowhere.pth", "Gamma": "Gamma"}, ["cpu"])
    with pytest.raises(UserError, match="nowhere"), devices.use("wrong"):
        pass
    with devices.use("Gamma") as first:
        pass
    with devices.use("Gamma") as again:
        assert again is first, "loaded once"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_page_live_as_long_as_the_page(tmp_path):
    sessions = Sessions(tmp_path)
    for name in ("shared", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").touch()
    with sessions.results("one", tmp_path / "shared/shared.jpg") as folder:
        (folder / "first.jpg").touch()
    with sessions.results("one", tmp_path / "own/own.jpg") as folder:
        (folder / "second.jpg").touch()
    with sessions.results("../two", tmp_path / "shared/shared.jpg") as folder:
        assert folder.parent == tmp_path
        (folder / "third.jpg").touch()
        sessions.close("../two")
        assert "third.jpg" in files(tmp_path), "the work still goes on"
    assert files(tmp_path) == {"shared.jpg", "own.jpg", "second.jpg"}, "results are replaced; another page has the file"
    sessions.close("one")
    assert list(tmp_path.iterdir()) == []
    sessions.close("never opened")


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["web"]) == 2
    assert capsys.readouterr().err == "error: llie web needs gradio: pip install 'llie[web]'\n"


def test_an_address_that_is_taken(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", sys)  # any module: the address is checked first
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["web", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
