"""SNR-Aware in two processes learns as in one, also when only one of them sees a valid token."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from llie.archs.snr_aware import SNRAware
from llie.engine.distributed import disconnect
from tests.processes import together


def gradients(images, maps, wrap=lambda network: network):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SNRAware(nf=8, layers=1)
    wrapped = wrap(network)
    wrapped(images, maps).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def batch():
    images = torch.rand(2, 3, 16, 64, generator=torch.Generator().manual_seed(1))
    maps = torch.zeros(2, 1, 16, 64)
    maps[0, :, :, 32:] = 0.9
    return images, maps


def half(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Without find_unused_parameters: a single parameter without a gradient would keep all others from being averaged.
    found = gradients(*(part[rank : rank + 1] for part in batch()), DistributedDataParallel)
    torch.save(found, f"{folder}/{rank}.pth")
    disconnect()


def test_two_processes_give_the_gradients_of_the_double_batch(tmp_path):
    together(half, str(tmp_path))
    expected = gradients(*batch())
    assert expected["transformer.layer_stack.0.slf_attn.w_qs.weight"].any()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert (gradient - expected[name]).abs().max() <= 1e-3 * expected[name].abs().max(), name
