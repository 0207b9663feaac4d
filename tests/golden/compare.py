"""One measure of closeness for every figure that rounding may change.

The largest single difference depends on the order in which a processor sums, so on its vector instructions and its
number of threads. The error of the whole tensor hardly does: float32 results of the networks here stay within 1e-5 of
one another on SSE4.1, AVX2 and AVX-512, while a wrong sign, factor or border makes 1e-3 and more.

Rounding does grow where a gate or a maximum may go the other way (gradients through ReLU and pooling) and where a
normalisation amplifies it. There, compare in float64 (`golden(name, torch.float64)`): what is left is the rounding of
the published figure itself, the same on every processor.
"""

import torch

TOLERANCE = 2e-5


def relative_error(found, expected) -> float:
    """Norm of the difference, relative to the norm of the expected tensor unless that is zero, in float64."""
    found, expected = (torch.as_tensor(value).detach().double() for value in (found, expected))
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    scale = expected.norm().item()
    return (found - expected).norm().item() / (scale or 1.0)


def assert_near(found, expected, tolerance: float = TOLERANCE, of: str = "") -> None:
    """The whole tensor equals the expected one except for rounding; NaN is never close."""
    error = relative_error(found, expected)
    assert error <= tolerance, f"{of or 'the tensor'} is off by {error:.2g} of its norm; {tolerance:.2g} is rounding"
