"""Speed of the selective scan: every backend against the recurrence computed one position at a time.

The sizes are those of MambaLLIE's first level: four directions of 96 channels, 32 states. The baseline is the
formulation of `mamba_ssm`'s Python reference: decays and inputs of all positions first, then one step per position.

    python benchmarks/selective_scan.py [--threads 2] [--length 16384] [--rounds 3] [--backward-length 512]
"""

import argparse
from collections.abc import Callable

import torch
from timing import compare, report
from torch import Tensor
from torch.nn import functional as F

from llie.ops.selective_scan import backends, selective_scan
from llie.ops.ss2d import ss2d

GROUPS, CHANNELS, STATES, RANK = 4, 96, 32, 3


def step_by_step(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, delta_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """The baseline: everything of size length x channels x states is made, then a Python loop goes over the length."""
    delta = F.softplus(delta + delta_bias[:, None])
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1) for t in (B, C))
    decays = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inputs = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u)
    state, outputs = torch.zeros_like(decays[:, :, 0]), []
    for position in range(u.shape[2]):
        state = decays[:, :, position] * state + inputs[:, :, position]
        outputs.append(torch.einsum("bdn,bdn->bd", state, C[:, :, :, position]))
    return torch.stack(outputs, dim=2) + D[:, None] * u


def operands(length: int) -> dict[str, Tensor]:
    width = GROUPS * CHANNELS
    return {
        "u": torch.randn(1, width, length),
        "delta": torch.randn(1, width, length),
        "A": -torch.arange(1.0, STATES + 1).repeat(width, 1),
        "B": torch.randn(1, GROUPS, STATES, length),
        "C": torch.randn(1, GROUPS, STATES, length),
        "D": torch.ones(width),
        "delta_bias": torch.randn(width) - 4,
    }


def fused(length: int, backend: str) -> Callable[[], Tensor]:
    """The four-direction form on an image of the same number of pixels, with its projections included."""
    x = torch.randn(1, length // 128, 128, CHANNELS)
    x_proj, dt_proj = torch.randn(GROUPS, RANK + 2 * STATES, CHANNELS) / 10, torch.randn(GROUPS, CHANNELS, RANK)
    bias, D = torch.randn(GROUPS, CHANNELS) - 4, torch.ones(GROUPS, CHANNELS)
    A_log = torch.arange(1.0, STATES + 1).log().repeat(GROUPS, CHANNELS, 1)
    return lambda: ss2d(x, x_proj, dt_proj, bias, A_log, D, backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=16384, help="a multiple of 128")
    parser.add_argument("--backward-length", type=int, default=512, help="where the loop under autograd fits in memory")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    names = backends.available("cpu")

    inputs = operands(options.length)
    with torch.no_grad():
        candidates: dict[str, Callable[[], object]] = {
            "step by step": lambda: step_by_step(**inputs, delta_softplus=True)
        }
        for name in names:
            candidates[name] = lambda name=name: selective_scan(**inputs, delta_softplus=True, backend=name)
            candidates[f"{name}, four directions fused"] = fused(options.length, name)
        report(f"forward, length {options.length}", compare(candidates, options.rounds))

    leaves = {name: t.requires_grad_() for name, t in operands(options.backward_length).items()}

    def both(scan: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(scan(**leaves, delta_softplus=True).square().sum(), list(leaves.values()))

    candidates = {"step by step": both(step_by_step)}
    for name in names:
        candidates[name] = both(lambda name=name, **t: selective_scan(**t, backend=name))
    report(f"forward and backward, length {options.backward_length}", compare(candidates, options.rounds))


if __name__ == "__main__":
    main()
