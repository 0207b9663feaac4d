"""Compare variants of one computation fairly: alternately, in one process, as the median of ratios."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch


def compare(
    variants: Mapping[str, Callable[[], object]], rounds: int = 9, clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[float, float]]:
    """Time all variants once per round, in turn; the first one is the baseline.

    Other load on the machine affects neighbouring measurements equally, so the ratio within a round is steadier than
    the times.

    Returns:
        name -> (median of seconds, median of baseline seconds / its seconds).
    """
    for run in variants.values():  # allocate, compile, fill caches
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    baseline = seconds[next(iter(variants))]
    return {
        name: (statistics.median(own), statistics.median(b / s for b, s in zip(baseline, own, strict=True)))
        for name, own in seconds.items()
    }


def report(title: str, results: Mapping[str, tuple[float, float]]) -> None:
    print(f"{title} ({torch.get_num_threads()} threads)")
    for name, (seconds, ratio) in results.items():
        print(f"  {name:<28} {1000 * seconds:9.1f} ms   {ratio:5.2f}x")


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use this number of threads in the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)
