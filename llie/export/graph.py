"""A network in the form that is exported: a function of an image and one number for each control."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llie.archs import card_of, controls_of
from llie.errors import UserError

IMAGE, RESULT = "image", "enhanced"  # the names of the graph's input and output
TRACED = (2, 3, 75, 93)  # shape of the image that the network is recorded with; the graph takes any other size, too


class Graph(nn.Module):
    """What is exported: image (B, 3, H, W) in [0, 1] and numbers -> enhanced image, the same shape, clipped to [0, 1].

    Args:
        network: in evaluation mode.
        controls: values of controls, as `Enhancer` takes them. Numbers become inputs with these defaults; all others,
            such as `size`, become constants of the graph.

    Attributes:
        numbers: controls that are inputs, with their defaults.
        fixed: controls that are constants.
    """

    def __init__(self, network: nn.Module, controls: Mapping[str, Any] | None = None):
        super().__init__()
        self.network = network
        self.numbers = numeric_controls(network)
        self.fixed: dict[str, Any] = {}
        for name, value in (controls or {}).items():
            if name in self.numbers and isinstance(value, int | float):
                self.numbers[name] = float(value)
            else:
                self.fixed[name] = value

    def forward(self, image: Tensor, *numbers: Tensor) -> Tensor:
        """Enhance; takes one scalar for each entry of the attribute `numbers`, in its order."""
        named = dict(zip(self.numbers, numbers, strict=True))
        return self.network(image, **self.fixed, **named).clamp(0, 1)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to record the graph with."""
        image = torch.rand(TRACED, generator=torch.Generator().manual_seed(0)) * 0.2
        return (image, *(torch.tensor(value) for value in self.numbers.values()))


def numeric_controls(network: nn.Module) -> dict[str, float]:
    """The controls of a network that are numbers, and their defaults.

    Where the default is None, the network's attribute of the same name is used, which the constructor sets. Controls
    that are maps or sizes are left out: a graph cannot have them as optional inputs.
    """
    parameters = inspect.signature(network.forward).parameters
    numbers = {}
    for name in controls_of(network):
        if name not in parameters or "float" not in str(parameters[name].annotation):
            continue
        default = parameters[name].default
        default = getattr(network, name, None) if default is None else default
        if isinstance(default, int | float) and not isinstance(default, bool):
            numbers[name] = float(default)
    return numbers


def check_network(graph: Graph) -> None:
    """Check that the network can be exported: its card allows it, and it returns an image of the size of its input.

    Raises:
        UserError: it cannot be exported; the message gives the reason.
    """
    reason = card_of(graph.network).not_exported
    if reason:
        raise UserError(f"{type(graph.network).__name__} cannot be exported: {reason}")
    example = graph.example()
    with torch.inference_mode():
        result = graph.network(example[0], **graph.fixed)
    if not isinstance(result, Tensor) or result.shape != example[0].shape:
        what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise UserError(
            f"{type(graph.network).__name__} returns {what} for an image {tuple(example[0].shape)}; only networks that "
            "return an image of the same size can be exported"
        )
