"""Without a working C compiler, every failure is an OSError, after which the forms in PyTorch are taken."""

import shutil
import subprocess

import pytest
import torch

from llie.ops import winograd
from llie.ops.c_library import compiled_library


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "two.c"
    path.write_text("int two(void) { return 2; }\n")
    return path


def test_compiled_once(source, tmp_path):
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("needs a C compiler: install gcc or clang")
    assert compiled_library(source).two() == 2
    (made,) = (tmp_path / "cache" / "llie").iterdir()
    before = made.stat().st_mtime_ns
    assert compiled_library(source).two() == 2
    assert made.stat().st_mtime_ns == before


def failed(*args, **kwargs):
    return subprocess.CompletedProcess(args, 1, "", "first line\nno space left")


def too_long(*args, **kwargs):
    raise subprocess.TimeoutExpired("cc", 120)


@pytest.mark.parametrize(("run", "message"), [(failed, "no space left"), (too_long, "timed out")])
def test_a_compiler_that_fails(source, monkeypatch, run, message):
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(OSError, match=message):
        compiled_library(source)


def test_no_compiler(source, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="no C compiler"):
        compiled_library(source)


def missing():
    raise OSError("no C compiler found")


def test_convolutions_without_a_compiler(monkeypatch):
    monkeypatch.setattr(winograd.winograd_kernel, "prepare", missing)
    winograd._kernel_works.cache_clear()
    try:
        x, weight = torch.rand(1, 128, 32, 32), torch.rand(128, 128, 3, 3)
        with torch.no_grad():
            assert winograd.pays(x, weight)
            result = winograd.convolve_3x3(x, weight)
        torch.testing.assert_close(result, torch.nn.functional.conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-3)
    finally:
        monkeypatch.undo()
        winograd._kernel_works.cache_clear()
