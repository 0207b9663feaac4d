"""The hyperbolic tangent of training: values, gradients, and where it is PyTorch's."""

import torch

from llie.ops.tanh import tanh


def test_values_and_gradients():
    x = torch.linspace(-20, 20, 2001, requires_grad=True)
    result = tanh(x)
    assert "_Tanh" in type(result.grad_fn).__name__
    torch.testing.assert_close(result, x.tanh(), rtol=0, atol=2e-7)
    ours, theirs = (torch.autograd.grad(each.sum(), x)[0] for each in (result, x.tanh()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_gradients_and_their_gradients():
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).view(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(tanh, x)
    assert torch.autograd.gradgradcheck(tanh, x)


def test_plain_where_it_is_no_training():
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(tanh(x), x.tanh())
    half = x.bfloat16().requires_grad_()
    assert torch.equal(tanh(half), half.tanh())
    with torch.no_grad():
        assert torch.equal(tanh(x.requires_grad_()), x.tanh())
