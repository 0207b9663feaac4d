"""One process or many: what the ranks exchange, and how further processes are started.

Single-process code needs no special case: rank 0 of 1, and every exchange returns what it was given.
Starting and meeting is PyTorch's own work (torchrun's elastic launcher and its rendezvous).
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
    """Whether this process is the one that writes and talks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if joined():
        dist.barrier()


def gather(objects: Sequence[T]) -> list[T]:
    """All ranks' objects in one list on rank 0, in rank order; an empty list on the others.

    Args:
        objects: any number of picklable objects, not necessarily equally many on each rank.
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
    """The mean over ranks of a tensor, the same on every rank; a NaN anywhere is a NaN everywhere."""
    if joined():
        dist.all_reduce(values)
        values /= world_size()
    return values


def match_strides(network: nn.Module) -> None:
    """Give every gradient the strides of its parameter, from now on; DDP warns of gradients that have others.

    Along a dimension of size 1 (1x1 and depthwise convolutions) any stride describes the same memory, and which one a
    gradient gets depends on the kernel that computed it. Nothing is copied.
    """
    for parameter in network.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(partial(_restrided, parameter.stride()))


def _restrided(strides: tuple[int, ...], gradient: torch.Tensor) -> torch.Tensor:
    same = all(size == 1 or a == b for size, a, b in zip(gradient.shape, gradient.stride(), strides, strict=True))
    return gradient.as_strided(gradient.shape, strides) if same else gradient  # else autograd copies it into place


def _slurm_environment() -> dict[str, str]:
    """What torchrun would have set, read from the variables of `srun` (nothing outside of it)."""
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
    """This process's number, and how many a launcher started, without meeting them; (0, 1) when started alone."""
    known = os.environ
    if {"RANK", "WORLD_SIZE"} <= known.keys():
        return int(known["RANK"]), int(known["WORLD_SIZE"])
    # The script that sbatch runs has SLURM_NTASKS, too, but runs once: only srun makes it a step.
    batch_script = "SLURM_JOB_ID" in known and "SLURM_STEP_ID" not in known
    tasks = known.get("SLURM_STEP_NUM_TASKS", known.get("SLURM_NTASKS"))
    if "SLURM_PROCID" not in known or tasks is None or batch_script:
        return 0, 1
    return int(known["SLURM_PROCID"]), int(tasks)


def local_device() -> str | None:
    """The GPU of this process among those that a launcher started on this machine; None to let others choose."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return None if local is None or gpus < 2 else f"cuda:{int(local) % gpus}"


def choose_device(num_gpu: int | str = "auto") -> torch.device:
    """The device of this process; selects it when it is a GPU.

    Args:
        num_gpu: "auto" (GPU when there is one), a number of GPUs, or 0 for the CPU.

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
    """How many GPUs to use on this machine.

    Raises:
        UserError: more GPUs are requested than are visible.
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


@contextmanager
def group(num_gpu: int | str = "auto", backend: str | None = None) -> Iterator[torch.device]:
    """Join the processes that a launcher started with us (if one did) and leave them at the end.

    Args:
        num_gpu: see `choose_device`.
        backend: PyTorch backend; by default gloo for tensors on the CPU and nccl for those on GPUs.

    Yields:
        The device of this process.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        os.environ.update(_slurm_environment())
    device = choose_device(num_gpu)
    if started_by_launcher():
        # DDP imports this module, whose functions have the present group as a default argument: imported after
        # joining, it would keep the group for ever.
        importlib.import_module("torch.distributed.nn.functional")
        # Pickled objects travel by gloo even on GPU machines, so that they never touch GPU memory.
        dist.init_process_group(backend or ("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"))
    try:
        yield device
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        if joined():
            # Leaving ends gloo's threads only if nothing holds the group any more. A thread that outlives Python, and
            # then lets go of a tensor, ends the process with "terminate called without an active exception".
            gc.collect()
            dist.destroy_process_group()


def _forget_locals(error: BaseException | None) -> None:
    """Empty the frames of a traceback, in which the trainer and its group would live on."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def spawn(script: str | Path, arguments: Sequence[str], processes: int) -> int:
    """Run `python script arguments` as a group of processes on this machine.

    Returns:
        The exit code of the first process that failed, else 0.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Port 0: the rendezvous picks a free one, so that runs side by side do not meet.
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
    """Run a job in as many processes as it should have: those that a launcher started, or one for each GPU.

    Args:
        job: gets this process's device and returns an exit code.
        script: Python file which, run with `arguments`, ends up here again in each of several processes.
        arguments: its command line.
        num_gpu: see `choose_device`.
        backend: see `group`.
        launcher: what the user says started us: "pytorch", "slurm" or "none" (look).

    Raises:
        UserError: the launcher is not there, or GPUs are missing.
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
