"""An exported file takes the place of a checkpoint: the same options, images and messages."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

import llie
from llie import cli
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from llie.export.runtime import OnnxNetwork, pick_provider
from llie.server.models import load_models
from llie.web.models import Devices, offered
from tests.export.files import brighten

OTHERS = ("AzureExecutionProvider", "CUDAExecutionProvider")  # which the tests' onnxruntime cannot start


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60, (21, 34, 3), np.uint8)


def test_load_runs_an_exported_file_like_the_checkpoint(exported, picture):
    ours, theirs = llie.load(exported.file, "cpu"), llie.load(exported.checkpoint, "cpu")
    assert np.abs(ours(picture).astype(int) - theirs(picture)).max() <= 1
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    assert ours(tensor).shape == tensor.shape and ours(tensor).dtype == torch.uint8
    for_taste = {"strength": 0.5, "exposure": 1.0}
    ours, theirs = (llie.load(path, "cpu", **for_taste) for path in (exported.file, exported.checkpoint))
    assert np.abs(ours(picture).astype(int) - theirs(picture)).max() <= 1
    assert np.array_equal(llie.load(exported.file, "cpu", strength=0)(picture), picture)


def test_the_command_takes_it_as_model(exported, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_image("a.png", picture)
    words = ["enhance", "a.png", "--model", str(exported.file)]
    assert cli.main([*words, "-o", "b.png", "--provider", "cpu"]) == 0
    assert np.array_equal(read_image("b.png"), llie.load(exported.file)(picture))
    assert cli.main([*words, "-o", "c.png", "--provider", "cudda"]) == 2
    assert "no provider 'cudda'" in capsys.readouterr().err
    assert cli.main(["enhance", "a.png", "-o", "c.png", "--model", str(exported.checkpoint), "--provider", "cpu"]) == 2
    assert "only .onnx files have a provider" in capsys.readouterr().err


def test_video_page_and_server_take_it_too(tmp_path, picture):
    """Pictures have the same gain in all of them: that of the file."""
    pytest.importorskip("av", reason="needs PyAV: pip install 'llie[video]'")
    from tests.inference.clips import frames_of, make_clip

    path = brighten(tmp_path / "brighten.onnx")
    clip = make_clip(tmp_path / "clip.mp4", sound=None)
    words = ["enhance", str(clip), "--model", str(path), "-o", str(tmp_path / "out.mp4")]
    assert cli.main(words) == 0
    before, after = (
        np.mean([frame.to_ndarray(format="rgb24").mean() for frame in frames_of(file)])
        for file in (clip, tmp_path / "out.mp4")
    )
    assert after / before == pytest.approx(2, rel=0.03)
    with Devices(offered([f"mine={path}"]), ["cpu"]).use("mine") as enhance:
        assert np.array_equal(enhance(picture), picture * 2)
    (served,) = load_models([f"mine={path}"], ["cpu"])
    assert np.array_equal(served["mine"](picture), picture * 2)


def test_controls_by_name(tmp_path, picture):
    path = brighten(tmp_path / "brighten.onnx")
    assert np.array_equal(llie.load(path)(picture), picture * 2)
    assert np.array_equal(llie.load(path, gain=3.0)(picture), picture * 3)
    with pytest.raises(UserError, match=r"no control 'gian'\. Did you mean 'gain'"):
        llie.load(path, gian=3.0)


def test_providers():
    installed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert pick_provider("cuda", installed) == pick_provider("CUDAExecutionProvider", installed) == installed[0]
    assert pick_provider("DirectML", ["DmlExecutionProvider"]) == "DmlExecutionProvider"
    with pytest.raises(UserError, match=r"no provider 'cda'.* Did you mean 'cuda'\? It has: cuda, cpu"):
        pick_provider("cda", installed)
    with pytest.raises(UserError, match=r"no provider 'coreml'.*onnxruntime-gpu"):
        pick_provider("coreml", installed)


def test_a_provider_that_cannot_start(tmp_path, monkeypatch, capsys):
    """As cuda on a machine whose driver is missing: this onnxruntime lists it, and falls back to another."""
    path = brighten(tmp_path / "net.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*OTHERS, "CPUExecutionProvider"])
    picture = tmp_path / "a.png"
    write_image(picture, np.full((4, 5, 3), 20, np.uint8))
    assert cli.main(["enhance", str(picture), "--model", str(path), "--provider", "cuda"]) == 2
    said, errors = capsys.readouterr()
    assert said == "" and errors.startswith("error: onnxruntime could not start cuda here") and errors.count("\n") == 1
    assert cli.main(["enhance", str(picture), "--model", str(path), "--provider", "azure"]) == 2
    assert "no provider 'azure' in this onnxruntime. It has: cuda, cpu" in capsys.readouterr().err, (
        "nothing is sent away"
    )
    assert OnnxNetwork(path).provider == "CPUExecutionProvider"


def test_files_that_are_no_such_network(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        llie.load(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match=r"text\.onnx \(11 bytes\) is damaged, or not an ONNX file"):
        llie.load(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="a network here maps one image"):
        llie.load(brighten(tmp_path / "last.onnx", image=(None, None, None, 3), result=(None, None, None, 3)))
    with pytest.raises(UserError, match=r"takes tensor\(double\)"):
        OnnxNetwork(brighten(tmp_path / "double.onnx", kind=TensorProto.DOUBLE))


def test_an_image_that_the_file_does_not_take(tmp_path, picture):
    enhance = llie.load(brighten(tmp_path / "fixed.onnx", image=(1, 3, 8, 8), result=(1, 3, 8, 8)))
    assert enhance(picture[:8, :8]).shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"fixed\.onnx: onnxruntime: .*"):
        enhance(picture)
