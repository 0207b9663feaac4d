"""LPIPS and DISTS, mostly with random backbones in place of the published ones: the code path is the same."""

import sys

import numpy as np
import pytest
import torch
import torchvision
from skimage import data

from llie.errors import UserError
from llie.losses.backbones import FILES
from llie.metrics import MetricUnavailable, dists, lpips
from llie.weights import find_weights
from tests import needs


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


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    """A file like torchvision's with random features, whose activations keep their size from layer to layer."""
    needs.package("torchmetrics", "metrics")
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    path = tmp_path_factory.mktemp("weights") / FILES["vgg16"]
    torch.save(features.state_dict(prefix="features."), path)
    return path


@pytest.fixture(params=["random", "published"])
def vgg16_of_either_kind(request):
    if request.param == "random":
        return request.getfixturevalue("vgg16")
    return find_weights(FILES["vgg16"]) or pytest.skip(
        f"needs {FILES['vgg16']} in $LLIE_WEIGHTS: https://download.pytorch.org/models/{FILES['vgg16']}"
    )


def test_dists_is_that_of_piq(vgg16_of_either_kind, monkeypatch):
    """Up to 256 pixels at the shorter side; piq shrinks larger images."""
    piq = needs.package("piq", "metrics")
    package = needs.package("torchmetrics.functional.image.dists", "metrics")
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    state = torch.load(vgg16_of_either_kind, weights_only=True, mmap=True)
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")})
    factors = torch.load(package._PATH_WEIGHT_DISTS, weights_only=True)
    total = sum(value.sum() for value in factors.values())
    monkeypatch.setattr(
        "torch.hub.load_state_dict_from_url", lambda *_, **__: {k: v / total for k, v in factors.items()}
    )
    monkeypatch.setattr("piq.perceptual.vgg16", lambda **_: torch.nn.ModuleDict({"features": features}))
    gt = data.chelsea()[:200, 50:283]
    pred = np.clip(0.8 * gt + np.random.default_rng(0).normal(0, 15, gt.shape), 0, 255).astype(np.uint8)
    images = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in (pred, gt)]
    with torch.no_grad():
        expected = float(piq.DISTS()(*images))
    assert expected > 0.02
    assert dists(pred, gt, weights=vgg16_of_either_kind) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("metric", "backbone"), [(lpips, "alexnet"), (dists, "vgg16")])
def test_equal_images_are_at_distance_zero_and_noise_is_farther(metric, backbone, request):
    weights = request.getfixturevalue(backbone)
    gt = np.random.default_rng(0).random((64, 64, 3))
    noise = np.random.default_rng(1).normal(size=gt.shape)
    assert metric(gt, gt, weights=weights) == pytest.approx(0, abs=1e-5)
    distances = [metric((gt + noise * level).clip(0, 1), gt, weights=weights) for level in (0.02, 0.1, 0.5)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("metric", "arguments"), [(lpips, {"net": "vgg"}), (dists, {})])
def test_missing_weights_say_what_to_put_where(metric, arguments, monkeypatch, tmp_path):
    needs.package("torchmetrics", "metrics")
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("LLIE_OFFLINE", "1")
    image = torch.rand(3, 64, 64)
    with pytest.raises(MetricUnavailable) as caught:
        metric(image, image, **arguments)
    for word in ("vgg16-397923af.pth", "397923af", str(tmp_path), "LLIE_WEIGHTS", "LLIE_OFFLINE is set"):
        assert word in str(caught.value)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.dists", None)
    with pytest.raises(MetricUnavailable, match=r"pip install 'llie\[metrics\]'"):
        dists(torch.rand(3, 64, 64), torch.rand(3, 64, 64), weights="none")


def test_unusable_requests(alexnet, vgg16):
    image = torch.rand(3, 64, 64)
    with pytest.raises(UserError, match="Did you mean 'alex'") as wrong:
        lpips(image, image, net="alexnet")
    with pytest.raises(UserError) as damaged:
        lpips(image, image, weights=vgg16)
    for caught in (wrong, damaged):  # a mistake in the option file, not a lack of this machine that costs one column
        assert not isinstance(caught.value, MetricUnavailable)
    for metric, weights in ((lpips, alexnet), (dists, vgg16)):
        with pytest.raises(UserError, match=f"{metric.__name__} measures colour .* RGB"):
            metric(image, image, "y8", weights=weights)
    with pytest.raises(UserError, match="not the weights of vgg16"):
        dists(image, image, weights=alexnet)
