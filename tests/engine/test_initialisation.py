"""`train.init: data`: every convolution starts with outputs of mean 0 and deviation 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llie.archs.hdm import HDM
from llie.engine.initialisation import standardise
from llie.errors import UserError
from llie.train import main
from tests.runs import assert_same, final_weights, make_project


class Net(nn.Module):
    """Convolutions of all kinds: plain, transposed, one that starts at zero, one on a pooled map, and the last."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.zero = nn.Conv2d(8, 8, 1)
        nn.init.zeros_(self.zero.weight)
        self.pooled = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.outputs = {}

    def forward(self, x):
        x = self.up(self.first(x).relu()) + self.zero(torch.ones_like(x[:, :1]).expand(-1, 8, -1, -1))
        return self.last(x * self.pooled(x.mean((2, 3), keepdim=True)).sigmoid())


def batch(seed=0):
    random = torch.Generator().manual_seed(seed)
    gt = torch.rand(4, 3, 32, 32, generator=random, dtype=torch.float64)
    return 0.03 * gt**2, gt


def recorded(network, x):
    """The output of each convolution."""
    outputs = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, out, name=name: outputs.setdefault(name, out))
    with torch.no_grad():
        network(x)
    return outputs


def test_outputs_are_standardised_and_the_result_fits_the_references():
    torch.manual_seed(0)
    network = Net().double().train()
    lq, gt = batch()
    kept = {name: value.clone() for name, value in network.state_dict().items() if name.startswith(("zero", "pooled"))}
    assert standardise(network, lq, gt) == ["first", "up", "last"]
    outputs = recorded(network, lq)
    for name in ("first", "up"):
        assert outputs[name].mean((0, 2, 3)).abs().max() < 1e-9
        assert (outputs[name].std((0, 2, 3)) - 1).abs().max() < 1e-9
    torch.testing.assert_close(outputs["last"].mean((0, 2, 3)), gt.mean((0, 2, 3)))
    torch.testing.assert_close(outputs["last"].std((0, 2, 3)), 0.5 * gt.std((0, 2, 3)))
    for name, value in kept.items():
        assert torch.equal(network.state_dict()[name], value)


def test_dark_images_reach_the_result_of_hdm():
    """With PyTorch's initialisation, the result hardly depends on the image."""
    torch.manual_seed(0)
    network = HDM(width=16, blocks=2, groups=2, gamma=0.25).train()
    lq, gt = (image.float() for image in batch())

    def spread():
        with torch.no_grad():
            return float(network(lq).std((2, 3)).mean())

    before = spread()
    done = standardise(network, lq, gt)
    assert "output.2" in done and not any(name.startswith(("drconv", "FAB.0.gp.0.calayer")) for name in done)
    assert spread() > 10 * before > 0


def test_a_run_starts_from_data_and_resumes_exactly(tmp_path):
    options = make_project(tmp_path, train__init="data", train__total_iter=6)
    command = ["-opt", str(options), "--force_yml"]
    for name, more in (("whole", []), ("plain", ["train.init=null"])):
        assert main([*command, f"name={name}", *more]) == 0
    assert any(
        not torch.equal(a, final_weights(tmp_path, "plain")[key]) for key, a in final_weights(tmp_path, "whole").items()
    )

    state = tmp_path / "experiments" / "whole" / "training_states" / "3.state"
    assert main([*command, "name=resumed", f"path.resume_state={state}"]) == 0
    assert_same(final_weights(tmp_path, "resumed"), final_weights(tmp_path, "whole"))


def test_pretrained_weights_besides_are_an_error(tmp_path):
    options = make_project(tmp_path, train__init="data", path__pretrain_network_g="x.pth")
    with pytest.raises(UserError, match=r"train\.init or path\.pretrain_network_g"):
        main(["-opt", str(options)])
