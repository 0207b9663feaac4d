"""From a name or a file to an `Enhancer`: which weights a name means, and which network weights belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llie.archs import card_of, create_network, needs_weights
from llie.errors import UserError
from llie.inference.enhancer import Enhancer
from llie.registry import ARCH_REGISTRY
from llie.weights import find_weights, identify, load_weights, read_checkpoint, resolve_checkpoint, state_dict_of

SHIPPED = "dawn"  # the default network
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"


def load(
    model: str | Path | None = None,
    device: str | torch.device | None = None,
    network: str | None = None,
    strength: float = 1.0,
    exposure: float = 0.0,
    memory: str | float | None = None,
    provider: str | None = None,
    fast: bool = False,
    **controls: Any,  # numbers or sequences of integers
) -> Enhancer:
    """A trained network, ready to use on images.

    Args:
        model: checkpoint file, run folder, name of a run, `hf:OWNER/REPO`, or the name of a network or preset
            ("hvi-smm"), whose weights are searched as `hvi-smm.safetensors` or `.pth` in `$LLIE_WEIGHTS` and among
            those that ship with llie; a network without parameters ("clahe") needs none; or an exported file, `.onnx`
            or `.pt2`. None: the network that ships with llie, `dawn`.
        device: "cpu", "cuda", "cuda:1" ...; None: a GPU if there is one.
        network: name of the network, if the checkpoint is not recognised.
        strength: 0 (the image as it is) to 1, see `Enhancer`.
        exposure: change of exposure in EV, see `Enhancer`.
        memory: memory limit for one image, see `Enhancer`.
        provider: what runs an `.onnx` file, "cpu", "cuda", "coreml" ...; None: the first choice of onnxruntime.
        fast: compute with fewer digits where that pays, see `Enhancer`.
        **controls: test-time controls of the network (`alpha_s`, `alpha_i`, `alpha_rgb` for the HVI family, `size` for
            SNR-Aware and LFPV, `denoise` for Dawn).

    Raises:
        UserError: the weights are missing or do not fit; the message says what to do.

    Example:
        >>> enhance = llie.load()                                               # doctest: +SKIP
        >>> brighter = enhance(image)       # numpy (H, W, 3) in, the same out    # doctest: +SKIP
    """
    text = SHIPPED if model is None else str(model)
    named = network_names().get(_fold(text))
    path: Path | None
    if named is not None and not Path(text).exists():
        path, network = _weights_of(text), network or named
    else:
        path = resolve_checkpoint(text)
    if fast and path is not None and path.suffix in (".onnx", ".pt2"):
        raise UserError(f"fast: {text} computes in the precision that it was exported with; leave fast out")
    if path is not None and path.suffix == ".onnx":
        from llie.export.runtime import OnnxNetwork, provider_for  # onnxruntime is an extra

        runs = OnnxNetwork(path, provider or provider_for(device))
        return Enhancer(runs, "cpu", controls, strength, exposure, memory)  # onnxruntime moves images by itself
    if path is not None and path.suffix == ".pt2":
        from llie.export.program import ProgramNetwork  # takes a second to import

        if device is not None and torch.device(device).type != "cpu":
            raise UserError(f"{text} was made for the CPU; use the device cpu, or an .onnx file with --provider")
        return Enhancer(ProgramNetwork(path), "cpu", controls, strength, exposure, memory)
    if provider is not None:
        raise UserError(f"provider: {text} runs with PyTorch, on the device named; only .onnx files have a provider")
    if path is None:
        built = _without_weights(text, str(network))
    else:
        checkpoint = read_checkpoint(path)
        built = _network_of(checkpoint, network, path)
        load_weights(built, checkpoint, need=card_of(built).parts)
    return Enhancer(built, device, controls, strength, exposure, memory, fast)


def network_names() -> dict[str, str]:
    """Users' names of networks and presets (in lower case, without dashes) -> registered name."""
    names = {_fold(name): name for name, _ in ARCH_REGISTRY}
    presets = {_fold(preset): preset for _, network in ARCH_REGISTRY for preset in card_of(network).presets}
    return presets | names


def _network_of(checkpoint: Mapping[str, Any], network: str | None, path: Path) -> nn.Module:
    """Build the network that the weights belong to, with the arguments of its training.

    llie's own checkpoints contain the options of their run; others are recognised by the names and shapes of their
    tensors.
    """
    trained = (checkpoint.get("options") or {}).get("network_g")
    if trained is not None and network in (None, trained["type"]):
        return create_network(trained["type"], **{key: value for key, value in trained.items() if key != "type"})
    found = identify(state_dict_of(checkpoint))
    if network is not None and (found is None or network != found[0]):
        return create_network(network_names().get(_fold(network), network))
    if found is None:
        raise UserError(f"{path} was not recognised as a registered network; name the network (--network NAME)")
    return create_network(found[0], **found[1])


def _weights_of(name: str) -> Path | None:
    for candidate in (f"{name}.safetensors", f"{name}.pth"):
        path = find_weights(candidate)
        if path is not None:
            return path
    shipped = PRETRAINED / f"{_fold(name)}.safetensors"
    return shipped if shipped.is_file() else None


def _without_weights(name: str, network: str) -> nn.Module:
    """The network of this name, which must not need weights."""
    built = create_network(network)
    if not needs_weights(built):
        return built
    raise UserError(
        f"no weights for {name} on this machine: put {name}.safetensors or {name}.pth into the folder that "
        "LLIE_WEIGHTS names, or give a checkpoint file, a run folder, or hf:OWNER/REPO "
        "(for instance hf:Fediory/HVI-CIDNet-LOLv1-wperc)"
    )


def _fold(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
