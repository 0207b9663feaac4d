"""MambaLLIE in two processes learns as in one."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from llie.archs.mamballie import MambaLLIE
from llie.engine.distributed import disconnect
from tests.processes import together


def gradients(batch, wrap=lambda network: network):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = MambaLLIE(nf=8, depths=[1] * 6, d_state=2).eval()  # without dropout, whose draws differ by process
    wrapped = wrap(network)
    wrapped(batch).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def half(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Without find_unused_parameters: a single parameter without a gradient would keep all others from being averaged.
    found = gradients(images()[rank : rank + 1], DistributedDataParallel)
    torch.save(found, f"{folder}/{rank}.pth")
    disconnect()


def test_two_processes_give_the_gradients_of_the_double_batch(tmp_path):
    together(half, str(tmp_path))
    expected = gradients(images())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert (gradient - expected[name]).abs().max() <= 1e-4 * expected[name].abs().max(), name
