"""`train.checkpoint`: blocks recomputed in the backward pass, in every network, in whole runs, with the same result."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llie import train
from llie.archs import blocks_of, create_network
from llie.engine.recompute import recompute
from llie.errors import UserError
from tests.archs.test_all import LEARNED, build
from tests.processes import finish
from tests.runs import assert_same, final_weights, make_project

WITH_BLOCKS = [name for name in LEARNED if blocks_of(build(name))]
# Dropout in its blocks, so that random numbers matter, too.
NETWORK = {"type": "MambaLLIE", "nf": 16, "depths": [1, 1, 1, 1, 1, 1], "d_state": 4}


def gradients(network, x):
    torch.manual_seed(1)  # dropout, and LFPV's samples
    outputs = network(x)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    sum(out.square().sum() for out in outputs).backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return found | dict(network.named_buffers()) | {"next random number": torch.rand(())}


def saved_bytes(network, x):
    """Size of the tensors that the forward pass keeps for the backward pass, besides parameters; each counts once."""
    network = copy.deepcopy(network)  # LFPV's banks change in each step
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(x)
    del outputs  # only now: while they live, no storage is used again
    return sum(kept.values())


def test_all_but_two_small_networks_have_blocks():
    assert set(LEARNED) - set(WITH_BLOCKS) == {"Dawn", "ZeroDCE"}


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_less_memory_with_the_same_gradients_statistics_and_random_numbers(name):
    plain = build(name).train()
    with torch.no_grad():
        for parameter in plain.parameters():  # layers that start as the identity would hide mistakes
            parameter += 0.01 * torch.randn_like(parameter)
    thrifty = copy.deepcopy(plain)
    recompute(thrifty, blocks_of(thrifty))
    thrifty = copy.deepcopy(thrifty)  # as the moving average is made
    x = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    assert saved_bytes(thrifty, x) < 0.95 * saved_bytes(plain, x)
    assert_same(gradients(thrifty, x), gradients(plain, x))
    assert thrifty.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(thrifty.eval()(x), plain.eval()(x))


def test_a_host_keeps_the_block_around_its_banks():
    """LFPV's hook inside of a block would update the banks a second time."""
    network = create_network("LFPV", host=NETWORK, at="VSSB_4.0.ffn", hidden_width=8)
    assert blocks_of(network) == [f"host.VSSB_{stage}.0" for stage in (1, 2, 3, 5, 6)]
    network = create_network("LFPV", host=NETWORK, at="VSSB_4.0", hidden_width=8)  # this hook is outside of it
    assert len(blocks_of(network)) == 6


def test_compiles():
    network = build("SNRAware").train()
    x = torch.rand(1, 3, 16, 16)
    expected = gradients(copy.deepcopy(network), x)
    recompute(network, blocks_of(network))
    compiled = torch.compile(network, backend="aot_eager")
    torch.manual_seed(1)
    compiled(x).square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


def run(folder, checkpoint, *more, steps=6):
    changes = {"network_g": NETWORK, "train__checkpoint": checkpoint, "train__scheduler": {"type": "constant"}}
    options = make_project(folder, **changes)
    assert train.main(["-opt", str(options), *more, "--force_yml", f"train.total_iter={steps}"]) == 0
    return final_weights(folder)


def test_a_run_ends_with_the_same_weights_also_when_resumed(tmp_path):
    folders = [tmp_path / name for name in ("plain", "thrifty", "resumed")]
    for folder in folders:
        folder.mkdir()
    plain, thrifty = run(folders[0], False), run(folders[1], True)
    assert_same(plain, thrifty)
    run(folders[2], True, steps=3)
    assert_same(thrifty, run(folders[2], True, "--auto_resume"))


def test_two_processes_end_with_the_same_weights(tmp_path, children):
    found = []
    for checkpoint in (False, True):
        folder = tmp_path / str(checkpoint)
        folder.mkdir()
        changes = {"network_g": NETWORK, "train__checkpoint": checkpoint, "train__total_iter": 3}
        options = make_project(folder, **changes)
        group = children(["-opt", str(options)], folder / "log", processes=2)
        assert finish(group) == [0, 0], (folder / "log").read_text()
        found.append(final_weights(folder))
    assert_same(*found)


def test_networks_without_blocks_and_blocks_with_batch_norm_are_refused(tmp_path):
    options = make_project(tmp_path, network_g={"type": "ZeroDCE", "width": 4}, train__checkpoint=True)
    with pytest.raises(UserError, match=r"train.checkpoint: ZeroDCE names no blocks .* set it to false"):
        train.main(["-opt", str(options)])
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    with pytest.raises(UserError, match="0 of Sequential has batch norm"):
        recompute(network, ["0"])
