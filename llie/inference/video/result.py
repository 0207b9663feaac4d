"""The result of enhancing a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class VideoResult:
    """What was written.

    Attributes:
        path: the written file.
        frames: number of its frames.
        seconds: from the beginning of the first frame to the end of the last.
        notes: what the user should know, for instance that a stream was left out.
    """

    path: Path
    frames: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def partial_of(target: Path) -> Path:
    """The path of an unfinished result. The next run begins anew, and deletes this file when it is done."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")
