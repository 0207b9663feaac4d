"""Keeps encoders from taking the machine for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")  # this process's threads


@contextmanager
def usual_priority() -> Iterator[None]:
    """Afterwards, all threads of this process are scheduled as this one was before.

    SVT-AV1, opened by root, gives them real-time priority, for which everything else on the machine has to wait.
    """
    if not TASKS.is_dir():
        yield  # not Linux
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for task in (int(entry.name) for entry in TASKS.iterdir()):
            with suppress(OSError):  # it ended meanwhile
                if os.sched_getscheduler(task) != policy:
                    os.sched_setscheduler(task, policy, parameters)
