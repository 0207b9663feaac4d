"""Weights of a network: found, read safely, recognised, and fitted to the network's own key names."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from llie.archs.card import card_of
from llie.errors import UserError, suggest
from llie.registry import ARCH_REGISTRY

Network = TypeVar("Network", bound=nn.Module)
State = dict[str, Tensor]
Source = str | Path | Mapping[str, Any]

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_CONTAINERS = ("params_ema", "params", "model_state_dict", "state_dict", "model", "net", "network")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def _numpy_number(module: str) -> Callable[..., Any]:
    """Stands for NumPy's constructor of scalars in files; `module` is where NumPy 1 or 2 has it."""

    def scalar(kind: np.dtype, data: bytes) -> Any:
        return np.frombuffer(data, kind)[0].item()

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# Many trainers save NumPy numbers beside the weights (the step, the best PSNR). Read as plain numbers they run no code.
torch.serialization.add_safe_globals(
    [
        *map(_numpy_number, ("numpy.core.multiarray", "numpy._core.multiarray")),
        np.dtype,
        *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    ]
)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file (safetensors, or anything `torch.save` wrote) without running code from it.

    Raises:
        UserError: the file is missing, a folder, damaged, no checkpoint at all, or would run code when loaded.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the checkpoint file in it{_listing(path)}")
    if not path.is_file():
        raise UserError(f"no checkpoint {path}{_listing(path.parent)}{suggest(path.name, _checkpoints(path.parent))}")
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip()
        _refuse_impostors(path, start)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_unsafe(path, str(error))) from None
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint {path} ({path.stat().st_size} bytes) is damaged or cut short; "
            f"copy or download it again ({detail})"
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return dict(checkpoint)


def state_dict_of(checkpoint: Mapping[str, Any], prefer: str = "params_ema") -> State:
    """The network's tensors in a checkpoint, whatever it is wrapped in.

    Understood: a bare state dict; BasicSR's `params_ema` and `params`; `model_state_dict`, `state_dict` and the like;
    the prefixes that `DataParallel`, `AveragedModel` (`module.`) and `torch.compile` (`_orig_mod.`) add.

    Args:
        checkpoint: what `read_checkpoint` returned.
        prefer: the entry to take when there are several.

    Raises:
        UserError: it holds no weights; the message lists what it holds.
    """
    for name in (prefer, *_CONTAINERS):
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and inner:
            checkpoint = inner
            break
    state = {str(key).replace("_orig_mod.", ""): value for key, value in checkpoint.items()}
    if any(key.startswith("module.") for key in state):
        state.pop("n_averaged", None)
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        kind = "a training state (give the net_g_*.pth beside it)" if "optimizers" in checkpoint else "a checkpoint"
        raise UserError(f"this is {kind} without weights of a network; it holds {_first(list(checkpoint), 8)}")
    return state


def load_weights(
    network: Network,
    source: Source | Sequence[Source],
    prefer: str = "params_ema",
    strict: bool = True,
    need: Iterable[str] = (),
) -> Network:
    """Load weights into a network: our own layout, BasicSR's, the official repositories', wrapped or bare.

    Args:
        network: what to load into; changed in place.
        source: file, run folder, `hf:` name (see `resolve_checkpoint`), or a checkpoint already read. A network whose
            card names parts may be given a list, each of which holds one part or several.
        prefer: `params_ema` or `params`, where the checkpoint holds both.
        strict: every tensor must fit; otherwise those that fit are loaded and the others keep their values.
        need: parts of the network that must not keep their values.

    Returns:
        The same network.

    Raises:
        UserError: the weights do not fit; the message counts what is missing, unexpected or of another shape, and
            says which registered network the checkpoint looks like. Or none of them holds a part that is needed.
    """
    sources = [source] if isinstance(source, str | Path | Mapping) else source
    filled = {part for each in sources for part in _load(network, each, prefer, strict)}
    missing = [part for part in need if part not in filled]
    if missing:
        raise UserError(
            f"{type(network).__name__} needs weights of its part {' and '.join(missing)}, but "
            + (f"what is given holds only {', '.join(sorted(filled))}" if filled else "no weights are given")
            + "; name the checkpoint that holds them, or a list of several checkpoints in an option file"
        )
    return network


def _load(network: nn.Module, source: Source, prefer: str, strict: bool) -> set[str]:
    """One source of `load_weights`; returns the parts that it holds."""
    where = "the state dict"
    if not isinstance(source, Mapping):
        path = resolve_checkpoint(str(source))
        where, source = f"the checkpoint {path}", read_checkpoint(path)
    own = network.state_dict()
    given = state = state_dict_of(source, prefer)
    if state.keys() != own.keys():
        state = card_of(network).official_keys(state)
    parts = {key.split(".")[0] for key in state}.intersection(card_of(network).parts)
    if parts:
        own = {key: value for key, value in own.items() if key.split(".")[0] in parts}
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    if not fits or (strict and len(fits) != max(len(own), len(state))):
        raise UserError(
            f"{where} does not fit {type(network).__name__}: {_difference(own, state)}. {_looks_like(given)}"
        )
    network.load_state_dict(fits, strict=False)
    return parts


def identify(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """Which registered network a state dict belongs to: `(name, constructor arguments)`, or None."""
    for name, network in ARCH_REGISTRY:
        card = card_of(network)
        arguments = card.detect(card.official_keys(state))
        if arguments is not None:
            return name, arguments
    return None


def resolve_checkpoint(text: str) -> Path:
    """The checkpoint file that the user means.

    Args:
        text: a file; a run folder, or the name of a run under `experiments/` (its best weights, else its latest);
            or `hf:OWNER/REPO[/FILE]`, which asks the Hugging Face hub, and is the only form that uses the network.
    """
    if text.startswith("hf:"):
        return _from_hub(text)
    path = Path(text).expanduser()
    homes = (Path.cwd(), Path(__file__).resolve().parents[1])  # training writes to the second
    for place in (home / folder / path for folder in ("", "experiments") for home in homes):
        if place.is_file():
            return place
        if place.is_dir():
            return _newest(place)
    raise UserError(
        f"no checkpoint {text!r}: neither a file, nor a run folder, nor a run under experiments/; "
        f"train it first, or name a checkpoint that you have.{suggest(path.name, _checkpoints(path.parent))}"
    )


def find_weights(filename: str, option: str | Path | None = None) -> Path | None:
    """A weight file that some tool needs (VGG19, AlexNet ...), looked up where such files usually lie.

    Args:
        filename: for instance `vgg19-dcbb9e9d.pth`.
        option: where an option file says it is: the file, or a folder that holds it.

    Returns:
        The first that exists of: `option`, the folder `$LLIE_WEIGHTS`, torch hub's cache; or None.

    Raises:
        UserError: `option` is given and there is nothing there.
    """
    if option is not None:
        path = Path(option).expanduser()
        path = path / filename if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"no weights {path}: the option that names them must give {filename} or its folder")
        return path
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if os.environ.get("LLIE_WEIGHTS"):
        folders.insert(0, Path(os.environ["LLIE_WEIGHTS"]).expanduser())
    return next((folder / filename for folder in folders if (folder / filename).is_file()), None)


def _newest(folder: Path) -> Path:
    """The best, else the latest, else the highest numbered network of a run folder."""

    def rank(path: Path) -> tuple[int, int]:
        number = re.search(r"_(\d+)$", path.stem)
        return ("latest" in path.stem) + 2 * ("best" in path.stem), int(number[1]) if number else -1

    found = [path for place in (folder / "models", folder) for path in place.glob("net_g_*.pth")]
    if not found:
        raise UserError(f"{folder} holds no networks (net_g_*.pth, in it or in its models/){_listing(folder)}")
    return max(found, key=rank)


def _from_hub(text: str) -> Path:
    owner, repository, *inside = [*text.removeprefix("hf:").split("/"), ""]
    filename = "/".join(inside).strip("/")
    if not owner or not repository:
        raise UserError(f"{text!r} names no repository; write hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(f"{text} needs the package huggingface_hub: pip install 'llie[hub]'") from None
    for name in (filename,) if filename else _HUB_FILES:
        try:
            return Path(hf_hub_download(f"{owner}/{repository}", name))
        except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, but here the hub was not reached
            raise UserError(f"cannot fetch {name} of {text}: not in the local cache, and no connection") from None
        except EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors, malformed names ValueErrors
            raise UserError(f"cannot fetch {name} of {text}: {str(error).splitlines()[0]}") from None
    raise UserError(f"{text} holds no {filename or ' or '.join(_HUB_FILES)}; name the file: hf:OWNER/REPO/FILE")


def _refuse_impostors(path: Path, start: bytes) -> None:
    if not start:
        raise UserError(f"the checkpoint {path} is empty")
    if start.startswith(b"<"):
        raise UserError(
            f"{path} is a web page, not weights: the download gave a page of confirmation or of error instead of the "
            "file; open the link in a browser and save the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-lfs pointer, not weights; fetch the file itself with: git lfs pull")


def _unsafe(path: Path, error: str) -> str:
    culprit = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", error)
    if culprit is None:
        return f"{path} is no checkpoint that torch.save wrote, or it is damaged; copy or download it again"
    name = culprit[1] or culprit[2]
    # Loading it is the user's own decision, made outside of llie: the line below is shown, never run.
    return (
        f"{path} holds an object of {name}, which could run code when it is loaded, so it is refused. If you trust "
        "where it comes from, keep only its tensors once, in Python: "
        f"c = torch.load({str(path)!r}, weights_only=False); torch.save(c['state_dict'], 'clean.pth')  "
        "(print(c.keys()) shows what it holds)"
    )


def _difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What does not fit, counted, with the first names of each kind."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} ({tuple(state[key].shape)} in the checkpoint, {tuple(own[key].shape)} in the network)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    return "; ".join(f"{len(keys)} of {len(own)} tensors {kind}: {_first(keys)}" for keys, kind in kinds if keys)


def _looks_like(state: Mapping[str, Tensor]) -> str:
    found = identify(state)
    if found is None:
        return "It looks like no registered network"
    name, arguments = found
    return f"It looks like {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(map(str, names[:count])) + (", ..." if len(names) > count else "")


def _checkpoints(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES) if folder.is_dir() else []


def _listing(folder: Path) -> str:
    names = _checkpoints(folder)
    return f" (it holds {_first(names)})" if names else ""
