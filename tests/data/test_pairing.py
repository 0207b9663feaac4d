"""Pairs are found by key in every published layout; files without a partner are named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.data import build_dataset
from llie.data.pairing import find_sides, name_key, pair_folders, pattern_key, template_key
from llie.errors import UserError

# Layout on disk -> dataroot and phase -> the names that pair.
LAYOUTS = {
    "LOLv1": (["our485/low/2.png", "our485/high/2.png", "eval15/low/1.png", "eval15/high/1.png"], "", "train", 1),
    "LOLv1 evaluation": (
        ["our485/low/2.png", "our485/high/2.png", "eval15/low/1.png", "eval15/high/1.png"],
        "",
        "val",
        1,
    ),
    "LOLv1 of Retinexformer": (["Train/input/2.png", "Train/target/2.png"], "", "train", 1),
    "LOLv1 from Kaggle": (["lol_dataset/our485/low/2.png", "lol_dataset/our485/high/2.png"], "", "train", 1),
    "LOLv2-real": (
        ["Real_captured/Train/Low/low00001.png", "Real_captured/Train/Normal/normal00001.png"],
        "Real_captured",
        "train",
        1,
    ),
    "LOLv2-real repacked": (["Real_captured/Test/Low/00690.png", "Real_captured/Test/Normal/00690.png"], "", "test", 1),
    "LOLv2-syn": (["Synthetic/Test/Low/r00816405t.png", "Synthetic/Test/Normal/r00816405t.png"], "", "test_1", 1),
    "FiveK": (["train/input/a4574-DSC_0038.jpg", "train/target/a4574-DSC_0038.jpg"], "", "train", 1),
    "VE-LOL": (
        ["VE-LOL-L-Cap-Low_train/low00001.png", "VE-LOL-L-Cap-Normal_train/normal00001.png"],
        "",
        "train",
        1,
    ),
    "LSRW": (["Nikon/low/1.jpg", "Nikon/high/1.jpg", "Huawei/low/1.jpg", "Huawei/high/1.jpg"], "Nikon", "train", 1),
    "NTIRE": (["minival/input/1.png", "minival/target/1.png"], "", "val", 1),
    "LOL-Blur": (["train/low_blur/0012/0001.png", "train/high_sharp_scaled/0012/0001.png"], "", "train", 1),
    "bare": (["low/1.png", "high/1.jpg", "low/2.bmp", "high/2.tif"], "", "val", 2),
}


NAMES_THAT_DIFFER = {
    "a last word": (["a_low.png", "b1_low.png"], ["a_gt.png", "b1_gt.png"]),
    "a last word of one side": (["x/1-dark.png", "x/2-dark.png"], ["x/1.jpg", "x/2.jpg"]),
    "a first word": (["in_1.png", "in_22.png"], ["out_1.png", "out_22.png"]),
}


@pytest.mark.parametrize("case", NAMES_THAT_DIFFER)
def test_the_key_pattern_that_pairs_the_names_is_named(tmp_path, put, case):
    inputs, references = NAMES_THAT_DIFFER[case]
    put(tmp_path, *(f"low/{name}" for name in inputs), *(f"high/{name}" for name in references))
    with pytest.raises(UserError, match=r"4 images .* have no partner: .* here key_pattern: '.+'$") as caught:
        pair_folders(tmp_path / "low", tmp_path / "high")
    pattern = str(caught.value).split("key_pattern: ")[1].strip("'")
    options = {"dataroot_lq": str(tmp_path / "low"), "dataroot_gt": str(tmp_path / "high"), "key_pattern": pattern}
    pairs = build_dataset({"type": "PairedImageDataset", **options}, "train").pairs
    assert [(p.lq.name, p.gt.name) for p in pairs] == [
        (a.split("/")[-1], b.split("/")[-1]) for a, b in zip(inputs, references, strict=True)
    ]


def test_without_a_common_word_key_pattern_is_named_still(tmp_path, put):
    put(tmp_path, "low/img5.png", "high/photo5.png")
    with pytest.raises(UserError, match=r"have no partner: .*for instance key_pattern: '\(\\d\+\)' for a number$"):
        pair_folders(tmp_path / "low", tmp_path / "high")


def paired(folder, **options):
    roots = {"dataroot_lq": str(folder / "low"), "dataroot_gt": str(folder / "high")}
    return build_dataset({"type": "PairedImageDataset", **roots, **options}, "train").pairs


def test_meta_info_file_chooses_the_pairs(tmp_path, put):
    put(tmp_path, "low/1.png", "low/s/2.png", "low/3.png", "high/1.png", "high/s/2.png", "high/4.png")
    meta = tmp_path / "meta.txt"
    meta.write_text("1.png (24,32,3)\n\ns/2.png\n", encoding="utf-8")
    assert [p.gt.name for p in paired(tmp_path, meta_info_file=str(meta))] == ["1.png", "2.png"]
    put(tmp_path, "low/9_x.png", "high/9.png")
    meta.write_text("9.png (24,32,3)\n", encoding="utf-8")
    [pair] = paired(tmp_path, meta_info_file=str(meta), filename_tmpl="{}_x")
    assert (pair.lq.name, pair.gt.name) == ("9_x.png", "9.png")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1.png\n5.png (1,1,3)\n6.png", r"meta_info_file: 2 of 3 images are not in .*high: 5\.png, 6\.png"),
        ("4.png", r"1 images .* no partner: .*4\.png"),
        ("\n", r"meta_info_file: .*meta\.txt names no images"),
        (None, r"meta_info_file: cannot read .*meta\.txt: No such file"),
    ],
)
def test_mistakes_in_meta_info_files(tmp_path, put, text, told):
    put(tmp_path, "low/1.png", "high/1.png", "high/4.png")
    if text is not None:
        (tmp_path / "meta.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        paired(tmp_path, meta_info_file=str(tmp_path / "meta.txt"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found_by_their_root(tmp_path, put, layout):
    names, root, phase, count = LAYOUTS[layout]
    put(tmp_path, *names)
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(tmp_path / root)}, phase)
    assert len(dataset) == count
    for pair in dataset.pairs:
        assert name_key(pair.lq).split("/")[-1] == name_key(pair.gt).split("/")[-1]
        assert pair.lq.parent != pair.gt.parent


def test_phase_chooses_the_split(tmp_path, put):
    put(tmp_path, "our485/low/2.png", "our485/high/2.png", "eval15/low/1.png", "eval15/high/1.png")
    assert find_sides(tmp_path, "train")[0].parent.name == "our485"
    assert find_sides(tmp_path, "val_2")[0].parent.name == "eval15"


def test_several_sets_below_one_root_are_listed(tmp_path, put):
    for part in ("Real_captured", "Synthetic"):
        put(tmp_path, f"{part}/Train/Low/1.png", f"{part}/Train/Normal/1.png")
    with pytest.raises(UserError, match=r"several data sets: .*Real_captured.*Synthetic.*set dataroot"):
        find_sides(tmp_path, "train")


def test_no_known_layout_and_no_folder(tmp_path, put):
    put(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(UserError, match="dataroot_lq and dataroot_gt"):
        find_sides(tmp_path, "train")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        find_sides(tmp_path / "nowhere", "train")


def test_never_by_position(tmp_path, put):
    put(tmp_path, "low/2.png", "low/10.png", "low/9.png", "high/2.png", "high/10.png", "high/9.png")
    pairs = pair_folders(tmp_path / "low", tmp_path / "high")
    assert [(p.lq.stem, p.gt.stem) for p in pairs] == [("10", "10"), ("2", "2"), ("9", "9")]


def test_missing_partners_are_named_on_both_sides(tmp_path, put):
    put(tmp_path, "low/1.png", "low/2.png", "high/2.png", "high/3.png")
    with pytest.raises(UserError, match=r"2 images of .* have no partner: .*high/3\.png, .*low/1\.png"):
        pair_folders(tmp_path / "low", tmp_path / "high")


def test_two_files_with_one_key(tmp_path, put):
    put(tmp_path, "low/1.png", "low/1.jpg", "high/1.png")
    with pytest.raises(UserError, match=r"1\.jpg and 1\.png .* same key"):
        pair_folders(tmp_path / "low", tmp_path / "high")


def test_empty_missing_and_hidden(tmp_path, put):
    put(tmp_path, "low/1.png")
    (tmp_path / "high").mkdir()
    (tmp_path / "high" / "._1.png").write_bytes(b"written by macOS")
    with pytest.raises(UserError, match="high contains no images"):
        pair_folders(tmp_path / "low", tmp_path / "high")
    with pytest.raises(UserError, match=r"there is no folder .*normal"):
        pair_folders(tmp_path / "low", tmp_path / "normal")


def test_lists_of_folders(tmp_path, put):
    put(tmp_path, "a/low/1.png", "a/high/1.png", "b/low/1.png", "b/high/1.png")
    options = {"type": "PairedImageDataset", "dataroot": [str(tmp_path / "a"), str(tmp_path / "b")]}
    assert [pair.gt.parts[-3] for pair in build_dataset(options, "train").pairs] == ["a", "b"]
    with pytest.raises(UserError, match="dataroot_lq has 2 folders, but dataroot_gt has 1"):
        pair_folders([tmp_path / "a/low", tmp_path / "b/low"], [tmp_path / "a/high"])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("low00690.png", "00690"),
        ("normal00690.png", "00690"),
        ("Low_a.png", "a"),
        ("high-3.jpg", "3"),
        ("lowlands.png", "lowlands"),
        ("normal.png", "normal"),
        ("clip/low1.png", "clip/1"),
        ("a.b.png", "a.b"),
    ],
)
def test_prefixes(tmp_path, name, key):
    assert name_key((tmp_path / name).relative_to(tmp_path)) == key


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(0, 99999), st.sampled_from(["png", "jpg", "npy"]), st.sampled_from(["", "a/", "a/b/"]))
def test_the_two_sides_of_a_pair_have_one_key(number, suffix, folder):
    from pathlib import PurePosixPath

    keys = {
        name_key(PurePosixPath(f"{folder}{prefix}{number:05}.{suffix}")) for prefix in ("", "low", "normal", "high")
    }
    assert len(keys) == 1


def test_filename_template(tmp_path, put):
    put(tmp_path, "low/1_dark.png", "high/1.png")
    assert len(pair_folders(tmp_path / "low", tmp_path / "high", template_key("{}_dark"))) == 1
    with pytest.raises(UserError, match="filename_tmpl"):
        template_key("dark")


def test_pattern_lets_inputs_share_a_reference(tmp_path, put):
    put(tmp_path, "hazy/1400_1.png", "hazy/1400_2.png", "clear/1400.png")
    options = {"dataroot_lq": str(tmp_path / "hazy"), "dataroot_gt": str(tmp_path / "clear"), "key_pattern": r"^(\d+)"}
    dataset = build_dataset({"type": "PairedImageDataset", **options}, "val")
    assert {pair.gt.name for pair in dataset.pairs} == {"1400.png"} and len(dataset) == 2


@pytest.mark.parametrize("pattern", ["(", "abc", r"^(x\d+)"])
def test_bad_patterns(tmp_path, pattern):
    with pytest.raises(UserError, match="key_pattern"):
        pattern_key(pattern)(tmp_path.relative_to(tmp_path) / "1.png")


def test_real_names(real):
    pairs = pair_folders(real / "lolv2_real_test" / "low", real / "lolv2_real_test" / "high")
    assert (pairs[0].lq.name, pairs[0].gt.name) == ("low00697.png", "normal00697.png")
    assert len(pair_folders(*find_sides(real / "lolv1_our485", "train"))) == 205
