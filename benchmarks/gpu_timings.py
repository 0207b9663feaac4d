"""Times and peak memory of `gpu.py`: each network against its literal form, and a training on real pairs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_checks import Facts, Setup, build, error, pairs
from literal_networks import literal_form
from timing import compare
from torch import Tensor, nn
from torch.nn import functional as F

from llie import train
from llie.data import demo
from llie.data.pairing import find_sides
from llie.errors import UserError
from llie.models.base import result_of

PLACES = ("datasets/LOLv1", "datasets/LOLv2/Real_captured", "datasets/LOLv2/Synthetic", "datasets/custom")


def inference(setup: Setup, name: str, height: int, width: int, rounds: int) -> Facts:
    """Inference on one image: literal, llie, and llie in bfloat16."""
    network = build(setup, name).eval()
    literal = literal_form(name, network, dict(setup.arguments.get(name, {})), height * width)
    x = pairs(setup, 0)[0][:1]
    x = F.interpolate(x, (height, width), mode="bilinear").to(setup.device)
    network.to(setup.device)
    variants: dict[str, Callable[[], Tensor]] = {}
    if literal is not None:
        literal.to(setup.device).eval()
        variants["literal"] = lambda: result_of(literal(x))
    variants["llie"] = lambda: result_of(network(x))

    def in_bfloat16() -> Tensor:
        with torch.autocast(setup.device, torch.bfloat16):
            return result_of(network(x))

    variants["llie, bf16"] = in_bfloat16
    with torch.inference_mode():
        facts = _measure(setup, variants, rounds)
        if literal is not None:
            facts["difference"] = error(variants["llie"](), variants["literal"]())
    return facts


def training_step(setup: Setup, name: str, height: int, width: int, rounds: int) -> Facts:
    """Forward, L1 loss, backward and Adam on a batch: literal, and llie."""
    network = build(setup, name).train()
    literal = literal_form(name, network, dict(setup.arguments.get(name, {})), height * width)
    lq, gt = (F.interpolate(image, (height, width)).to(setup.device) for image in pairs(setup, 0))
    variants = {"literal": _step(literal.to(setup.device).train(), lq, gt)} if literal is not None else {}
    variants["llie"] = _step(network.to(setup.device), lq, gt)
    return _measure(setup, variants, rounds)


def _step(network: nn.Module, lq: Tensor, gt: Tensor) -> Callable[[], Tensor]:
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-6)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = F.l1_loss(result_of(network(lq)), gt)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _measure(setup: Setup, variants: dict[str, Callable[[], Tensor]], rounds: int) -> Facts:
    """Median milliseconds, speed-up over the literal form, and peak memory in MiB (None on a CPU)."""
    cuda = setup.device == "cuda"

    def waiting(run: Callable[[], Tensor]) -> Callable[[], None]:
        def call() -> None:
            run()
            if cuda:
                torch.cuda.synchronize()

        return call

    times = compare({name: waiting(run) for name, run in variants.items()}, rounds)
    facts: Facts = {"variants": {}}
    for name, run in variants.items():
        peak = None
        if cuda:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            run()
            peak = round((torch.cuda.max_memory_allocated() - before) / 2**20)
        seconds, ratio = times[name]
        speedup = round(ratio, 2) if "literal" in variants else None
        facts["variants"][name] = {"ms": round(1000 * seconds, 3), "speedup": speedup, "peak_mib": peak}
    return facts


def find_pairs(given: str | None, folder: Path) -> dict[str, str]:
    """Overrides that point the demo's option file to the pairs on this machine, or to those of the demo."""
    for place in [given] if given else PLACES:
        try:
            sides = {phase: find_sides(place, phase) for phase in ("train", "val")}
        except UserError:
            if given:
                raise
            continue
        return {
            f"datasets.{phase}.dataroot_{side}": str(path.resolve())
            for phase, pair in sides.items()
            for side, path in zip(("lq", "gt"), pair, strict=True)
        }
    return find_pairs(str(demo.make(folder / "demo")), folder)


def real_training(setup: Setup, given: str | None, minutes: float, crop: int, folder: Path) -> Facts:
    """Train HVI-SMM for some minutes by `llie/train.py`; the length follows from the speed of a short run."""
    arguments = setup.arguments.get("HVISMM", {"channels": [36, 36, 72, 144], "heads": [1, 2, 4, 8]})
    runs = folder / "runs"
    shutil.rmtree(runs, ignore_errors=True)  # those of an earlier call
    options = find_pairs(given, folder) | {f"network_g.{key}": value for key, value in arguments.items()}
    options |= {"datasets.train.gt_size": crop, "datasets.train.batch_size_per_gpu": setup.batch}
    options |= {"datasets.train.num_worker_per_gpu": 0 if setup.device == "cpu" else 8}
    options |= {"num_gpu": 0 if setup.device == "cpu" else 1, "logger.use_tb_logger": False, "val.val_freq": "null"}

    def timed(name: str, steps: int) -> float:
        start = time.monotonic()
        overrides = {**options, "name": name, "train.total_iter": steps, "logger.print_freq": max(1, steps // 20)}
        override = [f"{key}={value}" for key, value in overrides.items()]
        if code := train.main(["-opt", "options/train/demo.yml", "--output", str(runs), "--force_yml", *override]):
            raise AssertionError(f"llie/train.py ended with exit code {code}")
        return time.monotonic() - start

    few, more = setup.steps, setup.steps * (10 if setup.device == "cuda" else 2)
    timed("warm_up", few)  # chooses kernels, and validates
    per_step = max((timed("longer", more) - timed("short", few)) / (more - few), 1e-3)
    steps = max(1, int(60 * minutes / per_step))
    seconds = timed("HVISMM", steps)
    lines = [json.loads(line) for line in (runs / "HVISMM" / "metrics.jsonl").read_text().splitlines()]
    figures = {key: value for key, value in lines[-1].items() if key not in ("kind", "iter")}
    return {
        "pairs": options["datasets.train.dataroot_lq"],
        "steps": steps,
        "minutes": round(seconds / 60, 2),
        **figures,
    }
