"""Amounts of memory are read as people write them; free memory is given back where it is much."""

import sys
from types import SimpleNamespace

import pytest
import torch

from llie.errors import UserError
from llie.strips import memory
from llie.strips.memory import free_memory, memory_budget

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("4GB", 4e9), ("4 GiB", 2**32), ("512MiB", 2**29), ("1.5g", 1.5e9), (1000, 1000), ("800kb", 8e5), (".5GB", 5e8)],
)
def test_amounts_of_memory(text, wanted):
    assert memory_budget(text, CPU) == wanted


@pytest.mark.parametrize("text", ["lots", "-1GB", "4 bananas", "", "0", "1e3"])
def test_what_is_not_an_amount_of_memory(text):
    with pytest.raises(UserError, match="not an amount of memory; write for instance 4GB"):
        memory_budget(text, CPU)


def test_the_default_is_half_of_what_is_free():
    assert 2**26 < memory_budget(None, CPU) < free_memory(CPU)


@pytest.mark.parametrize(("free", "returned"), [(99, False), (100, True)])
def test_little_free_memory_is_kept(free, returned, monkeypatch):
    calls = []

    class Library:
        mallinfo2 = type("Function", (), {"__call__": lambda self: SimpleNamespace(free=free)})()

        def malloc_trim(self, pad):
            calls.append(pad)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library())
    memory.return_free_memory(least=100)
    assert bool(calls) == returned


def test_memory_is_returned_on_this_system():
    memory.return_free_memory()
    memory.return_free_memory(least=2**60)
