"""Errors of optimisers."""

import pytest

from llie.engine.optimizers import create_optimizer
from llie.errors import UserError


def test_a_network_without_parameters_is_reported():
    with pytest.raises(UserError, match=r"train\.optim_g: the network has no parameters"):
        create_optimizer([], {"type": "Adam"})
