"""Validation images split off a training set."""

from pathlib import Path

import pytest

from llie.data.pairing import Pair
from llie.data.pairs import PairDataset
from llie.data.split import split_off
from llie.data.transforms import Augmentation
from llie.errors import UserError


def dataset(pairs):
    return PairDataset(pairs, Augmentation(crop=8), seed=3)


def flat(count):
    return [Pair(Path(f"low/{number}.png"), Path(f"high/{number}.png")) for number in range(count)]


def test_both_sides_together_are_the_whole_and_share_nothing():
    whole = dataset(flat(40))
    training, validation = split_off(whole, 0.1, seed=0)
    assert len(validation) == 4 and len(training) == 36 and len(whole) == 40
    assert {*training.pairs} | {*validation.pairs} == {*whole.pairs}
    assert validation.augment is None and training.augment is whole.augment


def test_the_seed_decides():
    whole = dataset(flat(40))
    first, again, other = (split_off(whole, 0.2, seed)[1].pairs for seed in (0, 0, 1))
    assert first == again != other


def test_inputs_of_one_reference_stay_together():
    pairs = [Pair(Path(f"low/{scene}_{n}.png"), Path(f"high/{scene}.png")) for scene in range(10) for n in range(3)]
    training, validation = split_off(dataset(pairs), 0.2, seed=0)
    assert len(validation) == 6
    assert not {pair.gt for pair in training.pairs} & {pair.gt for pair in validation.pairs}


def test_clips_stay_together_where_there_are_enough():
    pairs = [Pair(Path(f"low/{clip}/{n}.png"), Path(f"high/{clip}/{n}.png")) for clip in range(10) for n in range(5)]
    training, validation = split_off(dataset(pairs), 0.2, seed=0)
    assert len({pair.gt.parent for pair in validation.pairs}) == 2 and len(validation) == 10
    assert not {pair.gt.parent for pair in training.pairs} & {pair.gt.parent for pair in validation.pairs}
    assert len(split_off(dataset(pairs), 0.06, seed=0)[1]) == 3  # less than a clip: single images


def test_what_cannot_be_split():
    with pytest.raises(UserError, match="leaves nothing for training"):
        split_off(dataset(flat(1)), 0.5, seed=0)
    with pytest.raises(UserError, match="no list of pairs"):
        split_off([1, 2], 0.5, seed=0)
