"""Fixed rules: against their definitions, and usable everywhere without weights."""

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from skimage.color import rgb2lab

import llie
from llie import cli, train
from llie import test as measuring
from llie.archs import create_network
from llie.archs.classical import CLAHE, LIME, Gamma, HistogramEqualisation
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from tests.runs import make_project

NAMES = ["Gamma", "HistogramEqualisation", "CLAHE", "LIME"]


def photograph(height=45, width=60, light=0.2):
    """Smooth, dark, with edges and a little noise: (3, H, W), whole 8-bit levels."""
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.random((height, width, 3)), (0, 0), 4)
    image = (image - image.min()) / np.ptp(image)
    image[height // 3 :, width // 2 :] *= 0.3
    image = image * light + random.normal(0, 0.005, image.shape)
    return torch.from_numpy(np.rint(255 * image.clip(0, 1)) / 255).float().permute(2, 0, 1)


def lightness(image):
    return rgb2lab(image.permute(1, 2, 0).double().numpy())[..., 0]


def test_gamma_is_a_power():
    x = photograph()[None]
    torch.testing.assert_close(Gamma(0.5)(x), x.sqrt())
    torch.testing.assert_close(Gamma()(x, gamma=2.0), x**2)


def test_clahe_is_that_of_opencv_on_lightness():
    x = photograph()
    expected = cv2.createCLAHE(3.0, (4, 4)).apply(np.rint(lightness(x) * 2.55).astype(np.uint8)) / 2.55
    y = CLAHE(3.0, 4)(x[None])[0]
    inside = ((y > 0.004) & (y < 0.996)).all(0).numpy()  # colours outside of sRGB are cut off
    assert inside.mean() > 0.9
    np.testing.assert_allclose(lightness(y)[inside], expected[inside], atol=0.01)


def test_equalisation_is_that_of_opencv_on_the_value_and_keeps_the_colour():
    x = photograph()
    y = HistogramEqualisation()(x[None])[0]
    expected = cv2.equalizeHist((255 * x.amax(0)).round().byte().numpy())
    np.testing.assert_allclose(255 * y.amax(0).numpy(), expected, atol=1e-3)
    torch.testing.assert_close(y * x.amax(0), x * y.amax(0))


def test_equalised_values_are_spread_evenly():
    y = HistogramEqualisation()(photograph(200, 300, light=0.9)[None])[0]
    quartiles = np.percentile(y.amax(0).numpy(), [25, 50, 75])
    np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.02)


def test_grey_stays_grey():
    x = photograph().mean(0).expand(1, 3, -1, -1)
    for name in NAMES:
        y = create_network(name)(x)
        torch.testing.assert_close(y, y.mean(1, keepdim=True).expand_as(y), atol=2e-3, rtol=0)
        assert y.mean() > 1.5 * x.mean(), f"{name} brightens"


def smoothness_matrix(start, alpha, sigma, eps):
    """The normal equations of the paper, I + sum_d D_d' Diag(w_d) D_d, entry by entry."""
    pixels = np.arange(start.size).reshape(start.shape)
    matrix = sparse.identity(start.size, format="csr")
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    for first, second in ((pixels[:-1], pixels[1:]), (pixels[:, :-1], pixels[:, 1:])):
        rows = np.arange(first.size)
        entries = np.r_[-np.ones(first.size), np.ones(first.size)]
        places = (np.r_[rows, rows], np.r_[first.ravel(), second.ravel()])
        difference = sparse.csr_matrix((entries, places), shape=(first.size, start.size))
        gradient = (difference @ start.ravel()).reshape(first.shape)
        nearby = ndimage.correlate(gradient, window, mode="constant")
        weight = alpha / (np.abs(nearby) + eps) / (np.abs(gradient) + eps)
        matrix = matrix + difference.T @ sparse.diags(weight.ravel()) @ difference
    return matrix


@pytest.mark.parametrize("size", [(45, 60), (64, 64), (1, 9), (7, 1)])
def test_illumination_solves_the_published_equations(size):
    x = photograph(*size).double()
    start = x.amax(0).numpy()
    expected = spsolve(smoothness_matrix(start, 0.15, 2.0, LIME.eps).tocsc(), start.ravel()).reshape(start.shape)
    found = LIME().illumination(x)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    assert start.min() - 1e-4 <= found.min() and found.max() <= start.max() + 1e-4
    y = LIME()(x[None])[0]
    np.testing.assert_allclose(y.numpy(), (x.numpy() / expected.clip(1 / 255) ** 0.8).clip(0, 1), atol=5e-3)


def test_lime_of_an_even_surface_is_a_power():
    """There the map is the largest channel itself."""
    x = torch.tensor([0.1, 0.2, 0.05]).view(1, 3, 1, 1).expand(1, 3, 20, 30)
    torch.testing.assert_close(LIME()(x), x / 0.2**0.8, atol=1e-4, rtol=0)
    torch.testing.assert_close(LIME()(x, gamma=0.5), x / 0.2**0.5, atol=1e-4, rtol=0)
    assert LIME()(torch.zeros(1, 3, 8, 8)).abs().max() == 0


def test_lime_smooths_texture_but_not_edges():
    start = torch.full((96, 96), 0.8, dtype=torch.float64)
    start[:, 48:] = 0.2
    start += 0.02 * torch.rand(start.shape, generator=torch.Generator().manual_seed(0), dtype=start.dtype)
    found = LIME().illumination(start.expand(3, -1, -1))
    texture = slice(0, 40), slice(0, 40)
    assert found[texture].diff(dim=1).abs().mean() < 0.1 * start[texture].diff(dim=1).abs().mean()
    assert (found[:, 47] - found[:, 48]).mean() > 0.8 * 0.6


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("Gamma", {"gamma": 0.0}, "Gamma: gamma must be greater than 0"),
        ("CLAHE", {"clip_limit": -1.0}, "clip_limit must be greater than 0"),
        ("CLAHE", {"tiles": 0}, "tiles must be greater than 0"),
        ("LIME", {"sigma": float("nan")}, "sigma must be greater than 0"),
    ],
)
def test_bad_arguments(network, arguments, message):
    with pytest.raises(UserError, match=message):
        create_network(network, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_used_by_name_without_weights(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    image = (photograph(24, 30).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    enhance = llie.load(name.lower(), "cpu")
    assert type(enhance.network).__name__ == name
    write_image(tmp_path / "dark.png", image)
    words = ["enhance", str(tmp_path / "dark.png"), "-o", str(tmp_path / "out.png"), "--device", "cpu"]
    assert cli.main([*words, "--model", name]) == 0
    assert np.array_equal(read_image(tmp_path / "out.png"), enhance(image))
    assert enhance(image).mean() > image.mean()


def test_its_controls_are_set_on_the_command_line(tmp_path):
    image = np.full((4, 4, 3), 64, np.uint8)
    write_image(tmp_path / "dark.png", image)
    words = ["enhance", str(tmp_path / "dark.png"), "-o", str(tmp_path / "out.png"), "--model", "gamma"]
    assert cli.main([*words, "--device", "cpu", "--set", "gamma=0.5"]) == 0
    assert (read_image(tmp_path / "out.png") == round(255 * (64 / 255) ** 0.5)).all()


def test_it_is_measured_without_a_checkpoint_but_not_trained(tmp_path, capsys):
    words = ["-opt", str(make_project(tmp_path, plugins=[], network_g__type="CLAHE"))]
    assert measuring.main(words) == 0
    assert "val: 3 images" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"run\.yml.*network_g: CLAHE is a fixed rule"):
        train.main(words)
    with pytest.raises(UserError, match="does not fit CLAHE"):
        torch.save({"params": {"a.weight": torch.zeros(1)}}, tmp_path / "net.pth")
        measuring.main([*words, "--force_yml", f"path.pretrain_network_g={tmp_path / 'net.pth'}"])
