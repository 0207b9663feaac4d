"""SID, SMID and SDSD: the same items as the published loaders, on a synthetic tree that was read with those loaders."""

import cv2
import numpy as np
import pytest
import torch

from llie.data import build_dataset
from llie.errors import UserError

SDSD_TEST = "pair11,pair21,pair1,pair19,pair4,pair9"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """All files of the golden tree, each 4x4 and of its own colour, with SMID's list of test scenes."""
    from tests.conftest import Golden

    golden = Golden("snr_data")
    root = tmp_path_factory.mktemp("tree")
    for number, name in enumerate(golden.meta["files"]):
        if name.endswith(".npy"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / name, np.full((4, 4, 3), number % 256, np.uint8))
    return root, golden


def items(dataset, root):
    return [tuple(path.relative_to(root).as_posix() for path in pair) for pair in dataset.pairs]


def expected(golden, name):
    return [(record["lq"], record["gt"]) for record in golden.meta["expected"][name]]


CASES = {
    "SMID_train": ("SMIDDataset", {"dataroot_lq": "SMID_LQ_np", "dataroot_gt": "SMID_Long_np"}, "train"),
    "SMID_test": (
        "SMIDDataset",
        {"dataroot_lq": "SMID_LQ_np", "dataroot_gt": "SMID_Long_np", "frames_per_scene": 30},
        "test",
    ),
    "SDSD_train": (
        "SDSDDataset",
        {"dataroot_lq": "indoor_static_np/input", "dataroot_gt": "indoor_static_np/GT", "testing_dir": SDSD_TEST},
        "train",
    ),
    "SDSD_test": (
        "SDSDDataset",
        {"dataroot_lq": "indoor_static_np/input", "dataroot_gt": "indoor_static_np/GT", "frames_per_scene": 30},
        "test",
    ),
    "SID_train": ("SIDDataset", {"dataroot_lq": "short_sid2", "dataroot_gt": "long_sid2"}, "train"),
    "SID_test": ("SIDDataset", {"dataroot_lq": "short_sid2", "dataroot_gt": "long_sid2"}, "test"),
}


@pytest.mark.parametrize("name", CASES)
def test_items_equal_those_of_the_published_loaders(tree, name):
    root, golden = tree
    kind, options, phase = CASES[name]
    roots = {key: str(root / value) if key.startswith("dataroot") else value for key, value in options.items()}
    assert items(build_dataset({"type": kind, **roots}, phase), root) == expected(golden, name)


class Scripted:
    """A generator whose draws were recorded from the published loader."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def integers(self, high):
        kind, low, last, value = next(self.draws)
        assert (kind, low, last) == ("randint", 0, high - 1)
        return value

    def random(self):
        kind, value = next(self.draws)
        assert kind == "random"
        return value


@pytest.mark.parametrize("name", ["smid_train", "smid_train_b", "smid_train_c", "smid_test"])
def test_pixels_equal_those_of_the_published_loader(tmp_path, monkeypatch, golden, name):
    vector = golden("snr_data")
    sample = vector.meta["samples"][name]
    raw = name.replace("_c", "_b")
    scene = "0001" if "train" in name else "0007"
    for folder, side in (("SMID_LQ_np", "LQ"), ("SMID_Long_np", "GT")):
        (tmp_path / folder / scene).mkdir(parents=True)
        np.save(tmp_path / folder / scene / "0001.npy", vector[f"{raw}_raw_{side}"].numpy())
    monkeypatch.setattr("llie.data.pairs.generator", lambda *_: Scripted(sample["draws"]))
    train = "train" in name
    size = vector.meta["train_size_wh"] if train else None
    options = {"dataroot": str(tmp_path), "train_size": size, "gt_size": 16, "use_flip": True, "use_rot": True}
    item = build_dataset({"type": "SMIDDataset", **options}, "train" if train else "test")[0]
    torch.testing.assert_close(item["lq"], vector[f"{name}_LQ"], atol=1e-6, rtol=0)
    torch.testing.assert_close(item["gt"], vector[f"{name}_GT"], atol=1e-6, rtol=0)


def test_frames_are_resized_to_960x512(tree):
    root, _ = tree
    item = build_dataset({"type": "SDSDDataset", "dataroot": str(root / "indoor_static_np")}, "test")[0]
    assert item["lq"].shape == (3, 512, 960)


@pytest.mark.parametrize("place", ["test_list.txt", "text_list.txt", "SMID_Long_np/test_list.txt"])
def test_smid_reads_its_list_of_test_scenes(tmp_path, put, place):
    put(
        tmp_path, *(f"{side}/{scene}/0001.npy" for side in ("SMID_LQ_np", "SMID_Long_np") for scene in ("0001", "0007"))
    )
    (tmp_path / place).write_text("0001\n", encoding="utf-8")
    dataset = build_dataset({"type": "SMIDDataset", "dataroot": str(tmp_path)}, "test")
    assert [pair.lq.parent.name for pair in dataset.pairs] == ["0001"]


def test_smid_without_a_proper_long_exposure(tmp_path, put):
    put(tmp_path, "SMID_LQ_np/0001/0001.npy", "SMID_Long_np/0001/half0001.npy")
    with pytest.raises(UserError, match="0001 contains no long exposures"):
        build_dataset({"type": "SMIDDataset", "dataroot": str(tmp_path)}, "train")


def test_sony_total_dark(tmp_path, put):
    put(tmp_path, "train/short/00001/00001_00_0.1s.png", "train/short/00001/00001_01_0.1s.png")
    put(tmp_path, "train/long/00001/00001_00_10s.png", "test/short/10003/10003_00_0.04s.png")
    put(tmp_path, "test/long/10003/10003_00_10s.png")
    options = {"type": "SIDDataset", "dataroot": str(tmp_path)}
    train, test = build_dataset(options, "train"), build_dataset(options, "test")
    assert (len(train), len(test)) == (2, 1)
    assert train[0]["lq"].shape == (3, 24, 32), "pictures keep their size"


def test_sid_flat_folders_and_withdrawn_scenes(tmp_path, put):
    put(tmp_path, "short/10003_00_0.04s.png", "short/10034_00_0.04s.png", "short/10034_01_0.04s.png")
    put(tmp_path, "long/10003_00_10s.png", "long/10034_00_10s.png")
    options = {"type": "SIDDataset", "dataroot": str(tmp_path)}
    assert [p.gt.name for p in build_dataset(options, "test").pairs].count("10034_00_10s.png") == 2
    assert len(build_dataset({**options, "exclude": ["10034"]}, "test")) == 1


def test_sdsd_twins_stay_on_one_side(tmp_path, put):
    scenes = ("MVI_0001", "MVI_0898", "MVI_0898_2")
    put(tmp_path, *(f"{side}/{scene}/000{n}.npy" for side in ("input", "GT") for scene in scenes for n in (1, 2)))
    options = {"type": "SDSDDataset", "dataroot": str(tmp_path)}
    assert {p.lq.parent.name for p in build_dataset(options, "test").pairs} == {"MVI_0898", "MVI_0898_2"}
    assert {p.lq.parent.name for p in build_dataset(options, "train").pairs} == {"MVI_0001"}


def test_a_size_without_pixels_is_refused(tmp_path, put):
    put(tmp_path, "input/pair1/0001.npy", "GT/pair1/0001.npy")
    options = {"type": "SDSDDataset", "dataroot": str(tmp_path), "testing_dir": ["pair1"], "train_size": [960, 0]}
    with pytest.raises(UserError, match=r"train_size: \[960, 0\] is not a width and height"):
        build_dataset(options, "test")


def test_mistakes_in_scenes(tmp_path, put):
    put(tmp_path, "input/pair1/0001.npy", "input/pair2/0001.npy", "GT/pair1/0001.npy", "GT/pair1/0002.npy")
    options = {"type": "SDSDDataset", "dataroot": str(tmp_path)}
    with pytest.raises(UserError, match=r"1 frames of .*pair1 have no partner: .*GT/pair1/0002"):
        build_dataset(options, "test")
    with pytest.raises(UserError, match=r"1 scenes have no reference in .*input/pair2"):
        build_dataset(options, "train")
    with pytest.raises(UserError, match=r"none of the 2 scenes .* is for 'train'.* testing_dir"):
        build_dataset({**options, "testing_dir": ["pair1", "pair2"]}, "train")
    with pytest.raises(UserError, match="set both"):
        build_dataset({"type": "SDSDDataset", "dataroot_lq": str(tmp_path)}, "train")


def test_missing_test_scenes_are_reported(tmp_path, put, caplog):
    put(tmp_path, *(f"{side}/pair{n}/0001.npy" for side in ("input", "GT") for n in (1, 2)))
    options = {"type": "SDSDDataset", "dataroot": str(tmp_path), "testing_dir": "pair1, piar2"}
    assert len(build_dataset(options, "train")) == 1
    assert "'piar2', which does not exist. Did you mean 'pair2'" in caplog.text


def test_resizing_works_on_the_stored_8_bit_values(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (30, 44, 3), np.uint8)
    for side in ("input", "GT"):
        (tmp_path / side / "pair1").mkdir(parents=True)
        np.save(tmp_path / side / "pair1" / "0001.npy", frame)
    options = {"type": "SDSDDataset", "dataroot": str(tmp_path), "train_size": [48, 32]}
    lq = build_dataset(options, "test")[0]["lq"]
    oracle = cv2.resize(frame, (48, 32), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_array_equal((lq * 255).round().numpy(), oracle.transpose(2, 0, 1))
