"""Images in, the same kind of images out: kinds, types, sizes, controls, and where weights come from."""

import numpy as np
import pytest
import torch
from torch import nn

import llie
from llie.errors import UserError
from llie.inference import Enhancer, load
from llie.inference.catalogue import table
from llie.ops.srgb import linear_to_srgb, srgb_to_linear
from tests.golden.compare import assert_near

SMALL = {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}


class Brighten(nn.Module):
    """Twice the light."""

    def forward(self, x, gain: float = 2.0):
        return x * gain


@pytest.fixture
def brighten() -> Enhancer:
    return Enhancer(Brighten(), device="cpu")


def picture(dtype, height=5, width=7) -> np.ndarray:
    values = np.random.default_rng(0).random((height, width, 3))
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (values * white).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_keep_their_type_and_integers_are_rounded(brighten, dtype):
    image = picture(dtype)
    output = brighten(image)
    assert output.dtype == dtype and output.shape == image.shape
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    assert np.allclose(output, np.minimum(image.astype(np.float64) * 2, white), atol=1e-3)
    assert np.array_equal(Enhancer(nn.Identity(), "cpu")(image), image.astype(np.float32).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7)])
def test_tensors_keep_their_type_and_shape(brighten, dtype, shape):
    white = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    image = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * white).to(dtype)
    output = brighten(image)
    assert output.dtype == dtype and output.shape == image.shape
    assert torch.equal(output.double(), (image.double() * 2).clamp(max=white).to(dtype).double())


def test_flipped_and_cropped_arrays(brighten):
    image = picture(np.uint8, 9, 9)
    assert np.array_equal(brighten(image[::-1, ::-1]), brighten(image)[::-1, ::-1])
    assert np.array_equal(brighten(image[1:8:2, ::3]), brighten(image)[1:8:2, ::3])


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (8, 8), (13, 50)])
def test_any_size_through_a_real_network(size):
    network = llie.create_network("HVISMM", **SMALL)
    image = picture(np.uint8, *size)
    assert Enhancer(network, "cpu")(image).shape == image.shape


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), 200.0, np.float32), "divide it by 255"),
        (np.full((4, 4, 3), np.nan, np.float32), "nan"),
        (torch.zeros(4, 4, 3), r"\(4, 4, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        ("photo.png", "str"),
    ],
)
def test_files_that_are_not_images_are_refused(brighten, image, message):
    with pytest.raises(UserError, match=message):
        brighten(image)


def test_controls_reach_the_network_and_are_checked():
    assert Enhancer(Brighten(), "cpu", {"gain": 1.0})(np.full((2, 2, 3), 100, np.uint8)).max() == 100
    with pytest.raises(UserError, match=r"no control 'gian'\. Did you mean 'gain'"):
        Enhancer(Brighten(), "cpu", {"gian": 1.0})


def test_values_that_are_not_finite_are_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            return x / 0

    with pytest.raises(UserError, match="not finite"):
        Enhancer(Broken(), "cpu")(picture(np.uint8))


def test_device_is_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="no GPU cuda"):
        Enhancer(Brighten(), "cuda")
    with pytest.raises(UserError, match="no device 'gpu'"):
        Enhancer(Brighten(), "gpu")


def test_load_recognises_the_network_of_a_bare_checkpoint(tmp_path):
    torch.manual_seed(0)
    network = llie.create_network("HVISMM", **SMALL)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    image = picture(np.float32, 16, 24)
    expected = Enhancer(network, "cpu")(image)
    assert np.array_equal(load(tmp_path / "net.pth", "cpu")(image), expected)
    assert not np.array_equal(load(tmp_path / "net.pth", "cpu", alpha_rgb=0.5)(image), expected)


def test_load_uses_the_arguments_that_the_checkpoint_names(tmp_path):
    """Some arguments cannot be read from the weights, for instance the range of HVI-SMM's factors."""
    network = llie.create_network("HVISMM", **SMALL, gamma=0.1)
    options = {"network_g": {"type": "HVISMM", **SMALL, "gamma": 0.1}}
    torch.save({"params": network.state_dict(), "options": options}, tmp_path / "net.pth")
    image = picture(np.float32, 16, 24)
    assert np.array_equal(load(tmp_path / "net.pth", "cpu")(image), Enhancer(network, "cpu")(image))


def test_load_by_name_looks_in_the_weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"hvi-smm\.safetensors.*LLIE_WEIGHTS.*hf:"):
        load("hvi-smm", "cpu")
    torch.save(llie.create_network("HVISMM").state_dict(), tmp_path / "hvi-smm.pth")
    assert type(load("hvi-smm", "cpu").network).__name__ == "HVISMM"


def test_load_of_an_unknown_network_asks_for_its_name(tmp_path):
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="--network"):
        load(tmp_path / "net.pth", "cpu")
    with pytest.raises(UserError, match="does not fit HVISMM"):
        load(tmp_path / "net.pth", "cpu", network="HVISMM")
    with pytest.raises(UserError, match=r"Did you mean .*'HVISMM'"):
        load(tmp_path / "net.pth", "cpu", network="HVISM")


@pytest.mark.parametrize("name", ["hvi_smm_tiny", "hvi_smm_full", "cidnet_tiny", "cidnet_full"])
def test_official_checkpoints_load_and_give_the_official_result(golden, tmp_path, name):
    vector = golden(name)
    torch.save(vector.state_dict(), tmp_path / "official.pth")
    enhance = load(tmp_path / "official.pth", "cpu")
    assert_near(enhance(vector["input"]), vector["output"].clamp(0, 1))


def test_table_names_every_network_with_its_size():
    text = table()
    assert "HVISMM  (1,999,617 parameters)" in text
    assert "HVICIDNet  (1,975,569 parameters)" in text
    assert "controls  alpha_s, alpha_i, alpha_rgb" in text


def test_strength_blends_in_linear_light():
    image = np.full((4, 4, 3), 0.25, np.float32)
    assert np.array_equal(Enhancer(Brighten(), "cpu", strength=0)(image), image)
    half = Enhancer(Brighten(), "cpu", strength=0.5)(image)
    light = (srgb_to_linear(torch.tensor(0.25)) + srgb_to_linear(torch.tensor(0.5))) / 2
    assert half == pytest.approx(linear_to_srgb(light).item(), abs=1e-6)
    grey = picture(np.uint8, 9, 9)
    assert np.array_equal(Enhancer(Brighten(), "cpu", strength=0)(grey), grey)


def test_exposure_is_in_stops_for_dark_values_and_clips_nothing():
    dark, white = np.full((2, 2, 3), 0.02, np.float32), np.ones((2, 2, 3), np.float32)
    brighter = Enhancer(nn.Identity(), "cpu", exposure=1.0)
    light = 2 * srgb_to_linear(torch.tensor(0.02)).item()
    assert srgb_to_linear(torch.from_numpy(brighter(dark))).mean().item() == pytest.approx(light, rel=0.01)
    ramp = brighter(np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 10, 3))
    assert (np.diff(ramp.ravel()) > 0).all() and brighter(white) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"strength": -0.1}, {"exposure": 99}, {"memory": "much"}])
def test_adjustments_are_validated(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Enhancer(nn.Identity(), "cpu", **wrong)


def test_a_decision_can_be_made_beforehand_and_for_another_image():
    torch.manual_seed(0)
    network = llie.create_network("Dawn", tone_width=8, luma=4, detail_widths=(4, 4, 4))
    torch.nn.init.normal_(network.tone.gains[-1].weight, std=0.3)  # an untrained one decides nothing
    enhance = Enhancer(network, "cpu")
    dark, light = (torch.from_numpy(picture(np.float32, 16, 24)).permute(2, 0, 1) * level for level in (0.2, 1))
    assert torch.equal(enhance(dark, decision=enhance.decide(dark)), enhance(dark))
    assert not torch.equal(enhance(dark, decision=enhance.decide(light)), enhance(dark))
    assert enhance.decides and not Enhancer(nn.Identity(), "cpu").decides


def test_other_settings_share_the_network(brighten):
    image = picture(np.float32) / 4
    other = brighten.adjusted(strength=0.0, exposure=1.0, gain=3.0)
    assert other.network is brighten.network
    assert np.allclose(other(image), Enhancer(nn.Identity(), "cpu", exposure=1.0)(image), atol=1e-6)
    assert np.allclose(other.adjusted(gain=3.0)(image), image * 3, atol=1e-6)
    assert np.allclose(brighten(image), image * 2, atol=1e-6), "the first is as it was"
    with pytest.raises(UserError, match="no control 'gian'"):
        brighten.adjusted(gian=1.0)
    with pytest.raises(UserError, match="strength: 2"):
        brighten.adjusted(strength=2.0)
