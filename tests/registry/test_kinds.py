"""Values of option files against Python's type annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import torch

from llie.registry.kinds import describe, fit


@pytest.mark.parametrize(
    ("value", "kind", "fitted"),
    [
        (3, int, 3),
        (1e3, int, 1000),
        (3, float, 3.0),
        (None, int | None, None),
        (None, Optional[int], None),  # noqa: UP045 - the older spelling must be understood too
        ("auto", int | Literal["auto"], "auto"),
        ([1, 2.0], list[float], [1.0, 2.0]),
        ((1, 2), Sequence[int], (1, 2)),
        ([1, 2], tuple[int, int], [1, 2]),
        ([1, 2, 3], tuple[int, ...], [1, 2, 3]),
        ({"a": 1}, Mapping[str, Any], {"a": 1}),
        ("a/b", Path, "a/b"),
        (Path("a/b"), Path, Path("a/b")),
        (0.5, float | torch.Tensor, 0.5),
        ("anything", Any, "anything"),
        ("anything", torch.nn.Module, "anything"),
        (True, bool, True),
    ],
)
def test_values_that_fit(value, kind, fitted):
    result = fit(value, kind)
    assert result == fitted
    assert type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, int),
        (True, float),
        (1, bool),
        (1.5, int),
        ("1", int),
        ("1e-4", float),
        (None, int),
        (1, str),
        (1, Literal["1"]),
        (True, Literal[1]),
        ([1, "x"], list[int]),
        ([1, 2, 3], tuple[int, int]),
        ("abc", list[str]),
        ([1], dict),
        (5, Path),
        ("fast", float | torch.Tensor),
        (float("nan"), int),
        (float("inf"), int),
    ],
)
def test_values_that_do_not_fit(value, kind):
    with pytest.raises(TypeError):
        fit(value, kind)


def test_a_tensor_fits_everywhere():
    tensor = torch.zeros(2)
    assert fit(tensor, int) is tensor


def test_kinds_in_words():
    assert describe(int | None) == "an integer or null"
    assert describe(list[float]) == "a list (each a number)"
    assert describe(Literal["a", "b"]) == "one of 'a', 'b'"
    assert describe(Mapping[str, Any] | torch.nn.Module | None) == "a mapping (key: value) or null"
    assert describe(dict[str, int]) == "a mapping (key: value) (each an integer)"
