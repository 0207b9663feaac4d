"""Fixtures of all tests: golden vectors, and real photographs, which only some machines have."""

import os
from pathlib import Path

import pytest
import torch

from tests.golden import fill
from tests.processes import Children

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
REAL = Path(os.environ.get("LLIE_REAL_DATA", REPOSITORY.parent / "shared" / "real"))

torch.set_num_threads(int(os.environ.get("LLIE_TEST_THREADS", "1")))
os.environ["LLIE_OFFLINE"] = "1"  # for every process that a test starts, too


class Golden:
    """One golden vector: the official implementation's inputs and outputs as tensors, and its facts.

    Args:
        name: of the file.
        dtype: what the floating-point tensors are converted to, for figures to be compared in float64.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float32):
        self.meta, arrays = fill.load(GOLDEN / f"{name}.npz")
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.arrays = {key: t.to(dtype) if t.dtype == torch.float32 else t for key, t in tensors.items()}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The official state dict (official names) that the outputs were computed with."""
        values = fill.fill(self.meta["shapes"], self.meta["seed"])
        return {key: torch.from_numpy(value) for key, value in values.items()}


def pytest_collection_modifyitems(items):
    """Mark tests that use golden vectors, so that they can run again with other vector instructions."""
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker("golden")


@pytest.fixture(scope="session")
def golden():
    return Golden


@pytest.fixture(scope="session")
def children():
    """Starts training processes: `children(argv, log, processes=1, die_at_sync=None)` gives the group."""
    started = Children()
    yield started
    started.close()


@pytest.fixture
def real() -> Path:
    """Folder of real low/normal pairs (LOL and others); the test skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"needs the real photographs: set LLIE_REAL_DATA (looked in {REAL})")
    return REAL
