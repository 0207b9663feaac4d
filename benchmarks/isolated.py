"""Run functions in separate processes: an error, a crash or a hang becomes a row of a table."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

Row = dict[str, Any]


def server() -> Any:
    """Starts processes quickly: they are forked from one that has imported everything, but has not used the GPU."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch's optimisers import torch._dynamo when they are first made, which takes seconds
    context.set_forkserver_preload(["llie.train", "llie.archs", "torch._dynamo", "torch.distributed.nn.functional"])
    return context


def run(function: Callable[..., dict[str, Any]], *arguments: Any, seconds: float, log: Path) -> Row:
    """Call a function of a module in a new process.

    Args:
        function: returns facts, as plain values.
        *arguments: its arguments.
        seconds: time limit; then the process is killed.
        log: file for everything that the process prints.

    Returns:
        `{"status": "ok", "seconds", **facts}`, or with the status "failed", "died" or "timeout" and a "reason".
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = server().Process(target=_child, args=(sender, log, function, arguments))
    start = time.monotonic()
    process.start()
    sender.close()
    row = _wait(process, receiver, seconds)
    row.setdefault("seconds", round(time.monotonic() - start, 2))
    return row


def _end_with_parent() -> None:
    """A check must not go on, and hold the GPU, after the script was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _wait(process: Any, receiver: Connection, seconds: float) -> Row:
    try:
        if not receiver.poll(seconds):
            process.kill()
            return {"status": "timeout", "reason": f"no result within {seconds:.0f} s"}
        return receiver.recv()
    except EOFError:  # it ended without a result
        process.join()
        return {"status": "died", "reason": _reason(process.exitcode)}
    finally:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()


def _reason(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _child(sender: Connection, log: Path, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    Thread(target=_end_with_parent, daemon=True).start()
    start = time.monotonic()
    try:
        row = {"status": "ok", "seconds": round(time.monotonic() - start, 2), **function(*arguments)}
        row["seconds"] = round(time.monotonic() - start, 2)
    except BaseException as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
        row = {"status": "failed", "reason": reason, "seconds": round(time.monotonic() - start, 2)}
    sender.send(row)
