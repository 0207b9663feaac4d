"""All random numbers of a step depend on (seed, rank, iteration), so a resumed run needs no stored generators."""

from __future__ import annotations

import random

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """A well-mixed 64-bit seed, determined by a few non-negative numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(*numbers: int) -> int:
    """Seed Python, NumPy and PyTorch (dropout, for instance) from a few numbers; returns the seed."""
    seed = derived_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
    return seed
