"""Choice of the backend: by argument, by the environment variable LLIE_SCAN, or the fastest that works."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from types import ModuleType

import torch
from torch import Tensor

from llie.errors import UserError, suggest

log = logging.getLogger(__name__)

MODULES = {"torch": "blocked", "c": "cpu", "numba": "jit", "triton": "gpu"}
PREFERENCE = {"cpu": ("c", "numba", "torch"), "cuda": ("triton", "torch")}


def requested(backend: str) -> str:
    """The requested backend: the argument or, if that is "auto", LLIE_SCAN."""
    name = os.environ.get("LLIE_SCAN", "auto").strip().lower() or "auto" if backend == "auto" else backend
    known = ("auto", *MODULES, "mamba_ssm")
    if name not in known:
        raise UserError(
            f"no selective-scan backend is called {name!r}.{suggest(name, known)} Known: {', '.join(known)}"
        )
    return name


def choose(backend: str, u: Tensor) -> ModuleType:
    """The module whose `forward` and `backward` compute a scan of `u`.

    Raises:
        UserError: the requested backend does not exist or cannot run here.
    """
    name = requested(backend)
    device = u.device.type
    # mamba_ssm has no four-direction form, and only plain PyTorch supports float64.
    if name in ("auto", "mamba_ssm"):
        name = _best(device) if u.dtype == torch.float32 else "torch"
    module = _load(name)
    if module is None or not module.supports(u):
        raise UserError(
            f"selective scan: the backend {name!r} cannot run {u.dtype} on {device} here; use 'auto' or 'torch'"
        )
    return module


def available(device: str = "cpu") -> list[str]:
    """Backends that work on this machine for float32 tensors of a device type, fastest first."""
    return [name for name in PREFERENCE.get(device, ("torch",)) if _load(name) is not None]


def capturing(u: Tensor) -> bool:
    """Whether a CUDA graph is being captured; no value may be read back then."""
    return u.is_cuda and torch.cuda.is_current_stream_capturing()


@functools.cache
def _best(device: str) -> str:
    # The others are not loaded: numba alone takes seconds and starts a pool of threads.
    name = next(name for name in PREFERENCE.get(device, ("torch",)) if _load(name) is not None)
    log.info("selective scan on %s: %s", device, name)
    return name


@functools.cache
def _load(name: str) -> ModuleType | None:
    threads = torch.get_num_threads()
    try:
        module = importlib.import_module(f"llie.ops.selective_scan.{MODULES[name]}")
        module.prepare()
    except (ImportError, OSError, RuntimeError) as error:
        log.info("selective scan: backend %s is not available (%s)", name, str(error).splitlines()[0])
        return None
    torch.set_num_threads(threads)  # starting numba's pool changes it for the whole process
    return module
