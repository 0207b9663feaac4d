"""Constants are computed once for each size, type and device, and can be used in training and from several threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llie.ops import constants
from llie.ops.constants import remembered
from llie.ops.dark_channel import haze_regions
from llie.ops.exporting import for_export


@pytest.fixture
def ramp():
    """A constant, and the arguments that it was computed for."""
    computed = []

    @remembered
    def ramp(size, dtype):
        computed.append((size, dtype))
        return torch.arange(size, dtype=dtype)

    return ramp, computed


def test_computed_once_for_each_size_and_type(ramp):
    ramp, computed = ramp
    assert ramp(3, torch.float32) is ramp(3, torch.float32)
    assert ramp(3, torch.float64).dtype == torch.float64
    assert ramp(4, torch.float32).tolist() == [0, 1, 2, 3]
    assert computed == [(3, torch.float32), (3, torch.float64), (4, torch.float32)]


def test_training_may_use_what_inference_computed(ramp):
    with torch.inference_mode():
        ramp[0](3, torch.float32)
    x = torch.ones(3, requires_grad=True)
    (x * ramp[0](3, torch.float32)).sum().backward()  # fails for a tensor of inference mode
    assert x.grad.tolist() == [0, 1, 2]


def test_memory_is_bounded(ramp, monkeypatch):
    monkeypatch.setattr(constants, "KEPT", 2)
    monkeypatch.setattr(constants, "LARGEST", 10)
    ramp, computed = ramp
    for size in (1, 2, 3, 1, 11, 11, 1):
        ramp(size, torch.float32)
    assert [size for size, _ in computed] == [1, 2, 3, 1, 11, 11]


def test_graphs_compute_their_own(ramp):
    ramp, computed = ramp
    ramp(3, torch.float32)
    with for_export():
        ramp(3, torch.float32)
    assert len(computed) == 2


def test_threads_get_the_same_regions():
    images = [torch.rand(1, 3, side, 40, generator=torch.Generator().manual_seed(side)) for side in range(40, 48)]
    expected = [haze_regions(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(map(torch.equal, pool.map(haze_regions, images), expected))
