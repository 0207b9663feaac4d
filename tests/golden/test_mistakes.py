"""Every mistake of `mistakes.py` can be made: its place holds the piece of source that it replaces, once."""

import inspect

import pytest

from tests.golden.mistakes import MISTAKES
from tests.golden.mutations import function_at


@pytest.mark.parametrize(("place", "old"), [(place, old) for all_of in MISTAKES.values() for place, old, _ in all_of])
def test_place_holds_the_piece(place, old):
    assert inspect.getsource(function_at(place)).count(old) == 1
