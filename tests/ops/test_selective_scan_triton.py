"""The Triton kernels against the plain form; without a GPU, in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch

from llie.ops.selective_scan import selective_scan
from llie.ops.ss2d import ss2d
from tests.golden.compare import assert_near
from tests.ops import test_selective_scan, test_ss2d
from tests.processes import PATIENCE

gpu = pytest.importorskip("llie.ops.selective_scan.gpu", reason="needs Triton, which PyTorch brings on Linux")


def outputs_and_gradients(function, inputs, backend, device):
    leaves = {name: t.to(device).requires_grad_() for name, t in inputs.items()}
    outputs = function(**leaves, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weighted = sum((y * torch.arange(y.numel(), device=device).cos().view_as(y)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(weighted, list(leaves.values()))]


def compare(function, inputs, device):
    pairs = (outputs_and_gradients(function, inputs, backend, device) for backend in ("triton", "torch"))
    for ours, plain in zip(*pairs, strict=True):
        assert_near(ours, plain, 1e-5)


def scan(**inputs):
    return selective_scan(**inputs, delta_softplus=True, return_last_state=True)


def check(device):
    assert gpu.agrees_with_plain_form(device, batch=1, channels=1)  # the interpreter is slow
    compare(scan, test_selective_scan.example(batch=2, groups=1, channels=1, states=3, length=40), device)
    compare(scan, test_selective_scan.example(groups=1, channels=1, length=1), device)
    compare(scan, test_selective_scan.example(channels=1, length=32), device)
    compare(ss2d, test_ss2d.example(5, 7, batch=1, channels=1), device)
    torch.use_deterministic_algorithms(True)
    try:  # more channels than are kept apart at a time
        compare(scan, test_selective_scan.example(groups=1, channels=gpu.SLOTS + 1, states=3, length=9), device)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch finds")
def test_on_the_gpu():
    check("cuda")


@pytest.mark.skipif(
    gpu.triton.__version__.split(".")[:2] in (["3", "0"], ["3", "1"]),
    reason="before Triton 3.2 (torch 2.6) the interpreter stores no results with NumPy 2: pip install 'torch>=2.6'",
)
def test_in_the_interpreter():
    code = "from tests.ops.test_selective_scan_triton import check; check('cpu')"
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("answer", [False, ValueError("unsupported")])
def test_kernels_that_fail_their_check_are_not_used(monkeypatch, answer):
    def agrees(device):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(gpu, "_interpreted", lambda: False)
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "agrees_with_plain_form", agrees)
    with pytest.raises(RuntimeError, match=r"wrong results|unsupported"):
        gpu.prepare()
