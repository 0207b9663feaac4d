"""Where a run lives, and what it is continued from."""

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
    """The folder of all runs or results: as given, relative paths as seen from the repository, never the cwd.

    Args:
        given: an option or argument of the user.
        default: folder name in the repository when nothing is given. An installed package, which has no repository
            around it, writes to the working folder instead.
    """
    home = REPOSITORY if (REPOSITORY / "setup.py").exists() else Path.cwd()
    return home / Path(given or default).expanduser()


def state_to_resume(run_folder: Path, auto_resume: bool, explicit: str | None = None) -> dict[str, Any] | None:
    """The training state a run starts from, the same on all ranks; None for a fresh start.

    Raises:
        UserError: the folder holds a run already and nobody said that it should be continued.
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
                f"{run_folder} holds a run at iteration {saved[-1]} already; continue it with --auto_resume, start "
                "another with --force_yml name=ANOTHER_NAME, or delete the folder"
            )
    return broadcast(state)  # only rank 0 needs to see the disk


def facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its origin, as plain values."""
    versions = {"llie": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return {"options": dict(options), "versions": versions, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
