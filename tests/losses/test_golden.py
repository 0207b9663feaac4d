"""Value and gradient of the published losses, ours in float64: in float32 each processor passes other gates of ReLU."""

import pytest
import torch

from llie.losses import create_loss
from llie.losses.hvi import brightness_divergence
from tests.golden.compare import assert_near


def criterion(**spec):
    return create_loss(spec).double()


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
    case = golden(f"loss_hvi_{name}{size}", torch.float64)
    if name == "perceptual":
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        spec = {**spec, "layer_weights": case.meta["layer_weights"], "weights": weights}
    pred = case["pred"].requires_grad_()
    loss = criterion(**spec)(pred, case["gt"])
    loss.backward()
    assert_near(loss, case["loss"])
    assert_near(pred.grad, case["grad"])


def test_snr_aware_losses(golden, tmp_path):
    case = golden("snr_losses", torch.float64)
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
        loss = criterion(**spec)(pred, case["target"])
        assert_near(loss, values[name], of=name)
        if f"grad_{name}" in case:
            loss.backward()
            assert_near(pred.grad, case[f"grad_{name}"], of=name)


@pytest.mark.parametrize("size", ["", "_nonsquare"])
def test_laplacian_and_features(golden, vgg_file, size):
    case = golden(f"loss_hvi_edge{size}", torch.float64)
    laplacian = criterion(type="EdgeLoss").loss.laplacian(case["pred"])
    assert_near(laplacian, case["laplacian_pred"])

    case = golden(f"loss_hvi_perceptual{size}", torch.float64)
    weights = vgg_file(case.meta["shapes"], case.meta["seed"])
    layers = case.meta["layer_weights"]
    loss = criterion(type="PerceptualLoss", range_norm=True, layer_weights=layers, weights=weights)
    features = loss.loss.vgg(case["pred"])
    assert_near(features["conv4_4"][:, :8], case["conv4_4_first8"])
    for layer in layers:
        assert_near((features[layer] ** 2).mean(), case[f"feature_sqmean_{layer}"], of=layer)


def density_k(case):
    return torch.tensor([case.meta["density_k"]], dtype=torch.float64)


@pytest.mark.parametrize("size", ["", "_nonsquare"])
class TestHVILoss:
    @pytest.fixture
    def case(self, golden, size):
        return golden(f"loss_hvi_combined{size}", torch.float64)

    @pytest.mark.parametrize("gt_mean", ["none", "rgb", "hvi"])
    def test_with_and_without_perceptual(self, case, vgg_file, gt_mean):
        pred, k = case["pred"].requires_grad_(), density_k(case).requires_grad_()
        outputs, batch = {"out": pred, "k": k}, {"gt": case["gt"]}
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        loss = criterion(type="HVILoss", gt_mean=gt_mean, weights=weights)(outputs, batch)
        loss.backward()
        assert_near(loss, case[f"loss_{gt_mean}"])
        assert_near(pred.grad, case[f"grad_{gt_mean}"])
        assert_near(k.grad, case[f"grad_k_{gt_mean}"])
        plain = criterion(type="HVILoss", gt_mean=gt_mean, perceptual=0)
        assert_near(plain(outputs, batch), case[f"loss_{gt_mean}_nop"])

    def test_intermediate_supervision(self, case, vgg_file):
        final, base = case["pred"].requires_grad_(), case["pred_base"].requires_grad_()
        outputs = {"out": final, "base": base, "k": density_k(case)}
        weights = vgg_file(case.meta["shapes"], case.meta["seed"])
        spec = {"type": "HVILoss", "gt_mean": "hvi", "preds": {"out": 1.0, "base": 0.5}, "weights": weights}
        loss = criterion(**spec)(outputs, {"gt": case["gt"]})
        loss.backward()
        assert_near(loss, case["loss_intermediate"])
        assert_near(final.grad, case["grad_intermediate_final"])
        assert_near(base.grad, case["grad_intermediate_base"])

    @pytest.mark.parametrize("gt_mean", ["rgb", "hvi"])
    def test_brightness(self, case, gt_mean):
        loss = criterion(type="HVILoss", gt_mean=gt_mean, perceptual=0).loss
        # The intensity channel of HVI is the largest of the three.
        pred, gt = (loss.brightness(x, x.amax(1, keepdim=True).expand(x.shape)) for x in (case["pred"], case["gt"]))
        share = brightness_divergence(pred, gt).clamp(0, 1)
        assert_near(share, case[f"W_{gt_mean}"])
        assert_near(gt / pred, case[f"m_{gt_mean}"])
