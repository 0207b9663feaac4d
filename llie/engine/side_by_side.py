"""Several commands at the same time, each with its share of the GPUs or of the processor's cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock
from typing import Any


def side_by_side(commands: Mapping[str, Sequence[str]], jobs: int, gpus: Sequence[str]) -> dict[str, int]:
    """Run commands of Python, at most `jobs` at a time, and print their lines behind their names.

    SIGTERM and Ctrl-C are passed on to those that run, and no others begin. A failure does not stop the others.

    Args:
        commands: name -> arguments of the Python interpreter.
        jobs: number of commands at the same time, at least 1.
        gpus: the visible GPUs, by number or UUID, which are shared out; none: the processor's cores are.

    Returns:
        The exit code of each command by name; 128 + the signal's number for those that did not begin.
    """
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(jobs):
        places.put(place)
    printing = Lock()

    with _passed_on() as running, ThreadPoolExecutor(jobs) as pool:

        def run(name: str) -> int:
            place = places.get()
            try:
                process = running.start(commands[name], os.environ | _share(place, jobs, gpus))
                if process is None:
                    return running.code()
                for line in process.stdout or ():
                    with printing:
                        print(f"{name}: {line}", end="", flush=True)
                return process.wait()
            finally:
                places.put(place)

        codes = dict(zip(commands, pool.map(run, commands), strict=True))
    return {name: 128 - code if code < 0 else code for name, code in codes.items()}


def _share(place: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """Environment of one of `jobs` commands: every jobs-th GPU, or one that it shares, or some of the cores."""
    if gpus:
        own = gpus[place::jobs] or [gpus[place % len(gpus)]]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}


class _Running:
    """The processes that run, to which signals are passed on."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.signal = 0

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str] | None:
        """Start a process; None after a signal."""
        if self.signal:
            return None
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(environment),
            start_new_session=True,  # signals of the terminal arrive once, through this process
        )
        self.processes.append(process)
        return process

    def stop(self, number: int, _: Any) -> None:
        """Pass a signal on."""
        self.signal = number
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def code(self) -> int:
        """The exit code of a command that did not begin."""
        return 128 + self.signal


@contextmanager
def _passed_on() -> Iterator[_Running]:
    running = _Running()
    before = {number: signal.signal(number, running.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
