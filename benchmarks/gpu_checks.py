"""The checks of `gpu.py`. Each compares something on a device and returns facts, or raises an error."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from isolated import server
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs import create_network
from llie.engine import distributed
from llie.engine.checkpoint import STATES, read_state
from llie.engine.settings import Settings
from llie.engine.trainer import Trainer
from llie.models.base import Model, in_full_precision, result_of
from llie.ops.fusion import fuse
from llie.ops.selective_scan import backends, selective_scan

Facts = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """The facts that all checks need.

    Attributes:
        device: "cuda" or "cpu".
        size: height and width of images.
        batch: images per step.
        steps: length of a training.
        processes: largest number of processes of a distributed training.
        arguments: network name -> constructor arguments; the defaults for all others.
        compiler: backend of torch.compile.
        seconds: time limit of a single check.
    """

    device: str = "cuda"
    size: tuple[int, int] = (128, 128)
    batch: int = 8
    steps: int = 6
    processes: int = 1
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    compiler: str = "inductor"
    seconds: float = 240.0


def build(setup: Setup, name: str) -> nn.Module:
    """A network with random weights, the same in every process."""
    torch.manual_seed(0)
    return create_network(name, **setup.arguments.get(name, {}))


def pairs(setup: Setup, number: int) -> tuple[Tensor, Tensor]:
    """Dark images and references, (batch, 3, H, W), determined by a number."""
    gt = torch.rand(setup.batch, 3, *setup.size, generator=torch.Generator().manual_seed(number))
    return 0.2 * gt, gt


def error(result: Tensor, reference: Tensor) -> float:
    """Norm of the difference, relative to the norm of the reference."""
    result, reference = result.detach().cpu().double(), reference.detach().cpu().double()
    return float((result - reference).norm() / reference.norm().clamp(min=1e-12))


def within(limit: float, **errors: float) -> Facts:
    """The errors as facts; raises if one is too large, or NaN."""
    for name, value in errors.items():
        if not value <= limit:
            raise AssertionError(f"{name}: error {value:.2g}, the limit is {limit:g}")
    return errors


def weights_of(network: nn.Module) -> Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().flatten().cpu() for p in network.parameters()])


def update(setup: Setup, name: str, trained: Trainer) -> Tensor:
    """The change of all weights by a training: errors relative to the weights themselves would hide in them."""
    return weights_of(trained.networks["g"]) - weights_of(build(setup, name))


def exact_float32() -> None:
    """No TF32, which is off by default for matrix products but on for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def agreement(setup: Setup, name: str) -> Facts:
    """Output, fused output and gradients equal those of the CPU."""
    exact_float32()
    results = []
    for device in ("cpu", setup.device):
        network = build(setup, name).to(device).eval()  # without the random parts of training
        x = pairs(setup, 0)[0][:1].to(device)
        out = network(x)
        (out * torch.linspace(-1, 1, out.numel(), device=device).view_as(out)).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        with torch.inference_mode():
            results.append((out, fuse(network)(x), gradients))
    (out, fused, gradients), (own_out, own_fused, own_gradients) = results
    return within(1e-4, output=error(own_out, out), fused=error(own_fused, fused)) | within(
        1e-2,
        gradients=error(own_gradients, gradients),  # ReLU gates near zero may differ
    )


def channels_last(setup: Setup, name: str) -> Facts:
    """Channels last gives the same output, and trains."""
    exact_float32()
    network, x = build(setup, name).to(setup.device).eval(), pairs(setup, 0)[0].to(setup.device)
    with torch.inference_mode():
        reference = network(x)
        own = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    train(setup, name, channels_last=True)
    return within(1e-4, output=error(own, reference))


def precision(setup: Setup, name: str, amp: str) -> Facts:
    """Autocast is close to float32, and trains."""
    network, x = build(setup, name).to(setup.device).eval(), pairs(setup, 0)[0].to(setup.device)
    with torch.inference_mode():
        reference = network(x)
        with torch.autocast(setup.device, {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]):
            own = network(x)
    train(setup, name, amp=amp)
    return within(0.1, output=error(own.float(), reference))


def compiled(setup: Setup, name: str) -> Facts:
    """A compiled network trains to the same weights."""
    exact_float32()
    torch.compile = partial(torch.compile, backend=setup.compiler)
    own, plain = (update(setup, name, train(setup, name, steps=2, compile=on)) for on in (True, False))
    return within(1e-2, update=error(own, plain))


def exact_resume(setup: Setup, name: str) -> Facts:
    """In deterministic mode, a resumed training equals one without interruption, bit for bit."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before the first use of cuBLAS
    torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whole = train(setup, name, folder=Path(folder), save_freq=setup.steps // 2)
        state = read_state(Path(folder) / STATES / f"{setup.steps // 2}.state")
        rest = train(setup, name, state=state)
    without = {str(w.message).split()[0] for w in caught if "deterministic" in str(w.message)}
    if not torch.equal(weights_of(whole.networks["g"]), weights_of(rest.networks["g"])):
        raise AssertionError(
            f"the weights differ; without a deterministic form: {', '.join(sorted(without)) or 'none'}"
        )
    return {"without_deterministic_form": sorted(without)}


def no_synchronisation(setup: Setup, name: str) -> Facts:
    """Forward, backward and optimiser step do not wait for the device."""
    network = build(setup, name).to(setup.device).train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)
    lq, gt = (image.to(setup.device) for image in pairs(setup, 0))
    for warm in (True, True, False):  # the first steps choose kernels and allocate
        with nullcontext() if warm or setup.device == "cpu" else _Waiting():
            F.l1_loss(result_of(network(lq)), gt).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    return {}


class _Waiting:
    """Context in which PyTorch reports every synchronisation of host and device as an error."""

    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def scan(setup: Setup) -> Facts:
    """The fastest backend of the selective scan equals plain PyTorch, forward and backward."""
    backend = "triton" if setup.device == "cuda" else backends.available("cpu")[0]
    random = torch.Generator().manual_seed(0)
    batch, channels, states, length = 2, 32, 16, setup.size[0] * setup.size[1] // 4
    inputs = {
        "u": torch.randn(batch, channels, length, generator=random),
        "delta": torch.randn(batch, channels, length, generator=random) - 3,
        "A": -torch.rand(channels, states, generator=random) - 0.1,
        "B": torch.randn(batch, states, length, generator=random),
        "C": torch.randn(batch, states, length, generator=random),
        "D": torch.randn(channels, generator=random),
    }
    found = []
    for which in (backend, "torch"):
        leaves = {key: value.clone().to(setup.device).requires_grad_() for key, value in inputs.items()}
        y = selective_scan(**leaves, delta_softplus=True, backend=which)
        y.square().sum().backward()
        found.append({"y": y, **{f"gradient of {key}": leaf.grad for key, leaf in leaves.items()}})
    return {"backend": backend} | within(1e-4, **{key: error(found[0][key], found[1][key]) for key in found[0]})


def several_processes(setup: Setup, name: str, processes: int) -> Facts:
    """Training in several processes gives the weights of training in one."""
    exact_float32()
    reference = update(setup, name, train(setup, name))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        group = [
            server().Process(target=_rank, args=(setup, name, r, processes, port, folder)) for r in range(processes)
        ]
        for process in group:
            process.start()
        for process in group:
            process.join(0.8 * setup.seconds)
        for process in group:  # those that hang, for instance in an exchange
            process.kill()
            process.join()
        if any(process.exitcode for process in group):
            raise AssertionError(f"exit codes of the processes: {[process.exitcode for process in group]}")
        return within(1e-2, update=error(torch.load(Path(folder) / "update.pt"), reference))


def _rank(setup: Setup, name: str, rank: int, world: int, port: int, folder: str) -> None:
    exact_float32()
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(addresses, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    with distributed.group(num_gpu=0 if setup.device == "cpu" else world) as device:
        trainer = train(setup, name, device=device, rank=rank, world=world, find_unused_parameters=True)
        if rank == 0:
            torch.save(update(setup, name, trainer), Path(folder) / "update.pt")
        del trainer  # leaves no reference to the group


class OneNetwork(Model):
    """Supervised training by L1 on the result."""

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Model.loss`."""
        outputs = in_full_precision(self.trained["g"](batch["lq"]))
        return F.l1_loss(result_of(outputs), batch["gt"]), {}


class Pairs:
    """A loader of random pairs; the ranks share each batch."""

    def __init__(self, setup: Setup, rank: int, world: int):
        self.setup, self.rank, self.world = setup, rank, world

    def __len__(self) -> int:
        return 1000

    def batches(self, first: int) -> Generator[dict[str, Any], None, None]:
        """See `llie.engine.contracts.Loader`."""
        while True:
            lq, gt = (image[self.rank :: self.world] for image in pairs(self.setup, first))
            yield {"lq": lq, "gt": gt}
            first += 1


def train(
    setup: Setup,
    name: str,
    steps: int | None = None,
    folder: Path | None = None,
    state: dict[str, Any] | None = None,
    device: torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    **settings: Any,
) -> Trainer:
    """Train a network by llie's trainer; plain SGD, because Adam amplifies the rounding of tiny gradients."""
    steps = steps or setup.steps
    sgd: Mapping[str, Any] = {"type": "SGD", "lr": 1e-2}
    chosen = Settings(
        total_iter=steps,
        optimizers={"g": sgd},
        device=device or torch.device(setup.device),
        print_freq=steps,
        max_nonfinite=1,  # a loss that is not finite is an error, but not a gradient that overflows in fp16
        **settings,
    )
    with tempfile.TemporaryDirectory() as temporary:
        model = OneNetwork({"g": build(setup, name)})
        trainer = Trainer(model, Pairs(setup, rank, world), chosen, folder or Path(temporary) / "run")
        if state:
            trainer.resume(state)
        trainer.run()
    return trainer


CHECKS: dict[str, tuple[Any, Sequence[Any]]] = {
    "CPU = GPU": (agreement, ()),
    "channels last": (channels_last, ()),
    "bf16": (precision, ("bf16",)),
    "fp16": (precision, ("fp16",)),
    "no synchronisation": (no_synchronisation, ()),
    "exact resume": (exact_resume, ()),
    "compile": (compiled, ()),
}
