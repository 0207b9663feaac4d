"""LMDBs in BasicSR's format; 16 bit, names with dots and subfolders, two data sets on one LMDB."""

import multiprocessing

import lmdb
import numpy as np
import pytest

from llie.data.packing import build, list_lmdb, read_any
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from tests.processes import PATIENCE


@pytest.fixture
def packed(tmp_path, put):
    put(tmp_path, "photos/1.png", "photos/a b/2.bmp", "photos/00001_00_0.1s.png")
    assert build(tmp_path / "photos", tmp_path / "photos.lmdb") == 3
    return tmp_path / "photos.lmdb"


def test_round_trip(packed, tmp_path):
    names = [path.relative_to(packed).as_posix() for path in list_lmdb(packed)]
    assert sorted(names) == ["00001_00_0.1s.png", "1.png", "a b/2.png"]
    np.testing.assert_array_equal(read_any(packed / "a b/2.png"), read_image(tmp_path / "photos/a b/2.bmp"))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_sixteen_bit_stays(tmp_path, picture):
    image = picture(1, dtype=np.uint16)
    write_image(tmp_path / "in" / "1.tif", image)
    build(tmp_path / "in", tmp_path / "x.lmdb")
    np.testing.assert_array_equal(read_any(tmp_path / "x.lmdb" / "1.png"), image)


def test_basicsr_format(packed):
    """Its facts: `meta_info.txt` lines "NAME.png (h,w,c) level", PNG bytes under the name without ending."""
    lines = (packed / "meta_info.txt").read_text(encoding="utf-8").splitlines()
    assert "1.png (24,32,3) 1" in lines
    with lmdb.open(str(packed), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert transaction.get(b"1")[:4] == b"\x89PNG"
        assert transaction.stat()["entries"] == 3


def _read_in_child(path, queue):
    queue.put(read_any(path).sum())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork, which Windows lacks")
def test_a_forked_process_reads_after_this_one(packed):
    """An open LMDB must not be used across a fork."""
    total = read_any(packed / "1.png").sum()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(packed / "1.png", queue))
    child.start()
    assert queue.get(timeout=PATIENCE) == total
    child.join()


def test_growing_beyond_the_first_map(tmp_path, picture, monkeypatch):
    monkeypatch.setattr("llie.data.packing._ROOM", 100_000)
    noise = np.random.default_rng(0)
    for n in range(8):
        write_image(tmp_path / "in" / f"{n}.png", noise.integers(0, 256, (80, 120, 3), np.uint8))
    assert build(tmp_path / "in", tmp_path / "x.lmdb") == 8
    np.testing.assert_array_equal(read_any(tmp_path / "x.lmdb/7.png"), read_image(tmp_path / "in/7.png"))


def test_errors(packed, tmp_path, put):
    with pytest.raises(UserError, match="exists already"):
        build(tmp_path / "photos", packed)
    with pytest.raises(UserError, match=r"ends in \.lmdb"):
        build(tmp_path / "photos", tmp_path / "packed")
    with pytest.raises(UserError, match="no folder"):
        build(tmp_path / "none", tmp_path / "x.lmdb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        build(tmp_path / "empty", tmp_path / "x.lmdb")
    put(tmp_path, "twice/1.png", "twice/1.jpg")
    with pytest.raises(UserError, match="differ only in their ending"):
        build(tmp_path / "twice", tmp_path / "x.lmdb")
    assert not (tmp_path / "x.lmdb").exists(), "nothing half-built is left"
    with pytest.raises(UserError, match="no image under the key '9'"):
        read_any(packed / "9.png")
    (tmp_path / "bad.lmdb").mkdir()
    with pytest.raises(UserError, match=r"meta_info\.txt"):
        list_lmdb(tmp_path / "bad.lmdb")
    with pytest.raises(UserError, match="cannot open the LMDB"):
        read_any(tmp_path / "bad.lmdb/1.png")


def test_a_full_disk_is_reported_and_nothing_is_left(tmp_path, put, monkeypatch):
    def full(*_, **__):
        raise lmdb.DiskError("No space left on device")

    put(tmp_path, "in/a.png")
    monkeypatch.setattr(lmdb, "open", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.lmdb: No space left"):
        build(tmp_path / "in", tmp_path / "a.lmdb")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
