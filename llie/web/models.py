"""The networks that the page offers, loaded when somebody chooses them."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llie.archs import card_of, controls_of
from llie.inference import Enhancer, load
from llie.inference.enhancer import SHIPPED
from llie.registry import ARCH_REGISTRY
from llie.weights import find_weights


def offered(words: Sequence[str] = ()) -> dict[str, str]:
    """The names that the page shows -> what `llie.load` takes; the first is chosen at first.

    These are the ones that the user names, the network that ships, those whose weights are found, and those that need
    none.

    Args:
        words: what `llie.load` takes, or NAME=that.
    """
    models = {}
    for word in words:
        name, _, source = word.rpartition("=")
        models[name or Path(source).stem] = source
    models.setdefault(SHIPPED, SHIPPED)
    classical = []
    for registered, network in ARCH_REGISTRY:
        card = card_of(network)
        if not card.learned:
            classical.append(registered)
        for name in (registered.lower(), registered, *card.presets):
            if any(find_weights(name + ending) for ending in (".safetensors", ".pth")):
                models.setdefault(name, name)
                break
    return models | {name: name for name in classical if name not in models}


class Devices:
    """The devices, each with its networks; one piece of work at a time has a device.

    Args:
        models: from `offered`.
        devices: "cpu", "cuda:0" ...
        memory: most memory for one image, see `llie.inference.Enhancer`.
    """

    def __init__(self, models: dict[str, str], devices: Sequence[str], memory: str | None = None):
        self.models, self.number, self._memory = models, len(devices), memory
        self._free: queue.SimpleQueue[tuple[str, dict[str, Enhancer]]] = queue.SimpleQueue()
        for device in devices:
            self._free.put((device, {}))

    @contextmanager
    def use(self, name: str) -> Iterator[Enhancer]:
        """Wait for a device; the network on it is the caller's for the context.

        Raises:
            UserError: see `llie.load`.
        """
        device, loaded = self._free.get()
        try:
            if name not in loaded:
                loaded[name] = load(self.models[name], device, memory=self._memory)
            yield loaded[name]
        finally:
            self._free.put((device, loaded))

    def controls(self, name: str) -> list[str]:
        """The test-time controls of a network."""
        with self.use(name) as enhancer:
            return controls_of(enhancer.network)
