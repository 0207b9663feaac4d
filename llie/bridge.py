"""The only module that imports BasicSR: option files can name its classes, and its own files can name our networks.

BasicSR is optional. It is imported only when our own registries do not have a name.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from llie.errors import UserError, suggest
from llie.registry import ARCH_REGISTRY, REGISTRIES, Fallback
from llie.registry.plugins import preparations

_PREFIX = "basicsr/"
_LOST_MODULE = "torchvision.transforms.functional_tensor"
_THEIR_REGISTRIES = {
    "network": "ARCH_REGISTRY",
    "discriminator": "ARCH_REGISTRY",
    "loss": "LOSS_REGISTRY",
    "metric": "METRIC_REGISTRY",
    "dataset": "DATASET_REGISTRY",
}


def prepare() -> None:
    """Make `import basicsr` possible, although it imports a module that torchvision removed in version 0.17."""
    if _LOST_MODULE not in sys.modules:
        stub = types.ModuleType(_LOST_MODULE)
        stub.__dict__["rgb_to_grayscale"] = _rgb_to_grayscale  # all that BasicSR imports from it
        sys.modules[_LOST_MODULE] = stub


def basicsr() -> types.ModuleType:
    """The imported `basicsr` package.

    Raises:
        UserError: it is missing or broken; the message says how to install it, or why that is not possible.
    """
    if importlib.util.find_spec("basicsr") is None:
        if sys.version_info >= (3, 13):
            raise UserError(
                "BasicSR is not installed, and its source package does not install on Python 3.13 or newer; "
                "use Python 3.12 for the classes of BasicSR"
            )
        raise UserError("BasicSR is not installed: pip install --no-build-isolation --no-deps basicsr==1.4.2")
    prepare()
    with warnings.catch_warnings():
        # BasicSR's NIQE imports a name that SciPy 2 will remove; our requirements keep SciPy below 2.
        warnings.filterwarnings("ignore", message=r".*scipy\.ndimage\.filters.*", category=DeprecationWarning)
        try:
            return importlib.import_module("basicsr")
        except ImportError as error:
            raise UserError(f"BasicSR is installed, but cannot be imported: {error}") from error


def find(kind: str, name: str) -> Any:
    """The class or function that BasicSR registers as `name` or `basicsr/name`, with our interface.

    Args:
        kind: "network", "discriminator", "loss", "metric" or "dataset"; BasicSR's models cannot be used.
        name: with or without the prefix `basicsr/`.

    Returns:
        The class or function; None for a name without prefix if BasicSR does not have it or is not installed.

    Raises:
        UserError: a name with prefix is not available.
    """
    plain = name.removeprefix(_PREFIX)
    try:
        entries = _entries(kind)
        found = entries.get(plain, entries.get(f"{plain}_basicsr"))
        if found is None:
            raise UserError(f"BasicSR has no {kind} called {plain!r}.{suggest(plain, entries)}")
    except UserError:
        if plain != name:
            raise
        return None  # the registry reports unknown plain names
    return _ADAPTERS.get(kind, lambda entry: entry)(found)


def names(kind: str) -> list[str]:
    """All names of this kind in BasicSR; empty if it is not installed."""
    try:
        return sorted(_entries(kind))
    except UserError:
        return []


def export_to_basicsr() -> list[str]:
    """Register all our networks in BasicSR, so that its trainer can use them.

    The exported networks return only the enhanced image, in training too.

    Returns:
        The names that this call registered; names that BasicSR already has are skipped.
    """
    theirs = _their_registry("network")
    exported = []
    for name, network in ARCH_REGISTRY:
        if name not in theirs:
            theirs.register(type(name, (network,), {"forward": _result_only(network.forward)}))
            exported.append(name)
    return exported


def _their_registry(kind: str) -> Any:
    basicsr()
    return getattr(importlib.import_module("basicsr.utils.registry"), _THEIR_REGISTRIES[kind])


def _entries(kind: str) -> dict[str, Any]:
    if kind not in _THEIR_REGISTRIES:
        raise UserError(f"BasicSR cannot provide a {kind}")
    return dict(iter(_their_registry(kind)))


def _rgb_to_grayscale(*arguments: Any, **named: Any) -> Any:
    from torchvision.transforms.functional import rgb_to_grayscale

    return rgb_to_grayscale(*arguments, **named)


def _result_only(forward: Callable[..., Any]) -> Callable[..., Any]:
    def result(self: Any, x: Any) -> Any:
        outputs = forward(self, x)
        return outputs["out"] if isinstance(outputs, dict) else outputs

    return result


def _metric_as_ours(function: Callable[..., Any]) -> Callable[..., float]:
    """BasicSR's `f(img, img2, crop_border, ...)` as our `f(pred, gt, protocol, crop_border, ...)`."""
    from llie.metrics.metric import mean_over_images, mean_over_pairs

    theirs = dict(inspect.signature(function).parameters)
    needs_reference = "img2" in theirs
    mean: Callable[..., float] = mean_over_pairs if needs_reference else mean_over_images
    convert = _unit_tensor if function.__name__.endswith("_pt") else _bgr8

    def metric(*images_and_protocol: Any, **arguments: Any) -> float:
        *images, protocol = images_and_protocol
        if "crop_border" in theirs:
            arguments.setdefault("crop_border", 0)
        return mean(lambda *pixels: float(function(*map(convert, pixels), **arguments)), *images, protocol)

    # BasicSR's **kwargs would accept every misspelt argument.
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = [inspect.Parameter(name, named[0]) for name in ("pred", *(["gt"] if needs_reference else []), "protocol")]
    optional = [
        p.replace(kind=named[1], default=0 if name == "crop_border" else p.default)
        for name, p in theirs.items()
        if p.kind in named and name not in ("img", "img2")
    ]
    vars(metric).update(
        __name__=function.__name__, __signature__=inspect.Signature([*own, *optional]), needs_reference=needs_reference
    )
    return metric


def _bgr8(pixels: Any) -> Any:
    """(H, W, 3) RGB in 0..255 as BasicSR's metrics expect it."""
    return pixels.round().astype("uint8")[..., ::-1]


def _unit_tensor(pixels: Any) -> Any:
    """(H, W, 3) in 0..255 -> (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(pixels / 255).permute(2, 0, 1)[None]


def _dataset_as_ours(dataset: type) -> type:
    """A data set of BasicSR, which takes one dictionary, with our interface; our seeds determine its augmentation."""
    import random

    import torch.utils.data

    class Adapted(torch.utils.data.Dataset):
        def __init__(self, phase: str = "train", seed: int = 0, **options: Any):
            phase = "train" if phase == "train" else "val"
            self.theirs = dataset({"scale": 1, "io_backend": {"type": "disk"}, **options, "phase": phase})
            self.seed = seed

        def __len__(self) -> int:
            return len(self.theirs)

        def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
            epoch, index = key if isinstance(key, tuple) else (0, key)
            random.seed(f"{self.seed} {epoch} {index}")  # BasicSR's crops and flips use this generator
            return self.theirs[index]

        def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, dict[str, Any]]]:
            return _unpickled_dataset, (dataset, self.__dict__)  # pickle cannot find this local class by name

    Adapted.__name__ = dataset.__name__
    return Adapted


def _unpickled_dataset(dataset: type, attributes: dict[str, Any]) -> Any:
    adapted = _dataset_as_ours(dataset)
    made: Any = object.__new__(adapted)
    vars(made).update(attributes)
    return made


_ADAPTERS: dict[str, Callable[[Any], Any]] = {"metric": _metric_as_ours, "dataset": _dataset_as_ours}

for _registry in REGISTRIES:
    _registry.fallbacks.append(Fallback(partial(find, _registry.name), partial(names, _registry.name)))
preparations.append(prepare)  # plugins may import BasicSR
