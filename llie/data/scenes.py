"""Data sets with one folder of frames per scene, as packed by SNR-Aware and Retinexformer: SID, SMID, SDSD.

Scenes are matched by name. The split is a list of scene names, not a folder, so both phases may use the same roots.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from llie.data.packing import check_backend
from llie.data.pairing import Pair, find_sides, list_images, shorten
from llie.data.pairs import PairDataset
from llie.data.transforms import Augmentation
from llie.errors import UserError, suggest
from llie.registry import DATASET_REGISTRY

logger = logging.getLogger(__name__)

# The published test scenes; option files may give others.
SDSD_INDOOR_TEST = ("pair1", "pair4", "pair9", "pair11", "pair19", "pair21")
SDSD_OUTDOOR_TEST = tuple(f"MVI_{n:04}" for n in (898, 906, 928, 975, 997, 1001, 1003, 1026, 1030, 1032))
_SMID_TEST_NUMBERS = (
    7,
    9,
    10,
    12,
    13,
    20,
    36,
    37,
    39,
    47,
    48,
    49,
    50,
    51,
    52,
    65,
    66,
    75,
    76,
    78,
    83,
    88,
    91,
    92,
    99,
    103,
    104,
    105,
    106,
    107,
    129,
    139,
    145,
    147,
    151,
    153,
    154,
    157,
    166,
    167,
    169,
    170,
    172,
    175,
    177,
    180,
    181,
    191,
    196,
)
SMID_TEST = tuple(f"{n:04}" for n in _SMID_TEST_NUMBERS)

Scenes = dict[str, list[Path]]


class SceneDataset(PairDataset):
    """The common part of the three sets; subclasses define the test scenes and the pairs of frames."""

    def __init__(
        self,
        dataroot_lq: str | None = None,
        dataroot_gt: str | None = None,
        dataroot: str | None = None,
        testing_dir: str | list[str] | None = None,
        exclude: list[str] | None = None,
        frames_per_scene: int | None = None,
        train_size: tuple[int, int] | None = (960, 512),
        gt_size: int | None = None,
        use_flip: bool = False,
        use_rot: bool = False,
        io_backend: dict[str, Any] | None = None,
        cache: Literal["none", "ram"] = "none",
        phase: str = "train",
        seed: int = 0,
    ):
        """Find the scenes of a phase and pair their frames.

        Args:
            dataroot_lq: folder of the input scenes.
            dataroot_gt: folder of the reference scenes.
            dataroot: instead of both: the folder that contains them, under their published names.
            testing_dir: names of the test scenes (a list, or text with commas); null: the published ones.
            exclude: scenes to leave out, such as the withdrawn 10034, 10045 and 10172 of SID.
            frames_per_scene: number of frames to use from the start of each scene (30 in SNR-Aware's test); null: all.
            train_size: width and height that `.npy` frames are resized to when read, in both phases; null keeps them.
            gt_size: side of the random crop in training; null: whole frames.
            use_flip: flip left to right at random.
            use_rot: flip upside down at random (the meaning of the word for these sets).
            io_backend: `{type: disk}` or `{type: lmdb}`; a folder `*.lmdb` is recognised without it.
            cache: "ram" keeps decoded frames in memory, shared by forked workers.
            phase: "train": the training scenes, with augmentation; otherwise the test scenes.
            seed: seed of the augmentation.
        """
        if dataroot is not None and dataroot_lq is None and dataroot_gt is None:
            low, high = find_sides(dataroot, phase)
        elif dataroot is None and dataroot_lq is not None and dataroot_gt is not None:
            low, high = Path(dataroot_lq), Path(dataroot_gt)
        else:
            raise UserError("set both dataroot_lq and dataroot_gt, or only dataroot")
        check_backend(io_backend, [low, high])
        inputs, references = scenes_of(low), scenes_of(high)
        if isinstance(testing_dir, str):
            testing_dir = [name.strip() for name in testing_dir.split(",") if name.strip()]
        is_test = self.test_rule(inputs, testing_dir, low)
        chosen = [name for name in inputs if is_test(name) != (phase == "train") and name not in (exclude or ())]
        if not chosen:
            raise UserError(
                f"none of the {len(inputs)} scenes in {low} is for {phase!r} (first: {next(iter(inputs))}); "
                "name the test scenes: testing_dir, or for SMID the file test_list.txt beside the data"
            )
        if missing := [low / name for name in chosen if name not in references]:
            raise UserError(f"{len(missing)} scenes have no reference in {high}: {shorten(missing)}")
        pairs = [pair for name in chosen for pair in self.pair_scene(inputs[name], references[name])[:frames_per_scene]]
        augment = Augmentation(crop=gt_size, hflip=use_flip, vflip=use_rot)
        super().__init__(pairs, augment if phase == "train" else None, npy_size=train_size, cache=cache, seed=seed)

    def test_rule(self, scenes: Iterable[str], names: Sequence[str] | None, root: Path) -> Callable[[str], bool]:
        """A function that decides whether a scene is a test scene; `names` are the user's test scenes, if any."""
        raise NotImplementedError  # every set has its own rule

    def pair_scene(self, inputs: list[Path], references: list[Path]) -> list[Pair]:
        """The pairs of one scene; here the first reference, for all inputs."""
        return [Pair(path, references[0]) for path in inputs]


@DATASET_REGISTRY.register()
class SIDDataset(SceneDataset):
    """SID (Sony): `short_sid2/ID/*.npy` and `long_sid2/ID/*.npy`, or PNG as in Sony-Total-Dark.

    Scenes with names that begin with 0 or 2 are for training, those with 1 for testing. The first long exposure is the
    reference of all frames.
    """

    def test_rule(self, scenes: Iterable[str], names: Sequence[str] | None, root: Path) -> Callable[[str], bool]:
        """The user's names, or else the first digit."""
        return _named(names, scenes) if names else lambda scene: scene.startswith("1")


@DATASET_REGISTRY.register()
class SMIDDataset(SceneDataset):
    """SMID: `SMID_LQ_np/0001/*.npy` and `SMID_Long_np/0001/*.npy`; test scenes in `test_list.txt` or as published.

    The reference of all frames is the first long exposure whose name contains neither `half` nor `.ARW`.
    """

    def test_rule(self, scenes: Iterable[str], names: Sequence[str] | None, root: Path) -> Callable[[str], bool]:
        """The user's names, or else those of the list beside the data, or else the published ones."""
        if names:
            return _named(names, scenes)
        folders = (root.parent, root, *sorted(path for path in root.parent.iterdir() if path.is_dir()))
        lists = [folder / name for folder in folders for name in ("test_list.txt", "text_list.txt")]
        found = next((path for path in lists if path.is_file()), None)
        listed = SMID_TEST if found is None else [Path(n).name for n in found.read_text(encoding="utf-8").split()]
        return frozenset(listed).__contains__

    def pair_scene(self, inputs: list[Path], references: list[Path]) -> list[Pair]:
        """All frames, with the first valid long exposure."""
        proper = [path for path in references if "half" not in path.name and ".ARW" not in path.name]
        if not proper:
            raise UserError(f"{references[0].parent} contains no long exposures other than half and .ARW ones")
        return super().pair_scene(inputs, proper)


@DATASET_REGISTRY.register()
class SDSDDataset(SceneDataset):
    """SDSD, static version: `{indoor,outdoor}_static_np/{input,GT}/SCENE/*.npy`, frame by frame.

    A scene and its twin are in the same split: `MVI_0898_2` belongs to `MVI_0898`.
    """

    def test_rule(self, scenes: Iterable[str], names: Sequence[str] | None, root: Path) -> Callable[[str], bool]:
        """The user's names, or else the published ones of indoor and outdoor scenes."""

        def first_twin(scene: str) -> str:
            return re.sub("_2$", "", scene)

        published = frozenset(SDSD_INDOOR_TEST + SDSD_OUTDOOR_TEST)
        test = _named(names, {*scenes, *map(first_twin, scenes)}) if names else published.__contains__
        return lambda scene: test(scene) or test(first_twin(scene))

    def pair_scene(self, inputs: list[Path], references: list[Path]) -> list[Pair]:
        """Frames with the same name."""
        by_name = {path.stem: path for path in references}
        lonely = [path for path in inputs if path.stem not in by_name]
        lonely += [by_name[name] for name in by_name.keys() - {path.stem for path in inputs}]
        if lonely:
            raise UserError(f"{len(lonely)} frames of {inputs[0].parent} have no partner: {shorten(lonely)}")
        return [Pair(path, by_name[path.stem]) for path in inputs]


def scenes_of(root: Path) -> Scenes:
    """Frames by scene: the first folder below the root, or for files in the root the name up to `_`."""
    scenes: Scenes = defaultdict(list)
    for path in list_images(root):
        below = path.relative_to(root)
        scenes[below.parts[0] if len(below.parts) > 1 else below.stem.split("_")[0]].append(path)
    return scenes


def _named(names: Sequence[str], scenes: Iterable[str]) -> Callable[[str], bool]:
    """Membership in the user's test scenes; a missing one may be misspelt, or its data absent, so it is a warning."""
    known = frozenset(scenes)
    for name in names:
        if name not in known:
            logger.warning("testing_dir names the scene %r, which does not exist.%s", name, suggest(name, known))
    return frozenset(names).__contains__
