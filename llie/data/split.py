"""Split validation images off a training set, so that the choice of a checkpoint never sees a test image."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llie.data.pairing import Pair
from llie.errors import UserError


def split_off(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """Divide a training set in two; the same seed gives the same division.

    Inputs of one reference stay together. Clips, that is, folders of references, stay together if `share` of their
    number is at least one.

    Args:
        dataset: a data set of pairs (`PairDataset`), as for training.
        share: of the validation set, between 0 and 1.
        seed: of the division.

    Returns:
        The rest for training, and the validation set: whole images, without augmentation.

    Raises:
        UserError: the data set has no list of pairs, or one side would be empty.
    """
    if not hasattr(dataset, "pairs") or not hasattr(dataset, "augment"):
        raise UserError(f"{type(dataset).__name__} has no list of pairs that validation images could be split off")
    groups = _groups(dataset.pairs, share)
    names = sorted(set(groups))
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise UserError(f"split: {share} of {len(names)} images leaves nothing for training; lower it or add images")
    chosen = {names[place] for place in np.random.default_rng(seed).permutation(len(names))[:count]}
    training, validation = copy.copy(dataset), copy.copy(dataset)
    training.pairs = [pair for pair, group in zip(dataset.pairs, groups, strict=True) if group not in chosen]
    validation.pairs = [pair for pair, group in zip(dataset.pairs, groups, strict=True) if group in chosen]
    validation.augment = None
    return training, validation


def _groups(pairs: Sequence[Pair], share: float) -> list[Path]:
    """The clip or reference of each pair."""
    references = [Path(pair.lq if pair.gt is None else pair.gt) for pair in pairs]
    clips = [reference.parent for reference in references]
    return clips if len(set(clips)) > 1 and share * len(set(clips)) >= 1 else references
