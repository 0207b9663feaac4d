"""Facts about a network, stored beside its class: paper, sizes, presets, and how to recognise its checkpoints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from llie.errors import UserError, suggest


@dataclass(frozen=True)
class Card:
    """Facts about a network: the attribute `card` of its class.

    Attributes:
        paper: title and venue, as one would cite it.
        url: address of the paper.
        size_multiple: the network works internally on sizes that are multiples of this (it pads by itself).
        global_statistics: the output at a pixel depends on the whole image, so plain tiling changes the result.
        halo: for networks that decide globally on a thumbnail, `decide(thumbnail)`, and then work locally,
            `render(x, decision, region, **controls)`: how far, in pixels, a result depends on its surroundings. Parts
            of an image with this margin give the same result as the whole image. None for all other networks.
        parts: submodules whose weights may come from separate files, each holding one or several.
        presets: names of published configurations -> constructor arguments.
        official_keys: turns the keys of an official checkpoint into ours; gets and returns a state dict.
        detect: reads the constructor arguments from a state dict with our keys; None if it belongs to another network.
        training_inputs: entries of the batch that its `forward` takes besides the image in training.
        blocks: regular expression for the names of submodules that `train.checkpoint` recomputes in the backward pass:
            each computes much from few inputs, none contains another, and none updates statistics. Empty: none.
        learned: False for a fixed rule: it has no parameters, needs no weights and cannot be trained.
        precise: submodules that decide for the whole image: exported files with less precision keep them in float32.
        not_exported: why `llie export` cannot write this network; empty if it can.
    """

    paper: str = ""
    url: str = ""
    size_multiple: int = 1
    global_statistics: bool = False
    halo: int | None = None
    parts: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    official_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    detect: Callable[[Mapping[str, Tensor]], dict[str, Any] | None] = lambda state: None
    training_inputs: tuple[str, ...] = ()
    blocks: str = ""
    learned: bool = True
    precise: tuple[str, ...] = ()
    not_exported: str = ""


def card_of(network: nn.Module | type[nn.Module]) -> Card:
    """The network's card, or one with defaults for a network without a card (BasicSR's, for instance)."""
    return getattr(network, "card", None) or Card()


def blocks_of(network: nn.Module) -> list[str]:
    """Names of the submodules that `card.blocks` describes."""
    pattern = card_of(network).blocks
    return [name for name, _ in network.named_modules() if name and re.fullmatch(pattern, name)]


def needs_weights(network: nn.Module) -> bool:
    """Whether a network is useless without weights; False for one without parameters and statistics."""
    return bool(network.state_dict())


def controls_of(network: nn.Module | type[nn.Module]) -> list[str]:
    """A network's test-time controls: the arguments of its `forward` besides the image, and those of its `host`.

    An exported network, whose `forward` takes whatever its file does, names them as `control_names`.
    """
    named = getattr(network, "control_names", None)
    if isinstance(named, list):
        return list(named)
    parameters = [p for p in inspect.signature(network.forward).parameters.values() if p.name != "self"][1:]
    own = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    host = getattr(network, "host", None)
    of_host = controls_of(host) if isinstance(host, nn.Module) else []
    return [name for name in dict.fromkeys([*own, *of_host]) if name not in card_of(network).training_inputs]


def check_controls(network: nn.Module | type[nn.Module], names: Iterable[str]) -> None:
    """Check that the network has these controls.

    Raises:
        UserError: it does not; the message names the nearest.
    """
    known = controls_of(network)
    for name in names:
        if name not in known:
            title = (network if isinstance(network, type) else type(network)).__name__
            raise UserError(
                f"{title} has no control {name!r}.{suggest(name, known)} Its controls: {', '.join(known) or 'none'}"
            )
