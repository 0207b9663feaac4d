"""Measures the cost of a network on this machine: parameters, MACs, latency and peak memory.

Each network is measured in a new process, so that the figures contain no memory and no threads of earlier work. If the
system ends that process for lack of memory, the benchmark goes on.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from llie.benchmark.macs import count_macs, dark_image
from llie.benchmark.plan import CostSpec, ModelSpec
from llie.engine.allocator import keep_large_blocks
from llie.errors import UserError
from llie.inference import Enhancer, load
from llie.registry import load_plugins

LONG = 20.0  # seconds after which three repeats are enough


def measure_cost(
    model: ModelSpec, spec: CostSpec, device: str = "cpu", threads: int | None = None, plugins: list[str] | None = None
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: what to load.
        spec: size of the image, and number of runs.
        device: device to run on; MACs are always counted on the CPU.
        threads: CPU threads; None: the number that PyTorch uses.
        plugins: Python files with the user's own networks.

    Returns:
        `parameters`; `macs` (None for methods that compute outside PyTorch); `size` (height, width);
        `latency` {`median`, `q1`, `q3` in seconds, `repeats`, `warmup`}; `peak_memory` in bytes, without what the
        process used before it loaded the network (None where the system does not report it); `device`, `threads`.

    Raises:
        UserError: the model cannot be loaded, or the process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(
                _measure, model, spec, device, threads or torch.get_num_threads(), plugins or []
            ).result()
        except BrokenProcessPool:
            raise UserError(
                f"{model.name}: the process that measured its cost died, probably for lack of memory"
            ) from None


def device_name(device: str | torch.device) -> str:
    """Name of the processor or GPU, for tables."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _measure(model: ModelSpec, spec: CostSpec, device: str, threads: int, plugins: list[str]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    keep_large_blocks()  # as `llie enhance` does
    load_plugins(plugins)
    memory = _PeakMemory(torch.device(device))
    enhance = load(model.model, device, model.network, **model.controls)
    image = dark_image(spec.size).to(device)
    _run(enhance, image)
    peak = memory.peak()
    for _ in range(max(0, spec.warmup - 1)):
        _run(enhance, image)
    seconds: list[float] = []
    while len(seconds) < spec.repeats and not (len(seconds) >= 3 and sum(seconds) > LONG):
        start = time.perf_counter()
        _run(enhance, image)
        seconds.append(time.perf_counter() - start)
    network = enhance.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    quarters = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {
        "parameters": parameters,
        "macs": count_macs(network.cpu(), spec.size) if parameters else None,
        "size": list(spec.size),
        "latency": {
            "median": statistics.median(seconds),
            "q1": quarters[0],
            "q3": quarters[2],
            "repeats": len(seconds),
            "warmup": max(1, spec.warmup),
        },
        "peak_memory": peak,
        "device": device_name(device),
        "threads": threads,
    }


def _run(enhance: Enhancer, image: torch.Tensor) -> None:
    enhance(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)


class _PeakMemory:
    """Measures peak memory of the GPU or of this process, relative to its creation."""

    def __init__(self, device: torch.device):
        self.device = device
        self.start: int | None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
            self.start = _status("VmRSS")

    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - (self.start or 0)
        now = _status("VmHWM")
        return None if now is None or self.start is None else max(0, now - self.start)


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes; None on systems without this file."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
    return None
