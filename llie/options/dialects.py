"""Option files of other toolkits: translation of their keys, and a message about the older dialect of EDVR."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llie.errors import UserError
from llie.options.files import SHIPPED, dump_yaml
from llie.options.schema import KEY_ALIASES, VALUE_ALIASES

# Folders of our recipes for networks of the older dialect; recipes of other networks are beside these folders.
_RECIPES = {"low_light_transformer": "snr_aware", "low_light_transformer4": "lfpv"}


def refuse_older_dialect(values: dict[str, Any], path: Path, phase: str) -> None:
    """Report a file in the dialect of EDVR, older than BasicSR 1.0, once, instead of each of its keys.

    Raises:
        UserError: it is such a file; the message names our recipe for its network and data set.
    """
    network = values.get("network_G")
    if "model" not in values or not isinstance(network, dict) or "which_model_G" not in network:
        return
    theirs = str(network["which_model_G"])
    recipe = _recipe(theirs, path.stem, dump_yaml(values.get("datasets")), "test" if phase == "test" else "train")
    raise UserError(
        f"{path} is written in the older dialect of EDVR (model: {values['model']}, network_G: {{which_model_G: "
        f"{theirs}}}), which does not run here; start from {recipe} and carry over what you changed "
        "(docs/coming-from.md says which key became which)"
    )


def _recipe(network: str, stem: str, datasets: str, phase: str) -> str:
    folder = SHIPPED / phase
    names = sorted((file.stem for file in folder.glob("*.yml")), key=len, reverse=True)  # LOLv2_real before LOL
    found = [name for text in (stem, datasets) for name in names if _fold(name) in _fold(text)]
    places = (f"{_RECIPES.get(network, '.')}/{found[0]}.yml", f"{found[0]}.yml") if found else ()
    chosen = next((place for place in places if (folder / place).is_file()), "custom.yml")
    return (Path("options") / phase / chosen).as_posix()


def _fold(text: str) -> str:
    return re.sub(r"[-_ ]", "", text).lower()


def rename(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Rename other toolkits' keys to ours, so that later code has one name per option."""
    for theirs, ours in KEY_ALIASES.items():
        *folders, old = theirs.split(".")
        holder = _section(values, folders)
        if holder is None or old not in holder:
            continue
        *folders, new = ours.split(".")
        target = _section(values, folders, create=True)
        if target is None:
            continue  # reported later: it is not a section
        if new in target:
            raise UserError(f"{origins.get(theirs, '')}: {theirs} is another name for {ours}; give only one of them")
        target[new] = holder.pop(old)
        meanings = VALUE_ALIASES.get(theirs, {})
        if isinstance(target[new], bool) and target[new] in meanings:
            target[new] = meanings[target[new]]
        for path in [path for path in origins if path == theirs or path.startswith(theirs + ".")]:
            origins[ours + path.removeprefix(theirs)] = origins[path]


def _section(values: Any, folders: Sequence[str], create: bool = False) -> dict[str, Any] | None:
    for folder in folders:
        if not isinstance(values, dict):
            return None
        if create and values.get(folder) is None:
            values[folder] = {}
        values = values.get(folder)
    return values if isinstance(values, dict) else None
