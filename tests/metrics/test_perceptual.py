"""LPIPS, with random backbone weights in place of the published ones: the code path is the same."""

import numpy as np
import pytest
import torch
import torchvision

from llie.errors import UserError
from llie.metrics import MetricUnavailable, lpips


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file like torchvision's, without its classifier, which is large and not used."""
    torch.manual_seed(0)
    state = torchvision.models.alexnet(weights=None).features.state_dict(prefix="features.")
    path = tmp_path_factory.mktemp("weights") / "alexnet-owt-7be5be79.pth"
    torch.save(state, path)
    return path


def test_equals_the_package(alexnet):
    import lpips as package

    network = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    backbone = torchvision.models.alexnet(weights=None).features
    backbone.load_state_dict(
        {k.removeprefix("features."): v for k, v in torch.load(alexnet, weights_only=True).items()}
    )
    for own, given in zip(network.net.parameters(), backbone.parameters(), strict=True):
        own.data.copy_(given)
    pred, gt = torch.rand(2, 3, 64, 80), torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        expected = network(pred, gt, normalize=True).mean()
        rounded = network((pred * 255).round() / 255, (gt * 255).round() / 255, normalize=True).mean()
    assert lpips(pred, gt, "rgb-float", weights=alexnet) == pytest.approx(float(expected), rel=1e-4)
    assert lpips(pred, gt, weights=alexnet.parent) == pytest.approx(float(rounded), rel=1e-4)


def test_equal_images_are_at_distance_zero_and_noise_is_farther(alexnet):
    gt = np.random.default_rng(0).random((64, 64, 3))
    noise = np.random.default_rng(1).normal(size=gt.shape)
    assert lpips(gt, gt, weights=alexnet) == 0
    distances = [lpips((gt + noise * level).clip(0, 1), gt, weights=alexnet) for level in (0.02, 0.1, 0.5)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_missing_weights_say_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    image = torch.rand(3, 64, 64)
    with pytest.raises(MetricUnavailable) as caught:
        lpips(image, image, net="vgg")
    for word in ("vgg16-397923af.pth", "397923af", str(tmp_path), "LLIE_WEIGHTS"):
        assert word in str(caught.value)


def test_unusable_requests(alexnet):
    image = torch.rand(3, 64, 64)
    with pytest.raises(UserError, match="alex"):
        lpips(image, image, net="alexnet")
    with pytest.raises(UserError, match="RGB"):
        lpips(image, image, "y8", weights=alexnet)
