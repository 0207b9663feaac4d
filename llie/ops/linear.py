"""Linear layers for inference on CPUs, with weights that oneDNN packs once instead of at each call."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from llie.ops.parts import as_graph
from llie.ops.winograd import version

LEAST = 32  # tokens, from which on it pays
TYPES = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """A linear layer, and ReLU, if wanted; `llie.ops.fusion.fuse` lets it keep packed weights, beside its own.

    Args:
        in_features: of the input.
        out_features: of the result.
        bias: whether it has one.
    """

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(..., in_features) -> (..., out_features); then ReLU, if wanted."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        packed = self._packed(x, dtype)
        if packed is not None:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), *packed, "relu" if relu else "none", [], "")
            return y
        y = super().forward(x)
        return F.relu(y, inplace=True) if relu else y

    def fuse(self) -> None:
        """Keep packed weights from now on, one set for each type that inputs have."""
        # Stored outside the module's attributes, so that copies and checkpoints do not contain it.
        object.__setattr__(self, "_kept", (self._state(), {}))

    def _packed(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias for an input, if there are any that are valid, and pay."""
        made_of, kept = self.__dict__.get("_kept", (None, {}))
        if made_of is None or torch.is_grad_enabled() or x.device.type != "cpu" or dtype not in TYPES:
            return None
        # Operations that become a graph, or are counted, must be the plain ones.
        if as_graph() or _get_current_dispatch_mode() is not None or made_of != self._state():
            return None
        if x.numel() < LEAST * self.in_features or not _packs():
            return None
        if dtype not in kept:
            weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(dtype))
            kept[dtype] = weight, None if self.bias is None else self.bias.to(dtype)
        found: tuple[Tensor, Tensor | None] = kept[dtype]
        return found

    def _state(self) -> list[tuple[int, int]]:
        """A value that changes whenever a parameter is written to, replaced or moved."""
        return [version(parameter) for parameter in self.parameters()]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_kept"}


@functools.cache
def _packs() -> bool:
    """Whether this build of PyTorch has oneDNN's layers with packed weights, which are not a part of its public API."""
    try:
        with torch.no_grad():
            weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(8, 8))
            y = torch.ops.mkldnn._linear_pointwise(torch.ones(1, 8), weight, None, "relu", [], "")
        return bool((y == 8).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
