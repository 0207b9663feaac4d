"""Reading checkpoint files without running code from them; unusable files are reported by name."""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from llie.errors import UserError, suggest

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def _numpy_number(module: str) -> Callable[..., Any]:
    """A replacement for NumPy's constructor of scalars; `module` is its module in NumPy 1 or 2."""

    def scalar(kind: np.dtype, data: bytes) -> Any:
        return np.frombuffer(data, kind)[0].item()

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# Many trainers save NumPy numbers with the weights (the step, the best PSNR). Read as plain numbers, they run no code.
torch.serialization.add_safe_globals(
    [
        *map(_numpy_number, ("numpy.core.multiarray", "numpy._core.multiarray")),
        np.dtype,
        *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
        codecs.encode,  # of bytes in old pickles; torch allows it since 2.5
    ]
)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file (safetensors, or anything `torch.save` wrote) without running code from it.

    Raises:
        UserError: the file is missing, a folder, damaged, not a checkpoint, or would run code when loaded.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the checkpoint file in it{listing(path)}")
    if not path.is_file():
        raise UserError(f"no checkpoint {path}{listing(path.parent)}{suggest(path.name, checkpoints_in(path.parent))}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
            _refuse_impostors(path, start.lstrip())
            # The ending is often wrong, so the content decides: a safetensors header begins with its length.
            if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith(b"PK")):
                return dict(load_file(path))
            file.seek(0)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_unsafe(path, str(error), start)) from None
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint {path} ({path.stat().st_size} bytes) is damaged or incomplete; "
            f"copy or download it again ({detail})"
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} contains a {type(checkpoint).__name__}, not a dictionary of weights")
    return dict(checkpoint)


def _refuse_impostors(path: Path, start: bytes) -> None:
    if not start:
        raise UserError(f"the checkpoint {path} is empty")
    if start.startswith(b"<"):
        raise UserError(
            f"{path} is a web page, not weights: the download returned a confirmation or error page instead of "
            "the file; open the link in a browser and save the file"
        )
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-lfs pointer, not weights; fetch the file with: git lfs pull")
    if "constants.pkl" in _members(path, start):  # torch.load does not read it with weights_only=True
        raise UserError(
            f"{path} is a TorchScript archive, a whole network that torch.jit has compiled. If you trust its "
            "source, extract its tensors once, in Python: import torch; "
            f"m = torch.jit.load({str(path)!r}, map_location='cpu'); torch.save(m.state_dict(), 'clean.pth')"
        )


def _members(path: Path, start: bytes) -> dict[str, str]:
    """The members of a zip archive as `{name below its top folder: full name}`; empty for other files."""
    if not start.startswith(b"PK"):
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2]: name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return {}  # PyTorch reports the problem


def _is_whole_object(path: Path, start: bytes) -> bool:
    """Whether a file of torch.save contains an object, such as a network, instead of a dictionary."""
    try:
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read(_members(path, start)["data.pkl"]))
        else:  # before PyTorch 1.6; three pickles come first: a magic number, the version, facts about the machine
            content = io.BytesIO(path.read_bytes())
            for _ in range(3):
                list(pickletools.genops(content))
        codes = ((code.name, argument) for code, argument, _ in pickletools.genops(content))
        name, argument = next((name, argument) for name, argument in codes if name not in ("PROTO", "FRAME"))
    except (ValueError, KeyError, zipfile.BadZipFile):  # not written by torch.save
        return False
    return name != "EMPTY_DICT" and not str(argument).startswith("collections")


def _unsafe(path: Path, error: str, start: bytes) -> str:
    culprit = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", error)
    if culprit is None:
        return f"{path} is damaged, or was not written by torch.save; copy or download it again"
    name = culprit[1] or culprit[2]
    whole = _is_whole_object(path, start)
    what, place = (
        ("is a whole", ", from the folder of the code that defines it") if whole else ("contains an object of", "")
    )
    # The user may decide to load it without llie; this line is only shown.
    return (
        f"{path} {what} {name}, which could run code when loaded, so it is not loaded. If you trust its "
        f"source, extract its tensors once, in Python{place}: import torch; "
        f"c = torch.load({str(path)!r}, map_location='cpu', weights_only=False); {_KEEP[whole]}"
    )


_KEEP = {
    True: "torch.save(c.state_dict(), 'clean.pth')",
    False: "t = lambda v: isinstance(v, torch.Tensor) or isinstance(v, dict) and all(map(t, v.values())); "
    "torch.save({k: v for k, v in c.items() if t(v)}, 'clean.pth')",
}


def checkpoints_in(folder: Path) -> list[str]:
    """Names of the checkpoint files in a folder, sorted."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES) if folder.is_dir() else []


def listing(folder: Path) -> str:
    """The end of an error message: the checkpoint files in a folder, or an empty string."""
    names = checkpoints_in(folder)
    return f" (it contains {first(names)})" if names else ""


def first(names: list[str], count: int = 3) -> str:
    """The first names of a list, as text."""
    return ", ".join(map(str, names[:count])) + (", ..." if len(names) > count else "")
