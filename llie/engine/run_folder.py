"""The folder of a run, and the state it resumes from."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llie import __version__
from llie.engine import checkpoint
from llie.engine.distributed import broadcast, is_main
from llie.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def output_root(given: str | None, default: str) -> Path:
    """The folder of all runs or results; relative paths start at the repository, not at the working folder.

    Args:
        given: an option or argument of the user.
        default: folder name in the repository if nothing is given. An installed package, which is not in a repository,
            uses the working folder instead.
    """
    home = REPOSITORY if (REPOSITORY / "setup.py").exists() else Path.cwd()
    return home / Path(given or default).expanduser()


def state_to_resume(run_folder: Path, auto_resume: bool, explicit: str | None = None) -> dict[str, Any] | None:
    """The training state that a run resumes from, the same on all ranks; None for a new run.

    Raises:
        UserError: the folder contains a run, and the user did not ask to resume it.
    """
    state = None
    if is_main():
        saved = checkpoint.saved_iterations(run_folder)
        if explicit:
            state = checkpoint.read_state(Path(explicit).expanduser())
        elif auto_resume:
            state = checkpoint.newest_state(run_folder, tell=print)
        elif saved:
            raise UserError(
                f"{run_folder} already contains a run at iteration {saved[-1]}; resume it with --auto_resume, start "
                "another with --force_yml name=ANOTHER_NAME, or delete the folder"
            )
    return broadcast(state)  # only rank 0 needs access to the disk


def facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about its origin that a checkpoint contains, as plain values."""
    versions = {"llie": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return {"options": dict(options), "versions": versions, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
