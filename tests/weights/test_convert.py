"""Any checkpoint becomes a small file of plain weights that loads as before."""

import pytest
import torch
from safetensors import safe_open

import llie
from llie.cli import main
from llie.errors import UserError
from llie.weights.convert import as_safetensors

SMALL = {"tone_width": 16, "luma": 4, "detail_widths": (8, 8, 16)}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    averaged, current = llie.create_network("Dawn", **SMALL), llie.create_network("Dawn", **SMALL)
    path = tmp_path / "net_g_9.pth"
    torch.save({"params": current.state_dict(), "params_ema": averaged.state_dict()}, path)
    return path, averaged, current


def test_weights_are_those_of_the_checkpoint(checkpoint, tmp_path, capsys):
    path, averaged, current = checkpoint
    assert main(["convert", str(path), "-o", str(tmp_path / "a.safetensors")]) == 0
    assert "a.safetensors: 0." in capsys.readouterr().out
    assert main(["convert", str(path), "-o", str(tmp_path / "b.safetensors"), "--params"]) == 0
    for name, network in (("a", averaged), ("b", current)):
        loaded = llie.load_weights(llie.create_network("Dawn", **SMALL), tmp_path / f"{name}.safetensors")
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
        )
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["network"] == "Dawn"


def test_half_precision_is_half_the_size_and_nearly_the_same(checkpoint, tmp_path):
    path, averaged, _ = checkpoint
    whole, half = (as_safetensors(str(path), half) for half in (False, True))
    assert len(half) < 0.7 * len(whole)
    (tmp_path / "half.safetensors").write_bytes(half)
    loaded = llie.load_weights(llie.create_network("Dawn", **SMALL), tmp_path / "half.safetensors")
    for a, b in zip(loaded.state_dict().values(), averaged.state_dict().values(), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_mistakes(checkpoint, tmp_path, capsys):
    path, averaged, _ = checkpoint
    assert main(["convert", str(path), "-o", str(tmp_path / "weights.bin")]) == 2
    assert "weights.bin must end in .safetensors" in capsys.readouterr().err
    large = {key: value * 1e9 for key, value in averaged.state_dict().items()}
    torch.save(large, path)
    with pytest.raises(UserError, match="beyond the range of float16; convert without --half"):
        as_safetensors(str(path), half=True)
