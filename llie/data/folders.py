"""Finding the files below a folder, through links."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: str | Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted; hidden files and folders are left out.

    Links to folders are followed, but each folder is read once: under its own name if it is in `folder`, or else under
    the first link to it. A link to `folder` or to a folder that contains it is a loop, which is not followed.
    """
    top = Path(folder)
    around = set(top.resolve().parents)
    seen: set[Path] = set()
    found: list[Path] = []
    starts = [top]
    while starts:  # first all real folders, then the targets of links, then the links in these
        links: list[Path] = []
        for place, subfolders, names in (step for start in starts for step in os.walk(start)):
            here = Path(place)
            real = here.resolve()
            if real in seen or real in around:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
            links += [here / name for name in subfolders if (here / name).is_symlink()]
            found += [here / name for name in names if name[0] != "."]
        starts = links
    return sorted(found)
