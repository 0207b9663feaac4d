"""The files below a folder, through links."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: str | Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted; hidden files and folders are left out.

    Linked subfolders are followed, but each folder is read once: under its own name where it lies in `folder`, else
    under the first link to it. A link to `folder` itself or to one that contains it is a loop, and not followed.
    """
    top = Path(folder)
    around = set(top.resolve().parents)
    seen: set[Path] = set()
    found: list[Path] = []
    starts = [top]
    while starts:  # first all folders that are not links, then what links lead to, then the links in there
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
