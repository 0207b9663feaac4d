"""Fixed values as tensors on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Fixed values on the device of another tensor. `new_tensor` would make the host wait for a GPU; this does not.

    Args:
        values: numbers, or nested lists of them.
        like: gives the device, and the type unless there is a `dtype`.
        dtype: type of the result.
    """
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)
