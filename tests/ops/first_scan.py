"""The first scan of a process; in a file of its own, since the tests' own file loads every backend."""

import sys

import torch

from llie.ops.selective_scan import backends, selective_scan


def first_scan():
    """The backend that was chosen, and whether numba was loaded; the number of threads stays what it was."""
    torch.set_num_threads(1)
    x, n = torch.ones(1, 4, 9), torch.ones(1, 2, 9)
    y = selective_scan(x, x, -torch.ones(4, 2), n, n)
    assert y.isfinite().all() and torch.get_num_threads() == 1
    return backends._best("cpu"), "numba" in sys.modules
