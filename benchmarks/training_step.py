"""A training step of each network by its recipe: time, peak memory, and what takes the time.

    python benchmarks/training_step.py [--networks HVISMM ...] [--threads 2] [--seconds 100]

A step is forward, the recipe's full loss, backward and the recipe's optimiser, with network, loss and options as
`llie/train.py` builds them; the literal step has the literal network and loss and PyTorch's plain Adam. The variants
are `train.checkpoint`, `train.amp: bf16`, and this with VGG in bfloat16 besides. Crops are the recipe's; batches are
smaller where a step would take more than 10 s on two cores (one image of HVI-SMM takes longer, and MambaLLIE's literal
scan needs a smaller crop, too). VGG has random weights, which cost as much as trained ones.

Variants take turns in one process; with one thread, times are CPU times. Memory is the peak of a step above what is
held between steps: its maps and gradients. The last line of a network is its row in the guide's table.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from literal_losses import LOSSES, random_vgg
from literal_networks import literal_form
from loader import of_llie, rate, write_pairs
from timing import compare
from torch import Tensor, nn

from llie.engine.allocator import keep_large_blocks
from llie.engine.optimizers import create_optimizer
from llie.losses.backbones import FILES
from llie.options import load_options
from llie.registry import MODEL_REGISTRY

OPTIONS = Path(__file__).parents[1] / "options" / "train"
PARTS = ("forward", "loss", "backward", "optimiser")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to measure.

    Attributes:
        file: option file.
        crop: side of the images, at most that of the recipe.
        batch: number of images, at most that of the recipe.
        vgg: name of its VGG, and path of the loss that has it.
        changes: options of ours that the literal form does not have.
    """

    file: str
    crop: int
    batch: int
    vgg: tuple[str, str] | None = None
    changes: tuple[str, ...] = ()


HVI_VGG = ("vgg19", "train.losses.0")
RECIPES = {
    "HVISMM": Recipe("LOLv1.yml", 400, 1, HVI_VGG),
    "HVICIDNet": Recipe("hvi_cidnet/LOLv1.yml", 400, 1, HVI_VGG),
    "SNRAware": Recipe("snr_aware/LOLv1.yml", 128, 8),
    "LFPV": Recipe("lfpv/LOLv1.yml", 128, 4, ("vgg19", "train.losses.perceptual")),
    "DRBN": Recipe("drbn/LOLv2_real.yml", 256, 2),
    "HDM": Recipe("hdm/LOLv1.yml", 240, 1, ("vgg16", "train.losses.1"), ("network_g.gamma=null",)),
    "MambaLLIE": Recipe("mamballie/LOLv1.yml", 32, 1),  # larger crops would take the literal scan minutes
    "ZeroDCE": Recipe("zero_dce/dark.yml", 256, 8),
    "Dawn": Recipe("dawn.yml", 128, 8, None, ("train.amp=null",)),
}


def clock() -> float:
    """Seconds for differences: with one thread those of this process alone, which other load does not lengthen."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def variants_of(name: str) -> dict[str, list[str]]:
    """The variants of a network, with the options that they change; "literal" is none of ours."""
    bf16, vgg = ["train.amp=bf16"], RECIPES[name].vgg
    found: dict[str, list[str]] = {"literal": []} if name in LOSSES else {}
    found |= {"llie": [], "checkpoint": ["train.checkpoint=true"], "bf16": bf16}
    found |= {"bf16, also VGG": [*bf16, f"{vgg[1]}.precision=bfloat16"]} if vgg else {}
    if name in ("ZeroDCE", "Dawn"):
        del found["checkpoint"]  # has no blocks
    return found


@dataclasses.dataclass
class Step:
    """One training step; calling it returns the loss, and notes the seconds of each part."""

    network: Callable[..., Any]
    optimiser: torch.optim.Optimizer
    loss: Callable[[Callable[..., Any]], Tensor]
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def __call__(self) -> float:
        torch.manual_seed(0)  # dropout
        with self._noted("loss"):
            loss = self.loss(self._forward)
        with self._noted("backward"):
            loss.backward()
        with self._noted("optimiser"):
            self.optimiser.step()
            self.optimiser.zero_grad()
        return float(loss.detach())

    def _forward(self, *arguments: Any, **named: Any) -> Any:
        with self._noted("forward"):
            outputs = self.network(*arguments, **named)
        return outputs

    @contextmanager
    def _noted(self, part: str) -> Iterator[None]:
        start = clock()
        yield
        taken = clock() - start
        self.seconds[part] += taken
        if part == "forward":
            self.seconds["loss"] -= taken


def make_step(name: str, variant: str, ratio: float) -> Step:
    """A step of one variant; all variants of a network have the same weights and images."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    options = load_options(OPTIONS / recipe.file, [*recipe.changes, *variants_of(name)[variant]])
    train = options["train"]
    model = MODEL_REGISTRY.get(options["model_type"])(options)
    network: nn.Module = model.networks["g"].train()
    literal = literal_form(name, network, {}, recipe.crop**2) if name in LOSSES else None

    images = torch.rand(recipe.batch, 3, recipe.crop, recipe.crop, generator=torch.Generator().manual_seed(0))
    batch = {"lq": 0.3 * images, "gt": 0.9 * images}
    if name == "HVISMM":  # its loss has a second half where both are about equally bright, as in most of a training
        with torch.no_grad():
            batch["gt"] *= ratio * network(batch["lq"])["out"].amax(1).mean() / batch["gt"].amax(1).mean()

    still = {"lr": 0.0}  # so that every step computes the same
    if variant == "literal":
        assert literal is not None
        vgg = torch.load(Path(os.environ["LLIE_WEIGHTS"]) / FILES[recipe.vgg[0]]) if recipe.vgg else {}
        optimiser = torch.optim.Adam(literal.parameters(), **still)
        return Step(literal.train(), optimiser, lambda network: LOSSES[name](network(batch["lq"]), batch, vgg))

    if train["checkpoint"]:
        model.recompute_blocks()
    model.to(torch.device("cpu"), train["channels_last"])
    if train["channels_last"]:
        batch = {key: image.to(memory_format=torch.channels_last) for key, image in batch.items()}

    def loss(network: Any) -> Tensor:
        model.trained["g"] = network
        with torch.autocast("cpu", torch.bfloat16, enabled=train["amp"] == "bf16"):
            return model.loss("g", batch)[0]

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return Step(network, create_optimizer(trained, {**train["optim_g"], **still}), loss)


def peak_mib(step: Step) -> int:
    """The peak memory of a step, above what this process holds before it; Linux only."""
    own = Path("/proc/self")

    def held(key: str) -> int:
        return next(int(line.split()[1]) for line in (own / "status").read_text().splitlines() if line.startswith(key))

    ctypes.CDLL(None).malloc_trim(0)  # give back what other steps have left
    before = held("VmRSS")
    (own / "clear_refs").write_text("5")  # the peak begins anew
    step()
    return (held("VmHWM") - before) // 1024


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Print the table rows of one network, and the parts of its step."""
    recipe = RECIPES[name]
    steps = {variant: make_step(name, variant, arguments.ratio) for variant in variants_of(name)}
    start = clock()
    values = {variant: step() for variant, step in steps.items()}
    rounds = max(3, int(arguments.seconds / (clock() - start)) - 1)
    if "literal" in values and name != "LFPV":  # which draws its samples at random, and ours otherwise
        assert abs(values["llie"] / values["literal"] - 1) < 1e-3, values
    for step in steps.values():
        step.seconds = dict.fromkeys(PARTS, 0.0)
    times = compare(steps, rounds, clock)

    given = load_options(OPTIONS / recipe.file)["datasets"]["train"]
    crop = given.get("gt_size") or given["train_size"][0]
    wanted = f"{given['batch_size_per_gpu']} x {crop}"
    print(f"\n{name}: {recipe.batch} x {recipe.crop} (recipe: {wanted}), {arguments.threads} threads, {rounds} rounds")
    row = [f"{name}, {recipe.batch} x {recipe.crop}"]
    for variant, (seconds, ratio) in times.items():
        total = sum(steps[variant].seconds.values())
        parts = ", ".join(f"{part} {100 * spent / total:.0f} %" for part, spent in steps[variant].seconds.items())
        peak = peak_mib(steps[variant])
        print(f"  {variant:<16} {1000 * seconds:9.1f} ms   {ratio:5.2f}x   {peak:6} MiB   {parts}", flush=True)
        row.append(f"{peak}" if variant == "literal" else f"{ratio:.1f}x, {peak}")
    print(f"| {' | '.join(row)} |")
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder), 8)
        crops = rate(of_llie(Path(folder), 0, "ram", recipe.crop, recipe.batch), 0, seconds=2)
    load = recipe.batch / crops
    print(f"  loading a batch, without workers {1000 * load:9.1f} ms, {100 * load / times['llie'][0]:.1f} % of a step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=100, help="for the times of a network; at least 3 rounds")
    parser.add_argument("--crop", type=int, help="instead of those of the table, for all networks")
    parser.add_argument("--batch", type=int, help="see --crop")
    parser.add_argument("--ratio", type=float, default=1.15, help="HVI-SMM: brightness of references over results")
    arguments = parser.parse_args()
    for name in arguments.networks:
        recipe = RECIPES[name]
        sizes = {"crop": arguments.crop or recipe.crop, "batch": arguments.batch or recipe.batch}
        RECIPES[name] = dataclasses.replace(recipe, **sizes)
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()  # as in training; for the literal steps, too
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        for vgg in {recipe.vgg[0] for recipe in map(RECIPES.get, arguments.networks) if recipe and recipe.vgg}:
            torch.save(random_vgg(vgg), Path(folder) / FILES[vgg])
        os.environ["LLIE_WEIGHTS"] = folder
        for name in arguments.networks:
            measure(name, arguments)


if __name__ == "__main__":
    main()
