"""Compiles a recorded graph with AOTInductor: a `.pt2` file with machine code for this kind of processor."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from llie.errors import UserError
from llie.export.quiet import quiet
from llie.export.sizes import quickly_simplified

_FACTS = "llie"  # name of our entry in the file's metadata
_MACHINE = "compiled_for"  # the fact that says where the code runs
_CODE = "/data/aotinductor/"  # folder in the archive that only compiled files have


def check_compiler() -> None:
    """Check that AOTInductor and a C++ compiler are installed.

    Raises:
        UserError: one of them is missing.
    """
    from torch import _inductor
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if not hasattr(_inductor, "aoti_compile_and_package") or not hasattr(config.aot_inductor, "metadata"):
        raise UserError(f"--compile needs a later PyTorch than this one ({torch.__version__}); update it")
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        raise UserError(
            "--compile needs a C++ compiler, and none is installed: install g++ (Debian, Ubuntu: apt install g++), "
            "name one in the environment variable CXX, or leave --compile out"
        ) from None


def save(recorded: ExportedProgram, path: Path, facts: Mapping[str, str]) -> None:
    """Compile the graph, and write the machine code with facts as its metadata.

    Args:
        recorded: the graph.
        path: ends in .pt2.
        facts: from `facts_of`; the kind of processor is added.

    Raises:
        UserError: the graph cannot be compiled.
    """
    from torch._inductor import aoti_compile_and_package

    settings = {
        "aot_inductor.metadata": {_FACTS: json.dumps({**facts, _MACHINE: _machine()})},
        "aot_inductor.compile_wrapper_opt_level": "O0",  # the code around the kernels, which takes long to compile
        "cpp.dynamic_threads": True,  # as many as there are where it runs
        "cpp_cache_precompile_headers": False,  # would leave 300 MB in the temporary folder
    }
    try:
        with quiet(), quickly_simplified(), torch.no_grad():
            aoti_compile_and_package(recorded, package_path=str(path), inductor_configs=settings)
    except OSError:
        raise
    except Exception as error:  # the compiler passes on errors of all kinds
        raise UserError(f"{facts['network']} cannot be compiled: {_reason(error)}") from error


def is_compiled(path: Path) -> bool:
    """Whether a `.pt2` file contains machine code, rather than a recorded graph."""
    with zipfile.ZipFile(path) as archive:
        return any(_CODE in f"/{name}" for name in archive.namelist())


def load(path: Path) -> tuple[Callable[..., Any], dict[str, str]]:
    """The function in a file of `save`, and the facts about it.

    Raises:
        UserError: it was compiled for another kind of processor or another system.
    """
    from torch._inductor import aoti_load_package

    with quiet():
        function = aoti_load_package(str(path))
    facts: dict[str, str] = json.loads(function.get_metadata()[_FACTS])
    if facts[_MACHINE] != _machine():
        raise UserError(f"{path} was compiled for {facts[_MACHINE]}, and this is {_machine()}; export it again here")
    return function, facts


def _machine() -> str:
    """What machine code depends on: system, kind of processor, vector instructions."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _reason(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
