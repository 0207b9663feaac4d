"""Losses on frozen backbones: where their weights come from, and that nothing trains or stores them."""

import pytest
import torch
from torch import nn

from llie.errors import UserError
from llie.losses import create_loss
from llie.losses.vgg import layer_names

TAPS = {"relu1_2": 1.0, "conv2_1": 0.5}


@pytest.fixture
def small_vgg(tmp_path):
    """A VGG19 file with the weights up to conv2_1 only."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (inputs, outputs) in {"conv1_1": (3, 64), "conv1_2": (64, 64), "conv2_1": (64, 128)}.items():
        index = layer_names("vgg19").index(layer)
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / inputs**0.5 / 3
        state[f"features.{index}.bias"] = torch.zeros(outputs)
    path = tmp_path / "vgg19-dcbb9e9d.pth"
    torch.save(state, path)
    return path


def images(seed, count=2):
    return torch.rand(count, 3, 24, 20, generator=torch.Generator().manual_seed(seed))


def spec(path, **options):
    return {"type": "PerceptualLoss", "layer_weights": TAPS, "weights": str(path), **options}


class TestWeights:
    def test_a_missing_package_is_one_clear_error(self, tmp_path, monkeypatch):
        monkeypatch.delenv("LLIE_WEIGHTS", raising=False)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        for each in ({"type": "PerceptualLoss", "layer_weights": TAPS}, {"type": "HVILoss"}):
            with pytest.raises(UserError, match=r"vgg19-dcbb9e9d\.pth.*dcbb9e9d.*checkpoints.*LLIE_WEIGHTS.*weights"):
                create_loss(each)
        with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth"):
            create_loss({"type": "LPIPSLoss"})

    def test_found_in_the_folder_of_weights(self, small_vgg, monkeypatch):
        monkeypatch.setenv("LLIE_WEIGHTS", str(small_vgg.parent))
        found = create_loss({"type": "PerceptualLoss", "layer_weights": TAPS})
        assert found(images(0), images(1)) == create_loss(spec(small_vgg))(images(0), images(1))

    def test_weights_of_another_network_are_refused(self, small_vgg):
        with pytest.raises(UserError, match=r"vgg19.*missing"):
            create_loss(spec(small_vgg, layer_weights={"conv5_1": 1.0}))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layer_weights": {"conv9_1": 1.0}}, "conv9_1"),
            ({"layer_weights": {}}, "no layer is given. Layers are"),
            ({"vgg_type": "vgg18"}, "vgg19"),
            ({"criterion": "fro"}, "l1, l2, mse"),
            ({"precision": "float17"}, "bfloat16"),
        ],
    )
    def test_wrong_options(self, small_vgg, options, message):
        with pytest.raises(UserError, match=message):
            create_loss(spec(small_vgg, **options))

    @pytest.mark.parametrize("kind", ["PerceptualLoss", "HVILoss", "LPIPSLoss"])
    def test_nothing_to_train_and_nothing_to_store(self, kind, small_vgg, alexnet_file, vgg_file):
        shapes = {f"{n}.{p}": s for n, p, s in full_vgg_shapes()} if kind == "HVILoss" else {}
        path = {"PerceptualLoss": small_vgg, "HVILoss": vgg_file(shapes, 0), "LPIPSLoss": alexnet_file}[kind]
        layers = {"layer_weights": TAPS} if kind == "PerceptualLoss" else {}
        loss = create_loss({"type": kind, "weights": str(path), **layers})
        assert not list(loss.parameters())
        assert not loss.state_dict()
        assert next(loss.to(torch.float64).buffers()).dtype == torch.float64


def full_vgg_shapes():
    channels, width = 3, 64
    for layer in layer_names("vgg19"):
        if layer.startswith("conv"):
            yield layer, "weight", (width, channels, 3, 3)
            yield layer, "bias", (width,)
            channels = width
        elif layer.startswith("pool"):
            width = min(2 * width, 512)


def plain_features(images, state):
    """relu1_2 and conv2_1 of normalised images."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    found = []
    for index in (0, 2, 5):
        x = nn.functional.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        if index < 5:
            x = x.relu()
        if index == 2:
            found.append(x)
            x = nn.functional.max_pool2d(x, 2)
    return [*found, x]


class TestPerceptual:
    @pytest.mark.parametrize("criterion", ["l1", "l2"])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_definition(self, small_vgg, criterion, reduction):
        state = torch.load(small_vgg, weights_only=True)
        pred, target = images(0).requires_grad_(), images(1)
        value = create_loss(spec(small_vgg, criterion=criterion, reduction=reduction))(pred, target)
        distance = {"l1": nn.functional.l1_loss, "l2": nn.functional.mse_loss}[criterion]
        pairs = zip(TAPS.values(), plain_features(pred, state), plain_features(target, state), strict=True)
        expected = sum(weight * distance(a, b, reduction=reduction) for weight, a, b in pairs)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
        ours, theirs = (torch.autograd.grad(each, pred)[0] for each in (value, expected))
        # Rounding may change single signs of |a - b|; each contributes as much as all others.
        assert (ours - theirs).norm() < {"l1": 1e-2, "l2": 1e-4}[criterion] * theirs.norm()

    def test_style_compares_gram_matrices(self, small_vgg):
        state = torch.load(small_vgg, weights_only=True)
        options = {"perceptual_weight": 0.0, "style_weight": 2.0, "layer_weights": {"relu1_2": 1.0}}
        value = create_loss(spec(small_vgg, **options))(images(0), images(1))
        a, b = (plain_features(x, state)[0].flatten(2) for x in (images(0), images(1)))
        grams = (torch.einsum("bij,bkj->bik", x, x) / (64 * 24 * 20) for x in (a, b))
        torch.testing.assert_close(value, 2 * nn.functional.l1_loss(*grams), rtol=1e-4, atol=0)

    def test_predictions_that_share_targets(self, small_vgg):
        loss = create_loss(spec(small_vgg)).loss
        pred = torch.stack([images(0), images(1), images(2)]).requires_grad_()
        distances = loss.distance(pred, images(3))
        alone = torch.stack([torch.stack([loss(x[i, None], images(3)[i, None]) for i in range(2)]) for x in pred])
        torch.testing.assert_close(distances, alone, rtol=1e-5, atol=0)
        weights = torch.arange(1.0, 7.0).view(3, 2)
        together, apart = (torch.autograd.grad((x * weights).sum(), pred)[0] for x in (distances, alone))
        assert (together - apart).norm() < 1e-3 * apart.norm()

    def test_no_gradient_to_the_target(self, small_vgg):
        target = images(1).requires_grad_()
        create_loss(spec(small_vgg))(images(0).requires_grad_(), target).backward()
        assert target.grad is None

    def test_value_without_gradient(self, small_vgg):
        loss = create_loss(spec(small_vgg))
        with torch.no_grad():
            value = loss(images(0), images(1))
        assert not value.requires_grad
        assert value == loss(images(0).requires_grad_(), images(1))

    def test_a_converted_loss_uses_its_converted_weights(self, small_vgg):
        loss = create_loss(spec(small_vgg))
        loss(images(0), images(1))
        loss.to(torch.float64).to(torch.float32)
        for weight in loss.buffers():
            weight.mul_(0.5)
        loss.to(torch.float64)
        expected = loss(images(0).double(), images(1).double())
        value = loss.to(torch.float32)(images(0), images(1))
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)

    def test_bfloat16_is_near(self, small_vgg):
        values = [create_loss(spec(small_vgg, precision=p))(images(0), images(1)) for p in ("float32", "bfloat16")]
        torch.testing.assert_close(*values, rtol=1e-2, atol=0)
        assert values[0] != values[1]


@pytest.fixture
def alexnet_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    state = {f"features.{i}.weight": torch.randn(s, generator=generator) * 0.03 for i, s in shapes.items()}
    state |= {f"features.{i}.bias": torch.zeros(s[0]) for i, s in shapes.items()}
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save(state, path)
    return path


class TestLPIPS:
    def test_equals_the_package(self, alexnet_file):
        import lpips

        state = torch.load(alexnet_file, weights_only=True)
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        slices = {key: "features." + key.split(".", 1)[1] for key in reference.net.state_dict()}
        reference.net.load_state_dict({key: state[name] for key, name in slices.items()})
        pred = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(0)).requires_grad_()
        target = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(1))
        loss = create_loss({"type": "LPIPSLoss", "weights": str(alexnet_file)}).train()
        value, expected = loss(pred, target), reference(pred, target, normalize=True).mean()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
        ours, theirs = (torch.autograd.grad(each, pred)[0] for each in (value, expected))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())

    def test_unknown_network(self):
        with pytest.raises(UserError, match="alex, vgg, squeeze"):
            create_loss({"type": "LPIPSLoss", "net": "alexnett"})
