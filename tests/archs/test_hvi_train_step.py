"""One training step with the published loss (less its VGG term): loss and gradients of the official code in float64."""

import pytest
import torch

from llie.archs import create_network
from llie.losses import create_loss
from tests.golden.compare import assert_near

SMM_LOSS = {"gt_mean": "hvi", "preds": {"out": 1.0, "base": 0.5}}


@pytest.mark.parametrize(
    ("vector_name", "network_name", "k_grad_in_inverse", "loss_arguments", "suffix"),
    [
        ("cidnet_train_step", "HVICIDNet", False, {}, ""),
        ("hvi_smm_train_step", "HVISMM", True, SMM_LOSS, ""),
        ("hvi_smm_train_step", "HVISMM", False, {**SMM_LOSS, "k_grad_in_inverse": False}, "_detached_k"),
    ],
)
def test_golden(golden, vector_name, network_name, k_grad_in_inverse, loss_arguments, suffix):
    vector = golden(vector_name, torch.float64)
    network = create_network(network_name, **vector.meta["constructor"], k_grad_in_inverse=k_grad_in_inverse)
    rename = network.card.official_keys
    network.load_state_dict(rename(vector.state_dict()))
    network.double().train()
    criterion = create_loss({"type": "HVILoss", "perceptual": 0, **loss_arguments}).double()

    outputs = network(vector["input"])
    loss = criterion(outputs, {"gt": vector["gt"]})
    loss.backward()

    assert_near(outputs["out"], vector["output"], 1e-6)
    assert_near(loss, vector[f"loss{suffix}"], 1e-6)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    norms = rename(dict(zip(vector.meta["parameter_order"], vector[f"grad_norms{suffix}"], strict=True)))
    assert gradients.keys() == norms.keys()
    for name, norm in norms.items():
        if norm.isnan():
            assert gradients[name] is None, name
        else:
            assert_near(gradients[name].norm(), norm, of=name)
    prefix = f"grad{suffix}:"
    full = rename({key.removeprefix(prefix): vector[key] for key in vector.arrays if key.startswith(prefix)})
    assert len(full) >= 6
    for name, expected in full.items():
        assert_near(gradients[name], expected, of=name)
