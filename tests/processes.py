"""Processes that tests start: forked from a server that has imported everything, so that each begins at once.

No test depends on the clock: each waits for an event, and PATIENCE only ends a test that would wait forever.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from llie import train

PATIENCE = 600.0  # seconds, for a deadlock; a loaded machine needs less


def server() -> multiprocessing.context.BaseContext:
    """What starts processes: by forking from a server with `tests.preload`, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preload"])
    return context


def together(function: Callable[..., object], *arguments: object, processes: int = 2) -> None:
    """Run `function(rank, *arguments)` in that many processes and wait; the test fails where one of them does."""
    group = [server().Process(target=function, args=(rank, *arguments)) for rank in range(processes)]
    for process in group:
        process.start()
    codes = finish(group)
    assert codes == [0] * processes, codes


def answers(function: Callable[..., object], *arguments: object, processes: int = 1, **environment: str) -> list[Any]:
    """What `function(*arguments)` returns in processes of their own, started together with more in their environment.

    They have imported what training does, and done nothing yet.
    """
    pipes = [server().Pipe(duplex=False) for _ in range(processes)]
    arguments = (environment, function, arguments)
    group = [server().Process(target=_answer, args=(sender, *arguments)) for _, sender in pipes]
    for process in group:
        process.start()
    for _, sender in pipes:
        sender.close()  # so that a process that dies ends the wait below
    found = []
    for receiver, _ in pipes:
        with contextlib.suppress(EOFError):
            found.append(receiver.recv())
    assert finish(group) == [0] * processes
    return found


def _answer(sender: Any, environment: dict[str, str], function: Callable[..., object], arguments: Any) -> None:
    os.environ.update(environment)
    sender.send(function(*arguments))


def train_in_child(argv: list[str], environment: dict[str, str], die_at_sync: int | None, log: str) -> None:
    """Train; if wanted, die in the middle of writing a file: at the n-th sync, with half of its bytes on disk."""
    os.environ.update(environment)
    os.setpgid(0, 0)
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    real_sync, calls = os.fsync, iter(range(10**9))

    def sync(descriptor: int) -> None:
        if next(calls) == die_at_sync:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.killpg(0, signal.SIGKILL)
        real_sync(descriptor)

    os.fsync = sync
    sys.exit(train.main(argv))


class Children:
    """Starts training processes, one group at a call; `close` ends those that still run."""

    def __init__(self) -> None:
        self.started: list[multiprocessing.process.BaseProcess] = []

    def __call__(
        self, argv: list[str], log: Path, processes: int = 1, die_at_sync: int | None = None
    ) -> list[multiprocessing.process.BaseProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        group = []
        for rank in range(processes):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            environment = ranks | place if processes > 1 else {}
            dies = die_at_sync if rank == 0 else None
            child = server().Process(target=train_in_child, args=(argv, environment, dies, str(log)))
            child.start()
            group.append(child)
        self.started.extend(group)
        return group

    def close(self) -> None:
        for child in self.started:
            if child.is_alive():
                child.kill()


def finish(group: Sequence[multiprocessing.process.BaseProcess], grace: float = 0.0) -> list[int | None]:
    """Wait for all; kill the rest when one has died, after the seconds of grace that a launcher gives them."""
    end = time.monotonic() + PATIENCE
    while any(child.is_alive() for child in group) and time.monotonic() < end:
        for child in group:
            child.join(0.02)
        if any(child.exitcode not in (0, None) for child in group):
            for child in group:
                child.join(grace)
            kill(group)
    return [child.exitcode for child in group]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def kill(group: Sequence[multiprocessing.process.BaseProcess]) -> None:
    for child in group:
        if child.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with its loader's workers, if it leads a group yet
            child.kill()
    for child in group:
        child.join()
