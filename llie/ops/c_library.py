"""Kernels in C, through ctypes: compiled once, at first use, into the user's cache; they need a C compiler."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from llie.ops import integers

log = logging.getLogger(__name__)

# No -ffast-math: in a library, it would turn on flush-to-zero for the whole process.
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")


def compiled_library(source: Path) -> ctypes.CDLL:
    """The library of a source file, for this compiler and processor; compiled unless it is already there.

    Raises:
        OSError: there is no compiler, or it failed or took longer than two minutes.
    """
    return ctypes.CDLL(str(_compiled(source)))


def available(library: Callable[[], object], what: str) -> bool:
    """Whether a library can be compiled and loaded; if not, the log says why. Callers remember the answer."""
    try:
        library()
    except (OSError, RuntimeError) as error:
        log.info("%s: the C kernel is not available (%s)", what, str(error).splitlines()[0])
        return False
    return True


def form_of_products(x: torch.Tensor) -> int:
    """How a kernel may compute products, where the processor can (see `mixing.h`); its other steps are in float32."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if autocast or x.dtype == torch.bfloat16:
        return 1
    return 2 if integers.wanted() else 0


def _compiled(source: Path) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise OSError("no C compiler found")
    text = "".join(path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h"))))
    identity = f"{text} {FLAGS} {compiler} {_processor()} {torch.__file__}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llie"
    target = folder / f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # Processes that start together each compile a copy and rename it into place, so the file is always complete.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        compiled, made = Path(scratch) / "object.o", Path(scratch) / target.name
        _run([*compiler.split(), *FLAGS, "-c", "-o", str(compiled), str(source)])
        _run([*compiler.split(), "-shared", "-o", str(made), str(compiled)])
        try:  # without an OpenMP of its own it shares PyTorch's threads; two pools would compete for the cores
            ctypes.CDLL(str(made))
        except OSError:
            _run([*compiler.split(), "-shared", "-fopenmp", "-o", str(made), str(compiled)])
        made.replace(target)
    return target


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from error
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")


def _processor() -> str:
    """The facts that -march=native depends on, because different machines may share a cache folder."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = info.read_text(encoding="utf-8").splitlines()
    return " ".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )
