import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llie.ops import linear
from llie.ops.fusion import fuse
from llie.ops.linear import Linear


@pytest.fixture
def calls(monkeypatch):
    """How often a layer took packed weights."""
    if not linear._packs():
        pytest.skip("this build of PyTorch has no layers with packed weights")
    found = []
    packed = Linear._packed

    def counted(self, x, dtype):
        result = packed(self, x, dtype)
        found.extend([dtype] if result is not None else [])
        return result

    monkeypatch.setattr(Linear, "_packed", counted)
    return found


def expected(layer, x, relu=False):
    y = F.linear(x, layer.weight, layer.bias)
    return y.relu() if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_give_the_same_result(calls, bias, relu):
    layer, x = fuse(Linear(24, 40, bias)), torch.randn(2, 50, 24)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, relu), expected(layer, x, relu), rtol=1e-5, atol=1e-6)
    assert calls == [torch.float32]


def test_autocast_takes_weights_in_bfloat16(calls):
    layer, x = fuse(Linear(24, 40)), torch.randn(2, 50, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y, wanted = layer(x, relu=True), expected(layer, x, relu=True)
    assert y.dtype == torch.bfloat16 and calls == [torch.bfloat16]
    torch.testing.assert_close(y, wanted, rtol=1e-2, atol=1e-2)


def test_gradients_and_few_tokens_take_the_plain_form(calls):
    layer, x = fuse(Linear(8, 8)), torch.randn(64, 8)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer(x[:4])
        nn.Sequential(Linear(8, 8))(x)
    assert not calls


def test_weights_that_changed_are_not_taken(calls):
    layer, x = fuse(Linear(8, 8)), torch.randn(64, 8)
    with torch.no_grad():
        layer(x)
        layer.bias += 1
        torch.testing.assert_close(layer(x), expected(layer, x))
        fuse(layer)
        torch.testing.assert_close(layer(x), expected(layer, x))
    assert len(calls) == 2


def test_copies_and_checkpoints_do_not_contain_packed_weights():
    layer, x = fuse(Linear(8, 8)), torch.randn(64, 8)
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
