"""Items: their form, their dependence on (seed, epoch, index) only, sizes, caches, and mistakes in pairs."""

import pickle

import numpy as np
import pytest
import torch

from llie.data import build_dataset, read_image
from llie.data.packing import build as build_lmdb
from llie.data.readers import to_tensor, write_image
from llie.errors import UserError


@pytest.fixture
def folders(tmp_path, put):
    put(tmp_path, *(f"{side}/{n}.png" for side in ("low", "high") for n in range(1, 6)))
    return {"dataroot_lq": str(tmp_path / "low"), "dataroot_gt": str(tmp_path / "high")}


def paired(folders, phase="train", **options):
    return build_dataset({"type": "PairedImageDataset", **folders, **options}, phase)


def test_evaluation_may_crop_below_a_multiple(folders):
    whole, cropped = paired(folders, "val")[1], paired(folders, "val", crop_below=8)[1]
    for side in ("lq", "gt"):  # a whole multiple loses one, too
        assert torch.equal(cropped[side], whole[side][:, :16, :24])
    assert paired(folders, crop_below=8)[1]["lq"].shape == (3, 24, 32)
    with pytest.raises(UserError, match=r"2\.png is 32x24; crop_below: 32 leaves nothing"):
        paired(folders, "val", crop_below=32)[1]
    with pytest.raises(UserError, match="crop_below: -8"):
        paired(folders, "val", crop_below=-8)


def test_evaluation_items_are_the_whole_files(folders):
    item = paired(folders, "val", gt_size=8, use_rot=True)[1]
    assert set(item) == {"lq", "gt", "lq_path", "gt_path"}
    assert item["lq_path"].endswith("low/2.png") and item["gt_path"].endswith("high/2.png")
    assert torch.equal(item["lq"], to_tensor(read_image(item["lq_path"])))
    assert item["gt"].dtype == torch.float32 and item["gt"].shape == (3, 24, 32)


def test_items_depend_on_seed_epoch_and_index_alone(folders):
    options = {"gt_size": 16, "use_hflip": True, "use_rot": True}
    dataset, other = paired(folders, **options), paired(folders, **options, cache="ram")
    _ = [other[epoch, index] for epoch in range(3) for index in (4, 2)]
    assert torch.equal(dataset[2, 3]["lq"], other[2, 3]["lq"])
    assert torch.equal(dataset[0]["lq"], dataset[0, 0]["lq"]) and torch.equal(dataset[-1]["lq"], dataset[4]["lq"])
    assert len({dataset[epoch, 0]["lq"].numpy().tobytes() for epoch in range(8)}) > 4, "epochs differ"
    again = paired(folders, **options, seed=1)
    assert any(not torch.equal(again[e, 0]["lq"], dataset[e, 0]["lq"]) for e in range(3)), "seeds differ"


def test_global_generators_are_left_alone(folders):
    dataset = paired(folders, gt_size=16, use_rot=True)
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    _ = dataset[0]
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])


def test_both_sides_are_cropped_alike(folders):
    dataset = paired(folders, gt_size=16, geometric_augs=True)
    for epoch in range(10):
        item = dataset[epoch, 0]  # the two files hold the same picture
        assert torch.equal(item["lq"], item["gt"]) and item["lq"].shape == (3, 16, 16)


def test_images_smaller_than_the_crop_are_enlarged(folders):
    assert paired(folders, gt_size=40)[0]["lq"].shape == (3, 40, 40)


def test_a_training_size_applies_to_whole_images_in_training_alone(folders):
    assert paired(folders, train_size=(24, 16), use_hflip=True)[0]["gt"].shape == (3, 16, 24)
    native = paired(folders, "val")[0]["gt"].shape
    assert paired(folders, "val", train_size=(24, 16))[0]["gt"].shape == native != (3, 16, 24)


def test_iteration_ends(folders):
    dataset = paired(folders, "val")
    assert len([dataset[i] for i in range(len(dataset))]) == 5
    with pytest.raises(IndexError):
        dataset[5]


def test_unequal_sizes_are_named(folders, tmp_path, picture):
    write_image(tmp_path / "low" / "3.png", picture(3, 24, 30))
    with pytest.raises(UserError, match=r"low/3\.png is 30x24, but .*high/3\.png is 32x24"):
        paired(folders, "val")[2]


def test_misspelt_option_is_suggested(folders):
    with pytest.raises(UserError, match=r"use_hflp.*Did you mean 'use_hflip'"):
        paired(folders, use_hflp=True)


@pytest.mark.parametrize("missing", ["dataroot_lq", "dataroot_gt"])
def test_half_a_pair_of_roots(folders, missing):
    with pytest.raises(UserError, match="set both dataroot_lq and dataroot_gt"):
        paired({key: value for key, value in folders.items() if key != missing})


def test_sixteen_bit_keeps_its_depth(folders, tmp_path, picture):
    image = picture(1, dtype=np.uint16)
    write_image(tmp_path / "low" / "1.png", image)
    lq = paired(folders, "val")[0]["lq"]
    np.testing.assert_allclose(lq.numpy(), image.transpose(2, 0, 1) / 65535, atol=1e-7)


def test_ram_cache_survives_what_callers_do(folders, tmp_path):
    dataset = paired(folders, cache="ram")
    dataset.load()
    first = dataset[0]["lq"].clone()
    dataset[0]["lq"].mul_(0)
    (tmp_path / "low" / "1.png").unlink()
    assert torch.equal(dataset[0]["lq"], first), "read from memory, unharmed"
    with pytest.raises(ValueError, match="read-only"):
        dataset.read(dataset.pairs[0].lq)[:] = 0


def test_pickling_leaves_the_cache_behind(folders):
    dataset = paired(folders, cache="ram")
    small = len(pickle.dumps(dataset))
    dataset.load()
    assert len(pickle.dumps(dataset)) == small
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["gt"], dataset[1]["gt"])


def test_lmdb_gives_the_same_items(folders, tmp_path):
    for side in ("low", "high"):
        build_lmdb(tmp_path / side, tmp_path / f"{side}.lmdb")
    packed = {f"dataroot_{key}": str(tmp_path / f"{side}.lmdb") for key, side in (("lq", "low"), ("gt", "high"))}
    one = paired(folders, gt_size=16)
    two = paired(packed, gt_size=16, io_backend={"type": "lmdb"})
    three = paired(packed, gt_size=16)
    for index in range(len(one)):
        assert torch.equal(one[1, index]["gt"], two[1, index]["gt"]) and torch.equal(
            one[1, index]["lq"], three[1, index]["lq"]
        )
    _ = pickle.loads(pickle.dumps(two))[0]
    with pytest.raises(UserError, match=r"io_backend is lmdb, but .*low is not a folder \*\.lmdb"):
        paired(folders, io_backend={"type": "lmdb"})
    with pytest.raises(UserError, match="disk or lmdb"):
        paired(folders, io_backend={"type": "petrel"})


def test_unpaired_images_have_no_reference(tmp_path, put):
    put(tmp_path, "DICM/01.jpg", "DICM/sub/02.bmp")
    dataset = build_dataset({"type": "UnpairedImageDataset", "dataroot_lq": str(tmp_path / "DICM")}, "test")
    assert len(dataset) == 2 and set(dataset[0]) == {"lq", "lq_path"}
    with pytest.raises(UserError, match="dataroot_lq"):
        build_dataset({"type": "UnpairedImageDataset"}, "test")


def test_lol_blur_versions(tmp_path, put):
    versions = ("low_blur", "low_blur_noise", "high_sharp_scaled")
    put(
        tmp_path, *(f"train/{version}/00{clip}/000{n}.png" for version in versions for clip in (12, 13) for n in (1, 2))
    )
    dataset = build_dataset({"type": "LOLBlurDataset", "dataroot": str(tmp_path), "input": "low_blur_noise"}, "train")
    assert len(dataset) == 4
    assert dataset.pairs[3].lq.parts[-3:] == ("low_blur_noise", "0013", "0002.png")
    assert dataset.pairs[3].gt.parts[-2:] == ("0013", "0002.png")


def test_sice_exposures_share_their_label(tmp_path, put):
    put(tmp_path, "1/1.JPG", "1/2.JPG", "12/1.JPG", "Label/1.JPG", "Label/12.PNG")
    dataset = build_dataset({"type": "SICEDataset", "dataroot": str(tmp_path)}, "train")
    assert [(p.lq.parent.name, p.gt.stem) for p in dataset.pairs] == [("1", "1"), ("1", "1"), ("12", "12")]
    put(tmp_path, "7/1.JPG")
    with pytest.raises(UserError, match=r"1 exposures have no label .*7/1\.JPG"):
        build_dataset({"type": "SICEDataset", "dataroot": str(tmp_path)}, "train")


def test_sice_as_hvi_cidnet_lays_it_out(tmp_path, put):
    put(tmp_path, "train/1/1.JPG", "train/1/2.JPG", "label/1.JPG", "eval/test/5.JPG", "eval/target/5.JPG")
    options = {"type": "SICEDataset", "dataroot": str(tmp_path)}
    assert len(build_dataset(options, "train")) == 2
    assert [(p.lq.parent.name, p.gt.parent.name) for p in build_dataset(options, "val").pairs] == [("test", "target")]


def test_sice_mix_is_flat(tmp_path, put):
    put(tmp_path, "SICE_Mix/3.jpg", "SICE_Reshape/3.jpg")
    roots = {"dataroot_lq": str(tmp_path / "SICE_Mix"), "dataroot_gt": str(tmp_path / "SICE_Reshape")}
    assert len(build_dataset({"type": "SICEDataset", **roots}, "test")) == 1


def test_synthetic_inputs_are_new_in_each_epoch_and_dark(tmp_path, put):
    put(tmp_path, "a/1.png", "a/2.jpg")
    dataset = build_dataset({"type": "SyntheticLowLightDataset", "dataroot_gt": str(tmp_path), "gt_size": 16}, "train")
    item = dataset[3, 1]
    assert item["lq"].mean() < 0.3 * item["gt"].mean() and item["lq"].shape == (3, 16, 16)
    assert torch.equal(item["lq"], dataset[3, 1]["lq"]) and not torch.equal(item["lq"], dataset[4, 1]["lq"])
    darker = {"exposure": [1e-3, 1e-3], "gamma": [1.0, 1.0], "shot": 0.0, "read": 0.0, "white_balance": 0.0}
    black = build_dataset({"type": "SyntheticLowLightDataset", "dataroot_gt": str(tmp_path), **darker}, "val")
    assert black[0]["lq"].max() < 4 / 255


def test_errors_name_the_data_set(tmp_path):
    options = {"type": "PairedImageDataset", "name": "LOLv1", "dataroot": str(tmp_path / "missing")}
    with pytest.raises(UserError, match=r"data set LOLv1: there is no folder .*missing.*datasets/README"):
        build_dataset(options, "val")


def test_real_pairs_are_dark_and_bright(real):
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(real / "lolv1_eval15")}, "val")
    means = [(float(item["lq"].mean()), float(item["gt"].mean())) for item in (dataset[i] for i in range(5))]
    assert all(low < 0.15 < high for low, high in means)
