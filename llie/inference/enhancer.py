"""A trained network as a function on images: arrays or tensors in, the same kind, type and size out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from llie.archs import card_of, check_controls, create_network
from llie.engine import allocator
from llie.errors import UserError
from llie.ops.fusion import fuse
from llie.registry import ARCH_REGISTRY
from llie.weights import find_weights, identify, load_weights, read_checkpoint, resolve_checkpoint, state_dict_of

Image = TypeVar("Image", np.ndarray, Tensor)

_WHITE = {torch.uint8: 255, torch.uint16: 65535}
_ARRAY_TYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64)


class Enhancer:
    """Brightens images of any size with a trained network.

    Args:
        network: a registered network or any module that maps (B, 3, H, W) in [0, 1] to the same.
        device: where it runs; a GPU if there is one when None.
        controls: arguments of the network's `forward` beside the image, for instance `alpha_s` of the HVI family.

    Raises:
        UserError: the device is absent, or the network has no such control.

    Example:
        >>> enhance = Enhancer(torch.nn.Identity(), device="cpu")
        >>> enhance(np.zeros((5, 7, 3), np.uint8)).shape
        (5, 7, 3)
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device | None = None,
        controls: Mapping[str, float | Sequence[int]] | None = None,
    ):
        self.device = pick_device(device)
        self.network = fuse(network.to(self.device).eval())
        self.controls = dict(controls or {})
        check_controls(network, self.controls)

    def __call__(self, image: Image) -> Image:
        """Enhance one image or a batch.

        Args:
            image: array (H, W, 3), RGB; or tensor (3, H, W) or (B, 3, H, W). Integers span their type's range
                (uint8, uint16), floats lie in [0, 1].

        Returns:
            The same kind, type, size and device; integers rounded, everything clipped to its range.

        Raises:
            UserError: it is no RGB image, or its values are out of range.
        """
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3:
                raise UserError(f"an image is an array (height, width, 3); this one has the shape {image.shape}")
            if image.dtype.type not in _ARRAY_TYPES:
                raise UserError(f"an image is uint8, uint16 or float; this one is {image.dtype}")
            tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return np.ascontiguousarray(self._run(tensor[None])[0].permute(1, 2, 0).numpy())
        if not isinstance(image, Tensor) or image.ndim not in (3, 4) or image.shape[-3] != 3:
            what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise UserError(f"an image is an array (H, W, 3), a tensor (3, H, W) or (B, 3, H, W); this is {what}")
        return self._run(image if image.ndim == 4 else image[None]).reshape(image.shape)

    def _run(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) of any type -> the same type, on the same device."""
        if image.numel() == 0:
            raise UserError(f"the image is empty (shape {tuple(image.shape)})")
        if not image.is_floating_point() and image.dtype not in _WHITE:
            raise UserError(f"an image is uint8, uint16 or float; this one is {image.dtype}")
        white = _WHITE.get(image.dtype, 1)
        x = image.float() / white
        low, high = (value.item() for value in x.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails
            raise UserError(
                f"float images lie in [0, 1]; this one spans {low:.4g} to {high:.4g} (divide it by 255, or give uint8)"
            )
        allocator.suit(pixels=x.numel() // 3)
        with torch.inference_mode():
            output = self.network(x.to(self.device), **self.controls)
            if not output.isfinite().all():
                raise UserError(f"{type(self.network).__name__} gave values that are not finite for this image")
            output = output.clamp(0, 1).to(image.device)
            return ((output * white).round() if white > 1 else output).to(image.dtype)


def load(
    model: str | Path,
    device: str | torch.device | None = None,
    network: str | None = None,
    **controls: float | Sequence[int],
) -> Enhancer:
    """A trained network, ready to use on images.

    Args:
        model: checkpoint file, run folder, name of a run, `hf:OWNER/REPO`, or the name of a network or preset
            ("hvi-smm"), whose weights are then looked for as `hvi-smm.safetensors` or `.pth` in `$LLIE_WEIGHTS`.
        device: "cpu", "cuda", "cuda:1" ...; a GPU if there is one when None.
        network: name of the network, where the checkpoint does not tell.
        **controls: test-time controls of the network (`alpha_s`, `alpha_i`, `alpha_rgb` for the HVI family, `size` for
            SNR-Aware and LFPV).

    Raises:
        UserError: there are no such weights, or they do not fit; the message says what to do.

    Example:
        >>> enhance = llie.load("experiments/demo")                             # doctest: +SKIP
        >>> brighter = enhance(image)       # numpy (H, W, 3) in, the same out    # doctest: +SKIP
    """
    text = str(model)
    named = network_names().get(_fold(text))
    if named is not None and not Path(text).exists():
        path, network = _weights_of(text), network or named
    else:
        path = resolve_checkpoint(text)
    checkpoint = read_checkpoint(path)
    built = _network_of(checkpoint, network, path)
    return Enhancer(load_weights(built, checkpoint, need=card_of(built).parts), device, controls)


def network_names() -> dict[str, str]:
    """What users may call the networks and presets (in any case, with or without dashes) -> registered name."""
    names = {_fold(name): name for name, _ in ARCH_REGISTRY}
    presets = {_fold(preset): preset for _, network in ARCH_REGISTRY for preset in card_of(network).presets}
    return presets | names


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, checked; a GPU if there is one when None."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise UserError(f"no device {device!r}; it is cpu, cuda, or cuda:NUMBER") from None
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise UserError(f"no GPU {device}: this machine shows {torch.cuda.device_count()}; use the device cpu")
    return picked


def _network_of(checkpoint: Mapping[str, Any], network: str | None, path: Path) -> nn.Module:
    """Build the network that the weights are of, with the arguments it was trained with.

    A checkpoint of llie's own holds the options of its run; others are recognised by the names and shapes of their
    tensors.
    """
    trained = (checkpoint.get("options") or {}).get("network_g")
    if trained is not None and network in (None, trained["type"]):
        return create_network(trained["type"], **{key: value for key, value in trained.items() if key != "type"})
    found = identify(state_dict_of(checkpoint))
    if network is not None and (found is None or network != found[0]):
        return create_network(network_names().get(_fold(network), network))
    if found is None:
        raise UserError(f"{path} looks like no registered network; say which one it is of (--network NAME)")
    return create_network(found[0], **found[1])


def _weights_of(name: str) -> Path:
    for candidate in (f"{name}.safetensors", f"{name}.pth"):
        path = find_weights(candidate)
        if path is not None:
            return path
    raise UserError(
        f"no weights of {name} on this machine: put {name}.safetensors or {name}.pth into the folder that "
        "LLIE_WEIGHTS names, or give a checkpoint file, a run folder, or hf:OWNER/REPO "
        "(for instance hf:Fediory/HVI-CIDNet-LOLv1-wperc)"
    )


def _fold(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
