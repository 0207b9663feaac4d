"""What became of a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class VideoResult:
    """What was written.

    Attributes:
        path: the file.
        frames: how many there are in it.
        seconds: from the beginning of the first to the end of the last.
        notes: what a user should know (a stream was left out ...).
    """

    path: Path
    frames: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def partial_of(target: Path) -> Path:
    """Where an unfinished result goes, which is no result: the next run begins anew, and removes it when it is done."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")
