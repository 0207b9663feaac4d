"""LFPV: learnable feature patches and vectors, a plug-in that gives any network banks of common features.

Xu et al., "Learnable Feature Patches and Vectors for Boosting Low-light Image Enhancement without External Knowledge",
ICCV 2025. The network, here called the host, runs twice in training: unchanged, and with one of its features enriched
by the banks (`feature_banks.py`). Both results are supervised, so the banks learn what the host alone does not fit.
At test time only the enriched host runs, and its banks are constants.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llie.archs.card import Card, blocks_of, card_of
from llie.archs.feature_banks import FeatureBanks
from llie.archs.snr_aware import SNRAware
from llie.errors import UserError, suggest
from llie.ops.padding import any_size, at_size
from llie.registry import ARCH_REGISTRY, build

LISTED = 40  # features named in an error message

# Official names -> ours, by the part before the first dot. Official vectors have no height and width.
_BANK_NAMES = {
    "embedding": "identity",
    "common_feature": "vectors.features",
    "norm_query1": "vectors.query_norm",
    "norm_query2": "vectors.key_norm",
    "update_feature": "vectors.sample_updater",
    "norm_feature": "vectors.sample_norm",
    "propagate": "vectors.mutual_updater",
    "norm_feature2": "vectors.mutual_norm",
    "common_feature_patch": "patches.features",
    "norm_query3": "patches.query_norm",
    "norm_query4": "patches.key_norm",
    "update_feature_patch": "patches.sample_updater",
    "norm_patch": "patches.sample_norm",
    "propagate_patch": "patches.mutual_updater",
    "norm_patch2": "patches.mutual_norm",
}
_FLAT = ("common_feature", "norm_feature", "norm_feature2")


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys of an official checkpoint, where host and banks are on one level, in our names."""
    if "common_feature" not in state:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        part, dot, rest = key.partition(".")
        if part in _BANK_NAMES:
            renamed[f"banks.{_BANK_NAMES[part]}{dot}{rest}"] = value[..., None, None] if part in _FLAT else value
        else:
            renamed[f"host.{key}"] = value
    return renamed


def _detect(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Arguments of LFPV on SNR-Aware; those of other hosts are in the options that our checkpoints contain."""
    host = {key.removeprefix("host."): value for key, value in state.items() if key.startswith("host.")}
    arguments = SNRAware.card.detect(host) if "banks.patches.features" in state else None
    if arguments is None:
        return None
    slots, _, patch, _ = state["banks.patches.features"].shape
    prefix = "banks.vectors.sample_updater."
    convs = [value for key, value in state.items() if key.startswith(prefix) and value.ndim == 4]
    updaters = {"hidden_width": len(convs[0]), "hidden_layers": len(convs) - 2} if convs else {"updaters": False}
    return {**arguments, "slots": slots, "patch": patch, **updaters}


@ARCH_REGISTRY.register()
class LFPV(nn.Module):
    """A network with banks of common features; the default is the published one, on SNR-Aware.

    In training the output is a dict: "out" is the result with banks, "plain" that without; other outputs of the host
    are in it as "NAME" and "plain/NAME".

    Args:
        nf: of the default host, see `SNRAware`.
        front_blocks: of the default host, see `SNRAware`.
        back_blocks: of the default host, see `SNRAware`.
        layers: of the default host, see `SNRAware`.
        host: another network to plug into, `{type: NAME, **arguments}`, or a network object.
        at: name of the module of the host whose output the banks enrich; it must be a map (B, C, h, w), computed once
            per image. None needs a host with `encode` and `decode`, such as SNR-Aware, and makes training cheaper:
            everything before the feature is computed once.
        slots: number of vectors, and of patches, in the banks.
        patch: side of a patch.
        hidden_width: width of the updaters' layers. None: 4 C as published, but at most 256: with 4 C the updaters have
            1660 C^2 parameters, more than many hosts. At test time they are not needed; the banks have 340 C.
        hidden_layers: number of these layers.
        selection: which features of a training batch the banks learn from. In the paper these are "not fully fitted by
            the network"; the published code takes all. "error", our interpretation: positions drawn in proportion to
            the error of the plain result, images weighted by it, if the batch has references. "none": the same random
            position and the same weight for all images.
        parity: train like the published code, see `FeatureBanks`; implies `selection: none`.
        fit: for sizes that the patches do not divide: "pad" pads the image by reflection and crops the result; "resize"
            works at the next smaller size that fits. None: as published for SNR-Aware.
        updaters: False leaves out everything that only training needs; for checkpoints of `strip`.

    Raises:
        UserError: an unknown host or feature (the message lists the host's), or arguments that do not fit together.
    """

    card = Card(
        paper="Learnable Feature Patches and Vectors for Boosting Low-light Image Enhancement without External "
        "Knowledge, ICCV 2025",
        url="https://github.com/xiaogang00/LFPVS_ICCV",
        size_multiple=16,
        global_statistics=True,
        official_keys=official_keys,
        detect=_detect,
        training_inputs=("gt",),
    )

    def __init__(
        self,
        nf: int | None = None,
        front_blocks: int | None = None,
        back_blocks: int | None = None,
        layers: int | None = None,
        host: Mapping[str, Any] | nn.Module | None = None,
        at: str | None = None,
        slots: int = 16,
        patch: int = 4,
        hidden_width: int | None = None,
        hidden_layers: int = 5,
        selection: str = "error",
        parity: bool = False,
        fit: str | None = None,
        updaters: bool = True,
    ):
        super().__init__()
        for name, value, choices in (
            ("selection", selection, ("error", "none")),
            ("fit", fit, ("pad", "resize", None)),
        ):
            if value not in choices:
                raise UserError(f"LFPV: {name} is {' or '.join(map(repr, choices[:2]))}, not {value!r}")
        sizes = {"nf": nf, "front_blocks": front_blocks, "back_blocks": back_blocks, "layers": layers}
        sizes = {name: size for name, size in sizes.items() if size is not None}
        if host is not None and sizes:
            raise UserError(
                f"LFPV: {', '.join(sizes)}: only for the default host; put the arguments of another host inside host"
            )
        host = {"type": "SNRAware", **sizes} if host is None else host
        self.host: Any = host if isinstance(host, nn.Module) else build(ARCH_REGISTRY, host, "host")
        if not isinstance(host, nn.Module) and card_of(self.host).parts:
            raise UserError(
                f"LFPV: {host['type']} needs weights for its parts first; load them, and pass the module as host"
            )
        self.at = at
        channels, stride = attachment(self.host, at)
        if hidden_width is None:
            hidden_width = min(4 * channels, 256)
        self.banks = FeatureBanks(channels, slots, patch, hidden_width, hidden_layers, parity)
        self.by_error = selection == "error" and not parity
        self.fit = fit or ("resize" if isinstance(self.host, SNRAware) else "pad")
        about_host = card_of(self.host)
        self.multiple = math.lcm(stride * patch, about_host.size_multiple)
        # A block around the feature may not be recomputed: the banks would be updated twice.
        blocks = [f"host.{name}" for name in blocks_of(self.host) if not (at or "").startswith(f"{name}.")]
        self.card = dataclasses.replace(
            self.card,
            size_multiple=self.multiple,
            global_statistics=about_host.global_statistics,
            blocks="|".join(map(re.escape, blocks)),
        )
        if not updaters:
            self.strip()

    def forward(
        self, x: Tensor, size: tuple[int, int] | None = None, gt: Tensor | None = None, **controls: Any
    ) -> Tensor | dict[str, Tensor]:
        """Enhance (B, 3, H, W) in [0, 1], any size.

        Args:
            x: the image.
            size: (height, width) to work at; the image is resized to it, and the result back.
            gt: the reference (B, 3, H, W), for the selection; training only.
            **controls: other arguments of the host, such as SNR-Aware's `snr`.
        """
        if isinstance(self.host, SNRAware):
            controls["snr"] = self.host.snr(x, controls.get("snr"))  # of the image before it is resized
            controls |= {"twice": True} if self.training and self.at is None else {}
        if size is None and self.fit == "resize":
            size = tuple(max(side // self.multiple, 1) * self.multiple for side in x.shape[-2:])  # type: ignore[assignment]
        enhance = any_size(self.multiple)(LFPV._enhance)
        if size is not None:
            enhance = at_size(size)(enhance)
        return enhance(self, x, gt=gt, **controls)

    def _enhance(self, x: Tensor, gt: Tensor | None, **controls: Any) -> Tensor | dict[str, Tensor]:
        run = self._split if self.at is None else self._hooked
        out, plain = run(x, gt, controls)
        if plain is None:
            return out
        named = {f"plain/{name}": value for name, value in _named(plain).items() if name != "out"}
        return {**_named(out), "plain": _named(plain)["out"], **named}

    def _split(self, x: Tensor, gt: Tensor | None, controls: dict[str, Any]) -> tuple[Any, Any]:
        """The host's result with banks, and in training also without; both share everything before the feature."""
        feature, context = self.host.encode(x, **controls)
        plain = self.host.decode(feature, context) if self.training else None
        return self.host.decode(self.banks(feature, self._error(plain, gt)), context), plain

    def _hooked(self, x: Tensor, gt: Tensor | None, controls: dict[str, Any]) -> tuple[Any, Any]:
        """The same for a host without `encode` and `decode`: two runs, the second with a hook at the feature."""
        plain = self.host(x, **controls) if self.training else None
        error = self._error(plain, gt)
        # Set for each run: a permanent hook would refer to these banks in every copy of the network.
        module = self.host.get_submodule(self.at)
        hook = module.register_forward_hook(lambda module, inputs, feature: self.banks(feature, error))
        try:
            return self.host(x, **controls), plain
        finally:
            hook.remove()

    def _error(self, plain: Any, gt: Tensor | None) -> Tensor | None:
        """The error of the plain result, (B, 1, H, W), if the selection needs it."""
        if plain is None or gt is None or not self.by_error:
            return None
        return (_named(plain)["out"].detach() - gt).abs().mean(1, keepdim=True)

    def strip(self) -> LFPV:
        """Delete everything that only training needs; a checkpoint of the rest loads with `updaters=False`."""
        self.banks.strip()
        return self


def _named(outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"out": outputs}


def attachment(host: nn.Module, at: str | None) -> tuple[int, int]:
    """Channels and stride of the feature of a host where the banks attach, found by running it on a small image.

    Raises:
        UserError: there is no such feature; the message lists the existing ones.
    """
    title = type(host).__name__
    if at is None and hasattr(host, "encode") and hasattr(host, "decode"):
        with _probing(host) as (host, x), torch.no_grad():
            feature = host.encode(x)[0]  # type: ignore[operator]
        return feature.shape[1], x.shape[-1] // feature.shape[-1]
    found = features_of(host)
    if at in found:
        return found[at]
    if at is None:
        reason = f"LFPV: 'at' is missing: it names the feature of {title} that the banks enrich."
    elif at in dict(host.named_modules()):
        reason = f"LFPV: {at!r} of {title} does not compute a map (B, C, h, w) exactly once per image."
        found = {name: fact for name, fact in found.items() if name.startswith(f"{at}.")} or found
    else:
        reason = f"LFPV: {title} has no feature {at!r}.{suggest(at, found)}"
    shallow = sorted(found, key=lambda name: name.count("."))[:LISTED]
    listed = ", ".join(f"{name} ({found[name][0]} channels, 1/{found[name][1]} of the size)" for name in shallow)
    more = f", and {len(found) - LISTED} inside these" * (len(found) > LISTED)
    raise UserError(f"{reason} There are: {listed or 'none'}{more}")


def features_of(host: nn.Module) -> dict[str, tuple[int, int]]:
    """Modules of a host that compute exactly one map (B, C, h, w) per image: name -> (channels, stride)."""
    outputs: dict[str, list[Any]] = {}

    def listen(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda module, inputs, out: outputs.setdefault(name, []).append(out))

    with _probing(host) as (host, x), ExitStack() as hooks, torch.no_grad():
        for name, module in host.named_modules():
            hooks.callback(listen(name, module).remove)
        host(x)
    side = x.shape[-1]
    maps = {name: out.shape for name, (out, *more) in outputs.items() if isinstance(out, Tensor) and not more}
    return {
        name: (shape[1], side // shape[2])
        for name, shape in maps.items()
        if name and len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] and side % shape[2] == 0
    }


@contextmanager
def _probing(host: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """The host in evaluation mode, and a small image that it accepts."""
    was_training, like = host.training, next(host.parameters(), torch.empty(0))
    if like.device.type == "meta":  # has shapes, but no values, which a forward may need
        host, like = copy.deepcopy(host).to_empty(device="cpu"), torch.empty(0, device="cpu")
    side = math.lcm(card_of(host).size_multiple, 32)
    try:
        with torch.device(like.device):
            yield host.eval(), torch.full((1, 3, side, side), 0.5, dtype=like.dtype)
    finally:
        host.train(was_training)
