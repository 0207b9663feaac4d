import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llie.ops import linear
from llie.ops.fusion import fuse
from llie.ops.integers import in_integers
from llie.ops.linear import Linear


@pytest.fixture
def calls(monkeypatch):
    """How often a layer took packed weights."""
    if not linear._packs(torch.float32):
        pytest.skip("this build of PyTorch has no layers with packed weights")
    found = []
    packed = Linear._packed

    def counted(self, x):
        result = packed(self, x)
        found.extend([] if result is None else [getattr(result, "dtype", "integers")])
        return result

    monkeypatch.setattr(Linear, "_packed", counted)
    return found


def expected(layer, x, relu=False):
    y = F.linear(x, layer.weight, layer.bias)
    return y.relu() if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_give_the_same_result(calls, bias, relu):
    layer, x = fuse(Linear(24, 40, bias)).eval(), torch.randn(2, 50, 24)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, relu), expected(layer, x, relu), rtol=1e-5, atol=1e-6)
    assert calls == [torch.float32]


def test_autocast_takes_weights_in_bfloat16(calls):
    if not linear._packs(torch.bfloat16):
        pytest.skip("this processor has no bfloat16")
    layer, x = fuse(Linear(24, 40)).eval(), torch.randn(2, 50, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y, wanted = layer(x, relu=True), expected(layer, x, relu=True)
    assert y.dtype == torch.bfloat16 and calls == [torch.bfloat16]
    torch.testing.assert_close(y, wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("tokens", "inputs", "outputs", "bias"), [(32, 64, 64, False), (77, 600, 70, True)])
def test_integers_keep_three_digits(calls, tokens, inputs, outputs, bias, relu):
    if not linear.integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    torch.manual_seed(0)
    layer = fuse(Linear(inputs, outputs, bias)).eval()
    x = torch.randn(tokens, inputs) * torch.logspace(-20, 20, tokens)[:, None]
    x[3] = 0
    with torch.no_grad(), in_integers():
        found, wanted = layer(x, relu).double(), expected(layer.double(), x.double(), relu)
    assert calls == ["integers"]
    size = wanted.square().mean(1).sqrt()
    error = (found - wanted).square().mean(1).sqrt() / size.where(size > 0, 1)
    assert 1e-6 < error.max() < 1e-3
    assert torch.equal(found[3].float(), wanted[3].float())


def test_integers_show_what_is_not_finite(calls):
    if not linear.integers_are_fast():
        pytest.skip("this processor has no fast products of 16-bit integers")
    layer, x = fuse(Linear(64, 64)).eval(), torch.randn(40, 64)
    x[5, 7], x[9, 0] = torch.nan, torch.inf
    with torch.no_grad(), in_integers():
        lost = layer(x).isnan()
        assert lost[[5, 9]].all() and lost.sum() == 2 * 64
        layer.weight[3, 3] = torch.inf
        lost = fuse(layer)(x).isnan()
    assert lost[:, 3].all() and lost.sum() == 2 * 64 + 38


def test_gradients_and_few_tokens_take_the_plain_form(calls):
    layer, x = fuse(Linear(8, 8)).eval(), torch.randn(64, 8)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer(x[:4])
        layer.train()(x)
        nn.Sequential(Linear(8, 8))(x)
    assert not calls


def test_weights_that_changed_are_not_taken(calls):
    layer, x = fuse(Linear(8, 8)).eval(), torch.randn(64, 8)
    with torch.no_grad():
        layer(x)
        layer.bias += 1
        torch.testing.assert_close(layer(x), expected(layer, x))
        fuse(layer)
        torch.testing.assert_close(layer(x), expected(layer, x))
    assert len(calls) == 2


def test_copies_and_checkpoints_do_not_contain_packed_weights():
    layer, x = fuse(Linear(8, 8)).eval(), torch.randn(64, 8)
    with torch.no_grad():
        layer(x)
    assert "_kept" in layer.__dict__
    assert set(layer.state_dict()) == {"weight", "bias"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert "_kept" not in other.__dict__


def test_a_compiled_or_traced_layer_takes_the_plain_form():
    layer, x = fuse(Linear(8, 8)).eval(), torch.randn(64, 8)
    with torch.no_grad():
        graph = torch.jit.trace(layer, x, check_trace=False).inlined_graph
    assert "mkldnn" not in str(graph)
