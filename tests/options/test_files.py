"""YAML for option files: safe, numbers as written, inheritance, and the line of every mistake."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.errors import UserError
from llie.options.files import dump_yaml, merge, parse_yaml, read_inherited


def parse(text):
    return parse_yaml(text, "a.yml")[0]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
    return folder / "a.yml"


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "+2e-4", ".2e-3", "2.e-4", "!!float 2e-4", "!!float '2e-4'"])
def test_every_spelling_of_a_small_number_is_a_number(text):
    assert parse(text) == 2e-4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("!!int 5", 5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("e4", "e4"),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
    ],
)
def test_other_scalars(text, value):
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!mine [1]"])
def test_python_objects_are_refused(tag):
    with pytest.raises(UserError, match=r"a\.yml:2.*no Python objects"):
        parse(f"name: x\nlr: {tag}")


def test_a_duplicate_key_is_an_error_with_its_line():
    with pytest.raises(UserError, match=r"a\.yml:4.*duplicate key 'lr'"):
        parse("train:\n  lr: 1\n  beta: 2\n  lr: 3")


def test_the_same_key_in_two_mappings_is_fine():
    assert parse("a: {lr: 1}\nb: {lr: 2}") == {"a": {"lr": 1}, "b": {"lr": 2}}


def test_merge_keys_and_anchors_work():
    assert parse("base: &b {x: 1, y: 2}\nover: {<<: *b, y: 3}")["over"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x", "a: &x [*x]", "? [1]\n: 2"])
def test_invalid_yaml_is_a_user_error(text):
    with pytest.raises(UserError, match=r"a\.yml"):
        parse(text)


def test_every_value_knows_its_line():
    _, lines = parse_yaml("a: 1\nb:\n  c:\n  - x\n  - {d: 2}", "f.yml")
    assert lines["a"] == "f.yml:1"
    assert lines["b.c"] == "f.yml:3"
    assert lines["b.c.1.d"] == "f.yml:5"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(plain)
def test_dumped_text_reads_back_the_same(data):
    assert parse(dump_yaml(data)) == data


def test_merging_is_deep_for_mappings_and_replaces_lists():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 5}
    assert merge(base, {"a": {"y": [3]}, "b": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert merge(base, {"a": {"_delete_": True, "z": 1}}) == {"a": {"z": 1}, "b": 5}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 5}


def test_later_bases_win_and_the_file_wins_over_all(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", c="v: {w: c, c: 1}\n")
    file = write(
        tmp_path, a="_base_: [b.yml, deep/d.yml]\nv: {a: 1}", b="v: {w: b, b: 1, a: 0}\nx: b"
    )  # fmt: skip
    write(tmp_path / "deep", d="_base_: c.yml\nv: {d: 1}")
    values, origins = read_inherited(file)
    assert values == {"v": {"w": "c", "b": 1, "a": 1, "c": 1, "d": 1}, "x": "b"}
    assert origins["x"].endswith("b.yml:2")
    assert origins["v.c"].endswith("c.yml:1")


def test_circular_bases_are_reported_as_a_chain(tmp_path):
    file = write(tmp_path, a="_base_: b.yml", b="_base_: c.yml", c="_base_: a.yml")
    with pytest.raises(UserError, match=r"circular.*a\.yml -> .*b\.yml -> .*c\.yml -> .*a\.yml"):
        read_inherited(file)


def test_one_base_used_twice_is_no_circle(tmp_path):
    file = write(tmp_path, a="_base_: [b.yml, c.yml]", b="_base_: d.yml", c="_base_: d.yml", d="x: 1")
    assert read_inherited(file)[0] == {"x": 1}


def test_missing_files_name_their_neighbours_and_who_asked(tmp_path):
    file = write(tmp_path, a="_base_: LOLv3.yml", LOLv1="x: 1")
    with pytest.raises(UserError, match=r"LOLv3\.yml \(named in _base_ of .*a\.yml\).*LOLv1\.yml"):
        read_inherited(file)


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b"])
def test_an_option_file_is_a_mapping(tmp_path, text):
    with pytest.raises(UserError, match="mapping"):
        read_inherited(write(tmp_path, a=text))


def test_text_is_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "a.yml").write_bytes("\ufeffname: 暗光  # 注释\n".encode())
    assert read_inherited(tmp_path / "a.yml")[0] == {"name": "暗光"}
    (tmp_path / "a.yml").write_bytes("name: 暗光".encode("gbk"))
    with pytest.raises(UserError, match="UTF-8"):
        read_inherited(tmp_path / "a.yml")
