import pytest
import torch

from llie.archs.zero_dce import ZeroDCE, apply_curves
from llie.engine.optimizers import create_optimizer
from llie.errors import UserError
from llie.losses import build_losses
from llie.options import load_options
from llie.weights import identify, load_weights
from tests.conftest import REPOSITORY

OPTIONS = REPOSITORY / "options"
PARTS = ["zero_dce_full", "zero_dce_full_nonsquare", "zero_dce_tiny"]


def loaded(vector):
    """The network with the vector's weights. In float64: rounding then depends on no processor's kernels."""
    return load_weights(ZeroDCE(**vector.meta["constructor"]), vector.state_dict()).double()


def close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("part", PARTS)
def test_golden_forward_and_backward(golden, part):
    vector = golden(part)
    network, x = loaded(vector), vector["input"].double().requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), vector["output"].double(), atol=1e-6, rtol=0)
    outputs = network.train()(x)
    curves = outputs["curves"]
    torch.testing.assert_close(outputs["out"], vector["output"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(apply_curves(x, curves[:, :12]), vector["half"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(curves[:, :3], vector["curves_first"].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(curves[:, -3:], vector["curves_last"].double(), atol=1e-6, rtol=0)
    loss = (outputs["out"] * vector["probe"]).sum() + 0.1 * curves.square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(vector["loss"].item(), rel=1e-5)
    close(x.grad, vector["grad_input"], 1e-5)
    stored = [name for name in vector.arrays if name.startswith("grad_e_conv")]
    assert stored
    for name in stored:
        close(network.get_parameter(name.removeprefix("grad_")).grad, vector[name], 1e-5)


def test_golden_training_step_is_that_of_the_recipe(golden):
    """Losses, clipping and optimiser as the option file gives them."""
    vector = golden("zero_dce_train_step")
    train = load_options(OPTIONS / "train" / "zero_dce" / "dark.yml")["train"]
    network, x = loaded(vector).train(), vector["input"].double()
    optimiser = create_optimizer(network.parameters(), train["optim_g"])
    total, terms = build_losses(train)(network(x), {"lq": x})
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), train["clip_grad_norm"])
    published = {"smoothness": "tv", "spatial": "spatial", "colour": "color", "exposure": "exposure"}
    assert terms.keys() == published.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(vector[published[name]].item(), rel=1e-5)
    assert total.item() == pytest.approx(vector["loss"].item(), rel=1e-5)
    assert norm.item() == pytest.approx(vector["grad_norm"].item(), rel=1e-5)
    optimiser.step()
    for name, parameter in network.named_parameters():
        if f"clipped_grad_{name}" in vector:
            close(parameter.grad, vector[f"clipped_grad_{name}"], 1e-5)
        if f"after_{name}" in vector:
            torch.testing.assert_close(parameter.detach(), vector[f"after_{name}"].double(), atol=1e-6, rtol=0)


def test_float32_is_near_float64(golden):
    vector = golden("zero_dce_full")
    network = loaded(vector).eval()
    with torch.no_grad():
        exact = network(vector["input"].double())
        torch.testing.assert_close(network.float()(vector["input"]).double(), exact, atol=1e-5, rtol=0)


def test_results_stay_in_range_and_negative_curves_brighten():
    x = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    curves = torch.rand(2, 24, 9, 11, generator=torch.Generator().manual_seed(1)) * 2 - 1
    y = apply_curves(x, curves)
    assert y.min() >= -1e-6 and y.max() <= 1 + 1e-6
    assert (apply_curves(x, -curves.abs()) >= x - 1e-6).all()
    assert torch.equal(apply_curves(x, torch.zeros(2, 24, 9, 11)), x)


def test_gradients_of_the_curves():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    curves = (torch.rand(1, 9, 3, 4, generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(apply_curves, (x, curves))


def test_the_receptive_field_is_15_pixels():
    torch.manual_seed(0)
    network = ZeroDCE(width=4).eval()
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(x[..., 10:30, 5:25])[..., 7:-7, 7:-7], network(x)[..., 17:23, 12:18])


def test_official_files_are_recognised(golden):
    for part in PARTS:
        vector = golden(part)
        assert identify(vector.state_dict()) == ("ZeroDCE", vector.meta["constructor"])
    network = ZeroDCE()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == golden(PARTS[0]).meta["shapes"]
    assert sum(p.numel() for p in network.parameters()) == golden(PARTS[0]).meta["params"] == 79416


def test_weights_start_small():
    torch.manual_seed(0)
    network = ZeroDCE()
    for conv in network.children():
        assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1) and abs(conv.weight.mean()) < 0.002
        assert conv.bias.abs().max() <= conv.weight[0].numel() ** -0.5


@pytest.mark.parametrize("name", ["width", "iterations"])
def test_bad_arguments(name):
    with pytest.raises(UserError, match=f"{name} must be at least 1, not 0"):
        ZeroDCE(**{name: 0})
