"""Finding weights: files, run folders, the Hugging Face hub, and the folders of downloaded backbones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from llie.archs import card_of
from llie.errors import UserError, suggest
from llie.registry import ARCH_REGISTRY
from llie.weights.files import checkpoints_in, listing

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def resolve_checkpoint(text: str) -> Path:
    """The checkpoint file that the user means.

    Args:
        text: a file; a run folder, or the name of a run in `experiments/` (its best weights, or else its latest); or
            `hf:OWNER/REPO[/FILE]` for the Hugging Face hub, the only form that uses the internet.
    """
    if text.startswith("hf:"):
        return _from_hub(text)
    path = Path(text).expanduser()
    homes = (Path.cwd(), Path(__file__).resolve().parents[2])  # training writes to the second
    for place in (home / folder / path for folder in ("", "experiments") for home in homes):
        if place.is_file():
            return place
        if place.is_dir():
            return _newest(place)
    known = [place.name for home in homes for place in (home / "experiments").glob("*/")]
    known += [name for own, network in ARCH_REGISTRY for name in (own, *card_of(network).presets)]
    raise UserError(
        f"no checkpoint {text!r}: not a file, a run folder, or a run under experiments/; "
        "train it first, or give an existing checkpoint." + suggest(path.name, [*checkpoints_in(path.parent), *known])
    )


def find_weights(filename: str, option: str | Path | None = None) -> Path | None:
    """Find a weight file that a loss or metric needs (VGG19, AlexNet ...), in the usual folders.

    Args:
        filename: for instance `vgg19-dcbb9e9d.pth`.
        option: path from an option file: the file or its folder.

    Returns:
        The file at `option`, in the folder `$LLIE_WEIGHTS` or in torch hub's cache, in this order; None if there is
        none.

    Raises:
        UserError: `option` is given but the file does not exist.
    """
    if option is not None:
        path = Path(option).expanduser()
        path = path / filename if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"no weights at {path}: set the option to {filename} or to its folder")
        return path
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if os.environ.get("LLIE_WEIGHTS"):
        folders.insert(0, Path(os.environ["LLIE_WEIGHTS"]).expanduser())
    return next((folder / filename for folder in folders if (folder / filename).is_file()), None)


def _newest(folder: Path) -> Path:
    """The best network of a run folder, or else the latest, or else the one with the highest number."""

    def rank(path: Path) -> tuple[int, int]:
        number = re.search(r"_(\d+)$", path.stem)
        return ("latest" in path.stem) + 2 * ("best" in path.stem), int(number[1]) if number else -1

    found = [path for place in (folder / "models", folder) for path in place.glob("net_g_*.pth")]
    if not found:
        raise UserError(f"{folder} contains no networks (net_g_*.pth, in it or in its models/){listing(folder)}")
    return max(found, key=rank)


def _from_hub(text: str) -> Path:
    owner, repository, *inside = [*text.removeprefix("hf:").split("/"), ""]
    filename = "/".join(inside).strip("/")
    if not owner or not repository:
        raise UserError(f"{text!r} is not a repository; write hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(f"{text} needs the package huggingface_hub: pip install 'llie[hub]'") from None
    for name in (filename,) if filename else _HUB_FILES:
        try:
            return Path(hf_hub_download(f"{owner}/{repository}", name))
        except LocalEntryNotFoundError:  # a subclass of EntryNotFoundError; the hub could not be reached
            raise UserError(f"cannot fetch {name} of {text}: not in the local cache, and no connection") from None
        except EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors, malformed names ValueErrors
            raise UserError(f"cannot fetch {name} of {text}: {str(error).splitlines()[0]}") from None
    raise UserError(f"{text} contains no {filename or ' or '.join(_HUB_FILES)}; name the file: hf:OWNER/REPO/FILE")
