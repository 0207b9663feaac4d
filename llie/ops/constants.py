"""Fixed values as tensors on a device."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llie.ops.parts import as_graph

KEPT = 32  # results of each function, the latest
LARGEST = 2**18  # numbers of a result; images with larger ones take long anyway


def constant(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Fixed values on the device of another tensor. `new_tensor` would make the host wait for a GPU; this does not.

    Args:
        values: numbers, or nested lists of them.
        like: gives the device, and the type unless there is a `dtype`.
        dtype: type of the result.
    """
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)


def remembered(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator for a function that computes a constant: its latest results are kept, and must not be changed.

    Args:
        function: of sizes, type and device (all hashable), without gradients; it must not depend on anything else.
    """
    results: dict[tuple[Any, ...], Tensor] = {}
    lock = threading.Lock()  # a server enhances in several threads

    @functools.wraps(function)
    def recall(*args: Any) -> Tensor:
        if as_graph():  # the graph computes the constant, or its sizes are symbols
            return function(*args)
        result = results.get(args)
        if result is None:
            with torch.inference_mode(False), torch.no_grad():  # training may use it as well
                result = function(*args)
            if result.numel() <= LARGEST:
                with lock:
                    if len(results) >= KEPT:
                        del results[next(iter(results))]
                    results[args] = result
        return result

    return recall
