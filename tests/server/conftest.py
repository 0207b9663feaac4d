"""A server in this process: networks that do something simple, and clients that call it without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from torch import nn

from llie.inference import Enhancer
from llie.server.app import create_app
from llie.server.limits import Limits
from llie.server.service import Service

FIRST = 3 * 64 * 64  # values of the picture that a server runs every network on when it starts


class Brighten(nn.Module):
    """Twice the light; `denoise` takes some of it back."""

    def forward(self, x, denoise: float = 0.0, size: float = 0.0):
        return x * (2 - denoise)


class Gated(nn.Module):
    """Notes the batches it gets, and lets none pass before it is opened."""

    def __init__(self):
        super().__init__()
        self.opened, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def forward(self, x):
        if x[0].numel() != FIRST:
            self.batches.append(len(x))
            self.entered.set()
            assert self.opened.wait(600)
        return x * 2


class Failing(nn.Module):
    """Fails at everything but white."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def forward(self, x):
        if (x < 1).any() and x[0].numel() != FIRST:
            raise self.error
        return x


Make = Callable[..., Service]


@pytest.fixture
def service() -> Make:
    """`service(network, ..., queue=2)`: a service with these networks and limits."""

    def make(*networks: nn.Module, devices: int = 1, **limits) -> Service:
        names = ["first", "second"]
        models = {
            name: Enhancer(network, "cpu") for name, network in zip(names, networks or [Brighten()], strict=False)
        }
        return Service([models] * devices, Limits(**limits))

    return make


@pytest.fixture
def client(service):
    """`client(network, ..., token=None, queue=2)`: a client of such a service."""
    from starlette.testclient import TestClient

    opened = []

    def make(*networks: nn.Module, token: str | None = None, **limits) -> TestClient:
        one = TestClient(create_app(service(*networks, **limits), token))
        opened.append(one.__enter__())
        return one

    yield make
    for one in opened:
        one.__exit__(None, None, None)
