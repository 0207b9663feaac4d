"""LFPV in two processes learns as in one: the same banks on every rank, whatever the split of the batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from llie.archs import create_network
from llie.engine.distributed import disconnect
from tests.processes import together

STEPS = 5
HVISMM = {"host": {"type": "HVISMM", "channels": [4, 4, 8, 8], "heads": [1, 1, 1, 1]}, "at": "trunk.lca4.i"}
CASES = {
    "by error": {"nf": 16, "layers": 1},
    "one position": {**HVISMM, "selection": "none"},
    "as published": {**HVISMM, "parity": True},
}


def train(case, rank=0, world=1, wrap=lambda network: network):
    """Five steps on batches of four, of which each rank has its share; then all of the network's state."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # In float64, so that what differs is the method: Adam divides tiny gradients by themselves, rounding and all.
    network = create_network("LFPV", hidden_width=16, hidden_layers=2, **CASES[case]).double().train()
    wrapped = wrap(network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(STEPS):
        images = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(step)).double()
        lq, gt = images.unflatten(1, (world, -1))[:, rank]
        torch.manual_seed(1000 * rank + step)  # ranks draw differently, as the trainer seeds them
        outputs = wrapped(lq, gt=gt)
        optimiser.zero_grad()
        sum((outputs[key] - gt).abs().mean() for key in ("out", "plain")).backward()
        optimiser.step()
    return network.state_dict()


def share(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # As the trainer wraps it: without find_unused_parameters, and without sending buffers.
    states = {
        case: train(case, rank, 2, lambda net: DistributedDataParallel(net, broadcast_buffers=False)) for case in CASES
    }
    torch.save(states, f"{folder}/{rank}.pth")
    disconnect()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    together(share, str(folder))
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", ["by error", "one position"])
def test_two_processes_write_the_banks_of_one(ranks, case):
    expected = train(case)
    for key, value in expected.items():
        first, second = (states[case][key] for states in ranks)
        assert torch.equal(first, second), key
        torch.testing.assert_close(first, value, atol=1e-6, rtol=0, msg=key)
    assert expected["banks.vectors.features"].abs().max() > 0.1


def test_as_published_every_process_has_banks_of_its_own(ranks):
    first, second = (states["as published"]["banks.vectors.features"] for states in ranks)
    assert (first - second).abs().max() > 0.1
