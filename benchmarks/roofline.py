"""Where the time of a network goes: per operation, beside what memory and arithmetic of this machine allow.

python benchmarks/roofline.py HVISMM --size 400x600 --threads 1 [--gradients]

"memory" is the time to move inputs and outputs at the measured bandwidth, "arithmetic" the time of the multiplications
at the measured rate. An operation that takes less than "memory" works on data in the cache. With --gradients, the
forward pass takes the form that training uses. Kernels in C are no operations of PyTorch and have no rows; what they
take is missing in the total.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from timing import threads
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from llie.archs import create_network
from llie.ops.fusion import fuse


class Operations(TorchDispatchMode):
    """Counts calls, seconds, bytes and floating-point operations of every operator."""

    def __init__(self):
        super().__init__()
        self.rows = defaultdict(lambda: [0, 0.0, 0, 0])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        row = self.rows[kind(func, args)]
        row[0] += 1
        row[1] += seconds
        if not func.is_view:
            row[2] += sum(bytes_of(t) for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            row[3] += formula(*args, **(kwargs or {}), out_val=out)
        return out


def kind(func: torch._ops.OpOverload, args: tuple) -> str:
    """The operator's name; convolutions with their kernel and whether they are depthwise."""
    name = func.overloadpacket.__name__
    if name == "convolution":
        height, width = args[1].shape[2:]
        return f"{'depthwise ' if args[1].shape[1] == 1 else ''}convolution {height}x{width}"
    return name


def bytes_of(tensor: Tensor) -> int:
    """Of its values in memory; those of an expanded tensor count once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def rate(run: Callable[[], object], amount: float) -> float:
    """The amount per second that a computation gets done, the best of several times."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return amount / min(times)


def machine() -> tuple[float, float]:
    """Bytes per second from and to memory, and floating-point operations per second of a matrix product."""
    source, target = torch.rand(2, 2**25)
    a, b, c = torch.rand(3, 1024, 1024)
    moved = source.numel() * source.element_size() * 2  # read and written
    return rate(lambda: target.copy_(source), moved), rate(lambda: torch.mm(a, b, out=c), 2 * 1024**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--size", default="400x600", help="height x width")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gradients", action="store_true")
    options = parser.parse_args()

    torch.manual_seed(0)
    network = fuse(create_network(options.network).eval())
    x = torch.rand(1, 3, *map(int, options.size.split("x"))) * 0.3
    rounds = []
    with threads(options.threads), torch.set_grad_enabled(options.gradients):
        bandwidth, arithmetic = machine()
        network(x)
        seconds = 1 / rate(lambda: network(x), 1)
        for _ in range(options.rounds):
            with Operations() as operations:
                network(x)
            rounds.append(operations.rows)
    print(
        f"{options.network} {options.size}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}: ",
        end="",
    )
    print(f"{bandwidth / 1e9:.1f} GB/s, {arithmetic / 1e9:.0f} GFLOP/s; {1e3 * seconds:.1f} ms")
    print(f"{'':32}{'calls':>7}{'ms':>9}{'memory':>9}{'arithmetic':>12}{'GB':>8}{'GFLOP':>8}")
    rows = {
        name: (calls, statistics.median(r[name][1] for r in rounds), size, flops)
        for name, (calls, _, size, flops) in rounds[0].items()
    }
    rows = dict(sorted(rows.items(), key=lambda row: -row[1][1]))
    total = tuple(map(sum, zip(*rows.values(), strict=True)))
    shown = {name: row for name, row in rows.items() if row[1] > 0.01 * total[1]}
    rest = tuple(t - sum(row[i] for row in shown.values()) for i, t in enumerate(total))
    for name, (calls, seconds, size, flops) in {**shown, "everything else": rest, "total": total}.items():
        print(
            f"{name:<32}{calls:>7}{1e3 * seconds:>9.1f}{1e3 * size / bandwidth:>9.1f}{1e3 * flops / arithmetic:>12.1f}"
            f"{size / 1e9:>8.2f}{flops / 1e9:>8.1f}"
        )


if __name__ == "__main__":
    main()
