"""Optimisers by name: their errors, and the form that they take."""

import copy

import pytest
import torch
from torch import nn

from llie.engine.optimizers import create_optimizer
from llie.errors import UserError


def test_a_network_without_parameters_is_reported():
    with pytest.raises(UserError, match=r"train\.optim_g: the network has no parameters"):
        create_optimizer([], {"type": "Adam"})


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_the_form_for_cpus_makes_the_same_steps(kind):
    torch.manual_seed(0)
    networks = [nn.Linear(5, 3)]
    networks.append(copy.deepcopy(networks[0]))
    spec = {"type": kind, "lr": 0.01, "weight_decay": 0.1}
    optimisers = [
        create_optimizer(network.parameters(), {**spec, **form})
        for network, form in zip(networks, ({}, {"foreach": False}), strict=True)
    ]
    assert [bool(each.defaults.get("fused")) for each in optimisers] == [kind != "RMSprop", False]
    for _ in range(5):
        for network, optimiser in zip(networks, optimisers, strict=True):
            optimiser.zero_grad()
            network(torch.ones(2, 5)).square().sum().backward()
            optimiser.step()
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_state_from_weights_of_another_memory_layout():
    torch.manual_seed(0)
    layouts = (torch.contiguous_format, torch.channels_last)
    first, second = (nn.Conv2d(4, 6, 3).to(memory_format=layout) for layout in layouts)
    optimisers = [create_optimizer(network.parameters(), {"type": "Adam", "lr": 0.1}) for network in (first, second)]

    def step(network, optimiser):
        optimiser.zero_grad()
        network(torch.arange(100.0).view(1, 4, 5, 5)).square().sum().backward()
        optimiser.step()

    step(first, optimisers[0])
    second.load_state_dict(first.state_dict())
    optimisers[1].load_state_dict(copy.deepcopy(optimisers[0].state_dict()))
    for network, optimiser in zip((first, second), optimisers, strict=True):
        step(network, optimiser)
    torch.testing.assert_close(second.weight, first.weight)


def test_no_special_form_where_weights_are_elsewhere():
    assert not create_optimizer(nn.Linear(5, 3, device="meta").parameters(), {"type": "Adam"}).defaults["fused"]
