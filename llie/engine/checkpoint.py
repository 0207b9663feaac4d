"""Checkpoints that survive kills, full disks and broken files.

    models/net_g_<iteration>.pth, net_g_latest.pth, net_g_best.pth    for use: {"params", "params_ema"?, facts}
    training_states/<iteration>.state                                 for resuming: everything, networks included

A state contains everything that resuming needs, and a single rename puts it in place. So the newest state is complete
even if the process is killed between the files of a checkpoint. Files contain only tensors and plain values.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from llie.errors import UserError

MODELS, STATES = "models", "training_states"


def serialise(content: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash at any moment, either the old or the new file is complete.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be the problem
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror}); free some space or make the folder writable, then continue the "
            "run with --auto_resume: the last complete checkpoint is kept"
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened, and renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> dict[str, Any]:
    """Read a training state, and verify its checksums.

    Raises:
        UserError: the file is missing, cut off, damaged, or not a training state.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare checksums
        if damaged:
            raise UserError(f"training state {path} is damaged (record {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"cannot read the training state {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not {"iteration", "networks", "optimizers"} <= state.keys():
        raise UserError(f"{path} is not a training state of llie (it lacks the iteration, networks or optimisers)")
    return state


def saved_iterations(run_folder: Path) -> list[int]:
    """Iterations with a saved training state, oldest first, valid or not."""
    return sorted(int(path.stem) for path in (run_folder / STATES).glob("*.state") if path.stem.isdigit())


def newest_state(run_folder: Path, tell: Callable[[str], object]) -> dict[str, Any] | None:
    """The newest readable training state; `tell` is called with a line about each unreadable one.

    Returns:
        The state, or None if the run has none.

    Raises:
        UserError: there are states, but none is readable.
    """
    iterations = saved_iterations(run_folder)
    for iteration in reversed(iterations):
        try:
            return read_state(run_folder / STATES / f"{iteration}.state")
        except UserError as error:
            tell(f"{error}; falling back to the one before it")
    if iterations:
        raise UserError(f"none of the {len(iterations)} training states in {run_folder / STATES} can be read")
    return None


def save(run_folder: Path, state: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]], keep_last: int) -> None:
    """Write a checkpoint, then delete those older than the last `keep_last`.

    Args:
        run_folder: where `models` and `training_states` are.
        state: everything that resuming needs; `state["iteration"]` is part of the file names.
        networks: contents of the `net_<name>` files.
        keep_last: number of checkpoints to keep.
    """
    iteration = state["iteration"]
    for name, content in networks.items():
        save_network(run_folder, name, content, str(iteration), "latest")
    # Written last: from now on the checkpoint is valid.
    write_atomically(run_folder / STATES / f"{iteration}.state", serialise(state))
    # A damaged state of a later iteration, which resuming skipped, must not count as one of those kept.
    kept = [saved for saved in saved_iterations(run_folder) if saved <= iteration][-keep_last:]
    for old in [*(run_folder / STATES).glob("*.state"), *(run_folder / MODELS).glob("net_*_*.pth")]:
        number = old.stem.rpartition("_")[2]
        if number.isdigit() and int(number) not in kept and int(number) <= iteration:
            old.unlink(missing_ok=True)


def save_network(run_folder: Path, name: str, content: Mapping[str, Any], *labels: str) -> None:
    """Write `net_<name>_<label>.pth` for each label."""
    data = serialise(content)
    for label in labels:
        write_atomically(run_folder / MODELS / f"net_{name}_{label}.pth", data)
