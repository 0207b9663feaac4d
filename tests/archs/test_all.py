"""What every registered network must do. New networks are included automatically, with their default arguments."""

import pytest
import torch

from llie.archs import card_of, create_network, needs_weights
from llie.registry import ARCH_REGISTRY

# Arguments that make a network small, so that this file takes seconds; a network without an entry is taken as it is.
SMALL = {name: {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]} for name in ("HVICIDNet", "HVISMM", "HVISSM")}
SMALL |= {name: {"width": 4, "growth": 2, "recursions": 2} for name in ("DRBN", "DRBNRecompose")}
SMALL["SNRAware"] = {"nf": 16, "layers": 1}
SMALL["LFPV"] = SMALL["SNRAware"] | {"hidden_width": 32}
SMALL["Dawn"] = {"tone_width": 16, "luma": 4, "detail_widths": [8, 8, 16]}
SMALL["HDM"] = {"width": 16, "blocks": 2}
NETWORKS = [name for name, network in ARCH_REGISTRY if network.__module__.startswith("llie.")]
LEARNED = [name for name in NETWORKS if card_of(ARCH_REGISTRY.get(name)).learned]  # the others follow a fixed rule


def build(name, seed=0):
    torch.manual_seed(seed)
    return create_network(name, **SMALL.get(name, {}))


def images(*size):
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 24)])
def test_enhances_any_size_without_changing_it(name, size):
    network = build(name).eval()
    x = images(2, 3, *size)
    with torch.no_grad():
        out = network(x)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("name", LEARNED)
def test_every_trainable_parameter_gets_a_finite_gradient(name):
    network = build(name).train()
    outputs = network(images(2, 3, 16, 16))
    named = outputs if isinstance(outputs, dict) else {"out": outputs}
    assert named["out"].shape == (2, 3, 16, 16)
    sum(tensor.sum() for tensor in named.values()).backward()
    trainable = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
    assert [key for key, gradient in trainable.items() if gradient is None] == []
    assert [key for key, gradient in trainable.items() if not gradient.isfinite().all()] == []


@pytest.mark.parametrize("name", LEARNED)
def test_state_dict_carries_all_that_the_output_depends_on(name):
    first, second = build(name, seed=1).eval(), build(name, seed=2).eval()
    x = images(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.equal(first(x), second(x))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(x), second(x))


def test_same_input_same_output_whatever_else_is_in_the_batch(name):
    network = build(name).eval()
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        both = network(x)
        assert torch.equal(both, network(x))
        torch.testing.assert_close(both[:1], network(x[:1]), atol=1e-5, rtol=1e-4)


def test_bfloat16_autocast_is_finite_and_near_float32(name):
    network = build(name).eval()
    x = images(1, 3, 16, 16)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network(x)
    assert rounded.isfinite().all()
    assert (rounded.float() - exact).abs().mean() < 0.05 * exact.abs().mean() + 0.02


def test_card_names_the_paper_and_whether_the_network_is_trained(name):
    card = card_of(ARCH_REGISTRY.get(name))
    assert card.paper and card.url.startswith("https://")
    assert needs_weights(build(name)) is card.learned


@pytest.mark.parametrize("name", LEARNED)
def test_card_recognises_the_checkpoint(name):
    card = card_of(ARCH_REGISTRY.get(name))
    state = build(name).state_dict()
    arguments = card.detect(card.official_keys(state))
    create_network(name, **{**SMALL.get(name, {}), **arguments}).load_state_dict(state)
    others = [other for other in NETWORKS if other != name]
    assert [other for other in others if card_of(ARCH_REGISTRY.get(other)).detect(state) is not None] == []
