"""`llie serve` as a process of its own: it finishes what it accepted, and says so in its exit code."""

import os
import signal
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from llie import cli
from llie.data.decoding import decode
from tests.processes import PATIENCE, server, wait_until
from tests.server.test_enhance import PNG, dark

# A network that is as slow as a test wants it: it says that it has begun, and waits for a file.
PLUGIN = """
import pathlib, time
from torch import nn
from llie.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class Waiting(nn.Module):
    def forward(self, x):
        if x[0].numel() != 3 * 64 * 64:  # the first picture is the server's own
            pathlib.Path("begun").touch()
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
        return x * 2
"""


def serve_in_child(words: list[str]) -> None:
    with Path("log").open("w") as log:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    sys.exit(cli.main(["serve", *words]))


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A running server, and its address."""
    monkeypatch.chdir(tmp_path)
    Path("plugin.py").write_text(PLUGIN)
    words = ["--plugin", "plugin.py", "--model", "Waiting", "--device", "cpu", "--port", "0"]
    words += ["--grace", str(PATIENCE), "--timeout", str(PATIENCE)]
    process = server().Process(target=serve_in_child, args=(words,))
    process.start()
    wait_until(lambda: not process.is_alive() or (Path("log").exists() and "listening" in Path("log").read_text()))
    yield process, Path("log").read_text().split()[-1]
    process.kill()
    process.join()


def ended(process) -> int:
    process.join(PATIENCE)
    return process.exitcode


def ask(address: str, answers: list[httpx.Response]) -> threading.Thread:
    """Send a picture, and wait until the network has it."""
    thread = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{address}/enhance", content=PNG, timeout=PATIENCE)), daemon=True
    )
    thread.start()
    wait_until(Path("begun").exists)
    return thread


def test_sigterm_finishes_what_was_accepted(started):
    process, address = started
    answers = []
    thread = ask(address, answers)
    os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{address}/healthz", timeout=PATIENCE).status_code == 503)
    refused = httpx.post(f"{address}/enhance", content=PNG, timeout=PATIENCE)
    assert (refused.status_code, refused.json()) == (503, {"error": "the server is stopping; send the picture again"})
    assert process.is_alive() and not answers
    Path("go").touch()
    thread.join(PATIENCE)
    assert answers[0].status_code == 200
    assert np.array_equal(decode(answers[0].content, "a").pixels, dark() * 2)
    assert ended(process) == 0
    assert "Traceback" not in Path("log").read_text()


def test_a_second_ctrl_c_ends_the_waiting(started):
    process, address = started
    answers = []
    thread = ask(address, answers)
    os.kill(process.pid, signal.SIGINT)
    wait_until(lambda: httpx.get(f"{address}/healthz", timeout=PATIENCE).status_code == 503)
    os.kill(process.pid, signal.SIGINT)
    thread.join(PATIENCE)
    assert (answers[0].status_code, answers[0].json()["error"]) == (503, "the server stopped; send the picture again")
    assert ended(process) == 1, "though the network never came to an end"
    log = Path("log").read_text()
    assert "stopped; 1 accepted requests were not finished" in log and "Traceback" not in log
