"""Do the golden tests fail for a real mistake? One small mistake at a time, made in memory, and its tests run.

    python -m tests.golden.mutations            # all of `mistakes.py`: a table of them, and the test that fails first
    python -m tests.golden.mutations mamballie  # those whose place or test contains that word

Exit code 1 if a mistake goes unnoticed, or if a test ends by anything but a wrong figure.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import io
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType

import pytest

from llie.ops import constants
from tests.conftest import REPOSITORY
from tests.golden.mistakes import MISTAKES


@contextlib.contextmanager
def mistake(place: str, old: str, new: str) -> Iterator[None]:
    """The function at "module:function" or "module:Class.method" as if its source had `new` for the only `old`."""
    function = function_at(place)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{place} holds {old!r} {source.count(old)} times, not once"
    right = function.__code__
    function.__code__ = compiled(source.replace(old, new), right)
    try:
        yield
    finally:
        function.__code__ = right


def function_at(place: str) -> FunctionType:
    module, _, path = place.partition(":")
    found = importlib.import_module(f"llie.{module}")
    for name in path.split("."):
        found = getattr(found, name)
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType), place
    return function


def compiled(source: str, like: CodeType) -> CodeType:
    """The code of a function; around it, the names that it has from outside, such as the class for `super()`."""
    names = "".join(f"    {name} = None\n" for name in like.co_freevars)
    whole = f"def around():\n{names}{textwrap.indent(source, '    ')}"
    flags = __future__.annotations.compiler_flag
    [around] = codes(compile(whole, like.co_filename, "exec", flags, dont_inherit=True))
    [code] = [code for code in codes(around) if code.co_name == like.co_name]
    assert code.co_freevars == like.co_freevars, source
    return code


def codes(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


class Watch:
    """A pytest plug-in that keeps what the first failing test says."""

    def __init__(self) -> None:
        self.failure = ""
        self.by_figure = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed and not self.failure:
            self.by_figure = call.excinfo.errisinstance(AssertionError)
            text = str(call.excinfo.value) or call.excinfo.typename
            self.failure = f"{item.name}: {' '.join(text.split())[:90]}"
        return report


def first_failure(tests: str) -> Watch:
    watch = Watch()
    words = [str(REPOSITORY / "tests" / tests), "-m", "golden", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb=no"]
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(words, plugins=[watch])
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), f"{tests}: {code!r}"
    return watch


def main(words: list[str]) -> int:
    """Make every mistake that is asked for; print a line for each."""
    bad = 0
    constants.as_graph = lambda: True  # constants remembered from the run without a mistake would hide it
    for tests, mistakes in MISTAKES.items():
        chosen = [one for one in mistakes if not words or any(word in tests + one[0] for word in words)]
        if chosen and (failure := first_failure(tests).failure):
            sys.exit(f"{tests} fails without a mistake: {failure}")
        for place, old, new in chosen:
            with mistake(place, old, new):
                watch = first_failure(tests)
            verdict = "caught" if watch.by_figure else "STOPPED" if watch.failure else "MISSED"
            bad += verdict != "caught"
            print(f"{verdict} | {tests} | {place} | {old} -> {new} | {watch.failure}".replace("\n", " "), flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
