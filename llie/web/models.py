"""The networks that the page offers. Each is loaded when a visitor first chooses it."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llie.archs import card_of, controls_of
from llie.inference import Enhancer, load
from llie.inference.loading import SHIPPED
from llie.registry import ARCH_REGISTRY
from llie.weights import find_weights


def offered(words: Sequence[str] = ()) -> dict[str, str]:
    """The networks that the page offers: name on the page -> what `llie.load` takes. The first is the default.

    These are the networks that the user names, the one that ships with llie, those with weights in `$LLIE_WEIGHTS`,
    and those that need no weights.

    Args:
        words: `MODEL` or `NAME=MODEL`, where MODEL is what `llie.load` takes.
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
    """The devices, each with its own copies of the networks. A device enhances one photograph at a time.

    Args:
        models: from `offered`.
        devices: "cpu", "cuda:0" ...
        memory: memory limit for one image, see `llie.inference.Enhancer`.
    """

    def __init__(self, models: dict[str, str], devices: Sequence[str], memory: str | None = None):
        self.models, self.number, self._memory = models, len(devices), memory
        self._free: queue.SimpleQueue[tuple[str, dict[str, Enhancer]]] = queue.SimpleQueue()
        for device in devices:
            self._free.put((device, {}))

    @contextmanager
    def use(self, name: str) -> Iterator[Enhancer]:
        """Context in which the caller alone uses a device: waits for one, and gives the network on it.

        Args:
            name: of the network, as on the page.

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
