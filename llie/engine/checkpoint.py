"""Checkpoints that survive kills, full disks and broken files.

    models/net_g_<iteration>.pth, net_g_latest.pth, net_g_best.pth    for use: {"params", "params_ema"?, facts}
    training_states/<iteration>.state                                 for resuming: everything, networks included

A state holds all that resuming needs, so the one rename that puts it in place is the moment a checkpoint exists:
whatever happens between the files of one checkpoint, the newest state is whole. Files hold only tensors and plain
values.
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
    """The bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Put a file in place as a whole: after a crash at any moment either the old or the new one is there.

    Raises:
        UserError: the folder cannot be written or the disk is full.
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
        with suppress(OSError):  # its folder may be what is wrong
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
    """A training state, checked as a whole.

    Raises:
        UserError: the file is missing, cut off, damaged, or not a training state.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load itself does not compare checksums
        if damaged:
            raise UserError(f"training state {path} is damaged (record {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"cannot read the training state {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not {"iteration", "networks", "optimizers"} <= state.keys():
        raise UserError(f"{path} is not a training state of llie (it lacks the iteration, networks or optimisers)")
    return state


def saved_iterations(run_folder: Path) -> list[int]:
    """Iterations that a training state was saved for, oldest first (valid or not)."""
    return sorted(int(path.stem) for path in (run_folder / STATES).glob("*.state") if path.stem.isdigit())


def newest_state(run_folder: Path, tell: Callable[[str], object]) -> dict[str, Any] | None:
    """The newest training state that can be read; `tell` gets a line about each one that cannot.

    Returns:
        The state, or None when the run has none.

    Raises:
        UserError: there are states, but none can be read.
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
        state: all that resuming needs; `state["iteration"]` names the files.
        networks: contents of the `net_<name>` files.
        keep_last: how many checkpoints stay.
    """
    iteration = state["iteration"]
    for name, content in networks.items():
        save_network(run_folder, name, content, str(iteration), "latest")
    # Last: from now on the checkpoint counts.
    write_atomically(run_folder / STATES / f"{iteration}.state", serialise(state))
    # A damaged state of a later iteration, left behind by a fall-back, must not count as one of those kept.
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
