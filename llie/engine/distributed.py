"""One process or several: exchange between ranks, and starting further processes.

A single process needs no special case: it is rank 0 of 1, and every exchange returns its argument.
PyTorch starts and connects the processes (torchrun's elastic launcher and its rendezvous).
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from llie.errors import UserError
from llie.ops.ranks import joined as joined
from llie.ops.ranks import rank as rank
from llie.ops.ranks import world_size as world_size

T = TypeVar("T")


def is_main() -> bool:
    """Whether this process is the one that writes files and messages."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if joined():
        dist.barrier()


def gather(objects: Sequence[T]) -> list[T]:
    """All ranks' objects in one list on rank 0, in rank order; an empty list on the others.

    Args:
        objects: any number of picklable objects; the number may differ between ranks.
    """
    if not joined():
        return list(objects)
    parts: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(list(objects), parts)
    return [item for part in parts for item in part] if parts else []


def broadcast(value: T) -> T:
    """Rank 0's value, on every rank."""
    if not joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over ranks, the same on every rank; a NaN on one rank is a NaN on all."""
    if joined():
        dist.all_reduce(values)
        values /= world_size()
    return values


def match_strides(network: nn.Module) -> None:
    """From now on, give every gradient the strides of its parameter; DDP warns about gradients with other strides.

    Along a dimension of size 1 (1x1 and depthwise convolutions) any stride describes the same memory, and the stride of
    a gradient depends on the kernel that computed it. Nothing is copied.
    """
    for parameter in network.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(partial(_restrided, parameter.stride()))


def _restrided(strides: tuple[int, ...], gradient: torch.Tensor) -> torch.Tensor:
    same = all(size == 1 or a == b for size, a, b in zip(gradient.shape, gradient.stride(), strides, strict=True))
    return gradient.as_strided(gradient.shape, strides) if same else gradient  # else autograd copies it into place


def _slurm_environment() -> dict[str, str]:
    """The variables that torchrun would have set, derived from those of `srun`; empty outside `srun`."""
    if "SLURM_STEP_ID" not in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    nodes = os.environ["SLURM_STEP_NODELIST"]
    first_node = nodes
    if "[" in nodes or "," in nodes:
        listing = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        first_node = listing.stdout.split()[0]
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", first_node),
        "MASTER_PORT": os.environ.get("MASTER_PORT", "29500"),
    }


def started_by_launcher() -> bool:
    """Whether torchrun, torch.distributed.launch or srun started this process as one of a group."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys() or bool(_slurm_environment())


def launched_as() -> tuple[int, int]:
    """This process's number and the number of processes, before they are connected; (0, 1) without a launcher."""
    known = os.environ
    if {"RANK", "WORLD_SIZE"} <= known.keys():
        return int(known["RANK"]), int(known["WORLD_SIZE"])
    # The script of sbatch has SLURM_NTASKS, too, but runs only once; only srun starts several processes.
    batch_script = "SLURM_JOB_ID" in known and "SLURM_STEP_ID" not in known
    tasks = known.get("SLURM_STEP_NUM_TASKS", known.get("SLURM_NTASKS"))
    if "SLURM_PROCID" not in known or tasks is None or batch_script:
        return 0, 1
    return int(known["SLURM_PROCID"]), int(tasks)


def local_device() -> str | None:
    """This process's share of the GPUs of a machine with several processes; None if there is no need to choose."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return None if local is None or gpus < 2 else f"cuda:{int(local) % gpus}"


def choose_device(num_gpu: int | str = "auto") -> torch.device:
    """The device of this process; a GPU is also made the current one.

    Args:
        num_gpu: "auto" (a GPU if there is one), a number of GPUs, or 0 for the CPU.

    Raises:
        UserError: the requested GPUs do not exist.
    """
    count = gpu_count(num_gpu)
    if count == 0:
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UserError(
            f"process {local} of this machine finds only {torch.cuda.device_count()} GPU(s); start at most that many "
            "processes per machine, or set num_gpu: 0 to use the CPU"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def gpu_count(num_gpu: int | str = "auto") -> int:
    """Number of GPUs to use on this machine.

    Raises:
        UserError: more GPUs are requested than visible.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpu == "auto":
        return visible
    if not isinstance(num_gpu, int) or num_gpu < 0:
        raise UserError(f"num_gpu: must be auto, 0 (CPU) or a number of GPUs, not {num_gpu!r}")
    if num_gpu > visible:
        raise UserError(
            f"num_gpu: {num_gpu} requested, but {visible} visible to PyTorch {torch.__version__}; "
            "use num_gpu: auto, or num_gpu: 0 for the CPU"
        )
    return num_gpu


def visible_gpus(num_gpu: int | str = "auto") -> list[str]:
    """The GPUs to use, in the form of CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: see `gpu_count`.
    """
    count = gpu_count(num_gpu)
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (names or [str(number) for number in range(count)])[:count]


@contextmanager
def group(num_gpu: int | str = "auto", backend: str | None = None) -> Iterator[torch.device]:
    """Connect to the other processes of the launcher, if there is one, and disconnect at the end.

    Args:
        num_gpu: see `choose_device`.
        backend: PyTorch backend; by default gloo for the CPU and nccl for GPUs.

    Yields:
        The device of this process.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        os.environ.update(_slurm_environment())
    device = choose_device(num_gpu)
    if started_by_launcher():
        # DDP imports this module, whose functions have the current group as a default argument: imported after
        # connecting, it would keep the group alive forever.
        importlib.import_module("torch.distributed.nn.functional")
        # Pickled objects use gloo even on GPU machines, so they need no GPU memory.
        dist.init_process_group(backend or ("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"))
    try:
        yield device
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        if joined():
            # Disconnecting stops gloo's threads only if nothing refers to the group. A thread that frees a tensor after
            # Python has ended aborts the process with "terminate called without an active exception".
            gc.collect()
            disconnect()


def disconnect() -> None:
    """Leave the group of processes.

    In PyTorch 2.4, the end of a group waits for gloo's threads, which may wait for Python's lock to free a tensor: that
    never ends. The end of a backend releases the lock, so backends must outlive the group.
    """
    world: Any = dist.group.WORLD
    backends = [world._get_backend(device) for device in world._device_types]
    del world
    dist.destroy_process_group()
    del backends


def _forget_locals(error: BaseException | None) -> None:
    """Clear the frames of a traceback, which would keep the trainer and its group alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def spawn(script: str | Path, arguments: Sequence[str], processes: int) -> int:
    """Run `python script arguments` in several processes on this machine.

    Returns:
        The exit code of the first process that failed, else 0.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Port 0: the rendezvous chooses a free port, so simultaneous runs do not interfere.
    config = LaunchConfig(1, 1, processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        elastic_launch(config, sys.executable)(str(script), *arguments)
    except ChildFailedError as error:
        return abs(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def launch(
    job: Callable[[torch.device], int],
    script: str | Path,
    arguments: Sequence[str],
    *,
    num_gpu: int | str = "auto",
    backend: str | None = None,
    launcher: str = "none",
) -> int:
    """Run a job in the right number of processes: those of a launcher, or one per GPU.

    Args:
        job: function of this process's device that returns an exit code.
        script: Python file that calls this function again, in each process, when it is run with `arguments`.
        arguments: its command line.
        num_gpu: see `choose_device`.
        backend: see `group`.
        launcher: the launcher according to the user: "pytorch", "slurm", or "none" (detect it).

    Raises:
        UserError: the launcher was not used, or GPUs are missing.
    """
    if started_by_launcher():
        with group(num_gpu, backend) as device:
            return job(device)
    if launcher == "pytorch":
        raise UserError(f"--launcher pytorch: start with `torchrun --nproc_per_node N {script} ...`, or leave it out")
    if launcher == "slurm" and "SLURM_STEP_ID" not in os.environ:
        raise UserError(f"--launcher slurm: start with `srun python {script} ...`, or leave it out")
    processes = gpu_count(num_gpu)
    if processes > 1:
        return spawn(script, arguments, processes)
    return job(choose_device(num_gpu))
