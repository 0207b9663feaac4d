"""`fast=True`: what is decided, what is said, and what is computed. No test depends on the clock: times are made up."""

import numpy as np
import pytest
import torch
from torch import nn

import llie
from llie import cli
from llie.archs import create_network
from llie.errors import UserError
from llie.inference import Enhancer, fast
from llie.inference.fast import Fast
from llie.ops import linear
from llie.ops.integers import wanted
from llie.ops.winograd import Conv3x3
from tests.strips.test_strips import TINY

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Make up which forms the processor has besides float32, and how many times as fast they are."""

    def pretend(**ratios: float):
        ratios = ratios or {"bfloat16": 2.0}
        monkeypatch.setattr(fast, "has_bfloat16", lambda device: "bfloat16" in ratios)
        monkeypatch.setattr(fast, "integers_are_fast", lambda: "integers" in ratios)
        times = {fast.FLOAT32: 1.0, fast.BFLOAT16: ratios.get("bfloat16"), fast.INTEGERS: ratios.get("integers")}
        monkeypatch.setattr(Fast, "_seconds", lambda self, run, x, form: 1.0 / times[form])

    return pretend


class Precision(nn.Module):
    """A product that shows its precision."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data = gain * torch.eye(3)[:, :, None, None]
        self.seen: list = []

    def forward(self, x):
        y = self.conv(x)
        self.seen.append((y.dtype, tuple(y.shape)))
        return y


def decided(network, x):
    lines: list[str] = []
    choice = Fast(CPU, lines.append)
    with torch.inference_mode():
        choice.choose(network, x)
        choice.choose(network, x)
    assert len(lines) == 1
    return choice, lines[0]


def test_bfloat16_where_it_pays(machine):
    machine(bfloat16=1.73)
    network = Precision()
    choice, line = decided(network, torch.rand(2, 3, 512, 300))
    assert line.startswith("fast: bfloat16, 1.7 times as fast as float32 and ") and line.endswith("small first picture")
    assert network.seen[:2] == [(torch.float32, (1, 3, 256, 150)), (torch.bfloat16, (1, 3, 256, 150))]
    with choice.precision():
        assert network(torch.rand(1, 3, 2, 2)).dtype == torch.bfloat16
    assert network(torch.rand(1, 3, 2, 2)).dtype == torch.float32


def test_the_fastest_form_is_taken(machine):
    machine(bfloat16=1.3, integers=1.6)
    choice, line = decided(Precision(), torch.rand(1, 3, 8, 8))
    assert line.startswith("fast: 16-bit integers, 1.6 times as fast as float32 and ")
    with choice.precision():
        assert wanted() and not torch.is_autocast_enabled("cpu")
    machine(bfloat16=1.7, integers=1.6)
    choice, line = decided(Precision(), torch.rand(1, 3, 8, 8))
    assert line.startswith("fast: bfloat16, 1.7 times")
    with choice.precision():
        assert wanted() and torch.is_autocast_enabled("cpu")
    assert not wanted()


@pytest.mark.parametrize(
    ("ratios", "network", "reason"),
    [
        ({"none": 1.0}, Precision(), "neither 16-bit integers nor bfloat16 are fast on this machine"),
        ({"bfloat16": 0.9}, Precision(), "with bfloat16 it is only 0.9 times as fast"),
        ({"integers": 1.04, "bfloat16": 0.9}, Precision(), "with 16-bit integers it is only 1.0 times as fast"),
        (
            {"bfloat16": 2.0},
            lambda x: Precision(3000.0)(x) - 2999 * x,
            " dB against it, less than 40 dB",
        ),
    ],
)
def test_float32_otherwise_with_the_reason(machine, ratios, network, reason):
    machine(**ratios)
    choice, line = decided(network, torch.rand(1, 3, 20, 20))
    assert line.startswith("fast: float32, because ") and reason in line
    with choice.precision():
        assert Precision()(torch.rand(1, 3, 2, 2)).dtype == torch.float32


def test_a_network_that_cannot(machine):
    machine()

    def network(x):
        y = torch.nn.functional.conv2d(x, torch.eye(3)[:, :, None, None])
        if y.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return y

    assert decided(network, torch.rand(1, 3, 8, 8))[1].endswith("the network cannot compute in bfloat16")


@pytest.mark.parametrize("form", ["bfloat16", "integers"])
@pytest.mark.parametrize("name", TINY)
def test_every_network_computes_in_every_form(machine, capsys, name, form):
    machine(**{form: 2.0})
    torch.manual_seed(0)
    network = create_network(name.split()[0], **TINY[name])
    image = (np.random.default_rng(0).random((40, 56, 3)) * 100).astype(np.uint8)
    exact = Enhancer(network, "cpu")(image)
    result = Enhancer(network, "cpu", fast=True)(image)
    assert f"{form}, 2.0 times" in capsys.readouterr().err
    assert result.dtype == np.uint8 and result.shape == image.shape
    assert np.abs(result.astype(int) - exact).max() <= 8


class Convolutions(nn.Sequential):
    """Wide enough for Winograd's form in integers."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 40, 1), Conv3x3(40, 40), nn.ReLU(), nn.Conv2d(40, 3, 1))


@pytest.mark.parametrize("form", ["bfloat16", "integers"])
def test_strips_of_rows_take_integers(machine, capsys, form):
    if not linear.integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    torch.manual_seed(0)
    network, image = Convolutions().eval(), np.random.default_rng(0).random((120, 90, 3)).astype(np.float32)
    exact = Enhancer(network, "cpu", memory="2MB")(image)
    machine(**{form: 2.0})
    fast = Enhancer(network, "cpu", memory="2MB", fast=True)(image)
    assert "Convolutions works in strips of rows" in capsys.readouterr().err
    assert 1e-7 < np.abs(fast - exact).max() < 1e-3


def test_the_network_that_ships(machine, capsys):
    machine()
    image = np.random.default_rng(0).random((70, 50, 3)).astype(np.float32)
    enhance = llie.load(device="cpu", fast=True)
    result = enhance(image)
    assert result.dtype == np.float32
    assert 0 < np.abs(result - llie.load(device="cpu")(image)).max() < 0.05
    enhance.adjusted(strength=0.5)(image)
    assert capsys.readouterr().err.count("fast:") == 1


def test_exported_files_have_their_own_precision(tmp_path):
    path = tmp_path / "net.onnx"
    path.touch()
    with pytest.raises(UserError, match="precision that it was exported with; leave fast out"):
        llie.load(path, fast=True)


def test_the_command(machine, tmp_path, capsys):
    from llie.data.readers import write_image

    machine(none=1.0)
    write_image(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8))
    assert cli.main(["enhance", str(tmp_path / "a.png"), "--fast", "--device", "cpu"]) == 0
    assert "fast: float32, because neither 16-bit integers" in capsys.readouterr().err
    assert (tmp_path / "a_enhanced.png").exists()
