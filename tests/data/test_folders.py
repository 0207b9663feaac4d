"""Files below a folder: each once, through links, without loops."""

from pathlib import Path

from llie.data.folders import files_below
from llie.data.pairing import list_images


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def put(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")


def test_sorted_and_without_hidden_ones(tmp_path):
    put(tmp_path, "b/2.png", "a.png", "b/1.png", ".hidden/x.png", "b/.y.png")
    assert names(tmp_path) == ["a.png", "b/1.png", "b/2.png"]


def test_linked_folders_are_followed_and_so_are_links_in_them(tmp_path):
    put(tmp_path, "in/a.png", "disk/b.png", "elsewhere/c.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "further").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "in") == ["a.png", "linked/b.png", "linked/further/c.png"]
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert names(tmp_path / "link") == names(tmp_path / "in")


def test_each_folder_counts_once_and_under_its_own_name(tmp_path):
    put(tmp_path, "in/z/a.png", "disk/b.png")
    (tmp_path / "in" / "a_link").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "one").symlink_to(tmp_path / "disk")
    (tmp_path / "in" / "two").symlink_to(tmp_path / "disk")
    assert names(tmp_path / "in") == ["one/b.png", "z/a.png"]


def test_loops_end(tmp_path):
    put(tmp_path, "other/x.png", "in/sub/a.png", "disk/b.png")
    (tmp_path / "in" / "sub" / "self").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "sub" / "above").symlink_to(tmp_path)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "in" / "linked")
    assert names(tmp_path / "in") == ["linked/b.png", "sub/a.png"]


def test_data_sets_see_linked_folders(tmp_path):
    put(tmp_path, "disk/1.png", "disk/notes.txt", "set/2.png")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path / "set")] == [
        "set/2.png",
        "set/more/1.png",
    ]
