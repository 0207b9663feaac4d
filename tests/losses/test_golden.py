"""Value and gradient of the published losses."""

import pytest
import torch

from llie.losses import create_loss
from llie.losses.hvi import brightness_divergence


def assert_gradient(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def assert_value(found, expected):
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", ["", "_nonsquare"])
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ssim", {"type": "SSIMLoss", "weight": 0.5}),
        ("edge", {"type": "EdgeLoss", "weight": 50.0}),
        ("perceptual", {"type": "PerceptualLoss", "range_norm": True, "criterion": "mse"}),
    ],
)
def test_single_losses(golden, vgg_file, name, spec, size):
    case = golden(f"loss_hvi_{name}{size}")
    if name == "perceptual":
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        spec = {**spec, "layer_weights": case.meta["layer_weights"], "weights": weights}
    pred = case["pred"].requires_grad_()
    loss = create_loss(spec)(pred, case["gt"])
    loss.backward()
    assert_value(loss, case["loss"])
    assert_gradient(pred.grad, case["grad"])


def test_snr_aware_losses(golden, tmp_path):
    case = golden("snr_losses")
    values, weights = case.meta["values"], tmp_path / "vgg19.pth"
    torch.save(case.state_dict(), weights)
    layers = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
    vgg = {"type": "PerceptualLoss", "layer_weights": layers, "use_input_norm": False, "weights": str(weights)}
    for name, spec in {
        "charbonnier_sum": {"type": "CharbonnierLoss", "reduction": "sum", "eps": case.meta["eps"]},
        "charbonnier_mean": {"type": "CharbonnierLoss", "eps": case.meta["eps"]},
        "vgg_sum": {**vgg, "reduction": "sum"},
        "vgg_mean_variant": vgg,
    }.items():
        pred = case["pred"].clone().requires_grad_()
        loss = create_loss(spec)(pred, case["target"])
        assert loss.item() == pytest.approx(values[name], rel=1e-5), name
        if f"grad_{name}" in case:
            loss.backward()
            assert_gradient(pred.grad, case[f"grad_{name}"])


@pytest.mark.parametrize("size", ["", "_nonsquare"])
def test_laplacian_and_features(golden, vgg_file, size):
    case = golden(f"loss_hvi_edge{size}")
    laplacian = create_loss({"type": "EdgeLoss"}).loss.laplacian(case["pred"])
    torch.testing.assert_close(laplacian, case["laplacian_pred"], rtol=0, atol=1e-6)

    case = golden(f"loss_hvi_perceptual{size}")
    weights = vgg_file(case.meta["shapes"], case.meta["seed"])
    layers = case.meta["layer_weights"]
    loss = create_loss({"type": "PerceptualLoss", "range_norm": True, "layer_weights": layers, "weights": weights})
    features = loss.loss.vgg(case["pred"])
    torch.testing.assert_close(features["conv4_4"][:, :8], case["conv4_4_first8"], rtol=0, atol=1e-5)
    for layer in layers:
        assert_value((features[layer] ** 2).mean(), case[f"feature_sqmean_{layer}"])


@pytest.mark.parametrize("size", ["", "_nonsquare"])
class TestHVILoss:
    @pytest.fixture
    def case(self, golden, size):
        return golden(f"loss_hvi_combined{size}")

    @pytest.mark.parametrize("gt_mean", ["none", "rgb", "hvi"])
    def test_with_and_without_perceptual(self, case, vgg_file, gt_mean):
        pred, k = case["pred"].requires_grad_(), torch.tensor([case.meta["density_k"]], requires_grad=True)
        outputs, batch = {"out": pred, "k": k}, {"gt": case["gt"]}
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        loss = create_loss({"type": "HVILoss", "gt_mean": gt_mean, "weights": weights})(outputs, batch)
        loss.backward()
        assert_value(loss, case[f"loss_{gt_mean}"])
        assert_gradient(pred.grad, case[f"grad_{gt_mean}"])
        assert_gradient(k.grad, case[f"grad_k_{gt_mean}"])
        plain = create_loss({"type": "HVILoss", "gt_mean": gt_mean, "perceptual": 0})
        assert_value(plain(outputs, batch), case[f"loss_{gt_mean}_nop"])

    def test_intermediate_supervision(self, case, vgg_file):
        final, base = case["pred"].requires_grad_(), case["pred_base"].requires_grad_()
        outputs = {"out": final, "base": base, "k": torch.tensor([case.meta["density_k"]])}
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        spec = {"type": "HVILoss", "gt_mean": "hvi", "preds": {"out": 1.0, "base": 0.5}, "weights": weights}
        loss = create_loss(spec)(outputs, {"gt": case["gt"]})
        loss.backward()
        assert_value(loss, case["loss_intermediate"])
        assert_gradient(final.grad, case["grad_intermediate_final"])
        assert_gradient(base.grad, case["grad_intermediate_base"])

    @pytest.mark.parametrize("gt_mean", ["rgb", "hvi"])
    def test_brightness(self, case, gt_mean):
        loss = create_loss({"type": "HVILoss", "gt_mean": gt_mean, "perceptual": 0}).loss
        # The intensity channel of HVI is the largest of the three.
        pred, gt = (loss.brightness(x, x.amax(1, keepdim=True).expand(x.shape)) for x in (case["pred"], case["gt"]))
        share = brightness_divergence(pred, gt).clamp(0, 1)
        torch.testing.assert_close(share, case[f"W_{gt_mean}"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gt / pred, case[f"m_{gt_mean}"], rtol=1e-5, atol=0)
