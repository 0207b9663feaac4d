"""The cache of decoded images: what it gives, what it shares, and what becomes of it."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from llie.data.cache import ALIGNMENT, ImageCache
from llie.errors import UserError

IMAGES = {
    Path("a.png"): np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3),
    Path("b.png"): np.arange(4 * 2 * 3, dtype=np.uint16).reshape(4, 2, 3),
    Path("c.npy"): np.linspace(0, 1, 18, dtype=np.float32).reshape(2, 3, 3),
}


def unread(path):
    raise AssertionError(f"{path} was read again")


def filled():
    cache = ImageCache()
    cache.fill(IMAGES, lambda path: IMAGES[path].copy())
    return cache


def test_gives_what_was_read_and_reads_once():
    cache = filled()
    cache.fill(IMAGES, unread)
    for path, image in IMAGES.items():
        found = cache.get(path, unread)
        assert found.dtype == image.dtype and np.array_equal(found, image)
        assert found.ctypes.data % ALIGNMENT == 0
        with pytest.raises(ValueError, match="read-only"):
            found[:] = 0


def test_further_images_and_a_second_filling():
    cache, more = filled(), np.full((1, 2, 3), 9, np.uint8)
    before = cache.get(Path("a.png"), unread)
    assert np.array_equal(cache.get(Path("d.png"), lambda path: more.copy()), more)
    cache.fill([Path("a.png"), Path("e.png")], lambda path: more.copy())
    gc.collect()
    assert np.array_equal(cache.get(Path("e.png"), unread), more)
    assert np.array_equal(cache.get(Path("d.png"), unread), more)
    assert np.array_equal(before, IMAGES[Path("a.png")]), "arrays from before stay valid"


def test_what_cannot_be_read_is_not_in_it():
    def read(path):
        if path.name == "b.png":
            raise UserError("b.png is damaged")
        return IMAGES[path].copy()

    cache = ImageCache()
    with pytest.raises(UserError, match=r"b.png is damaged"):
        cache.fill(IMAGES, read)
    assert np.array_equal(cache.get(Path("a.png"), read), IMAGES[Path("a.png")])


def test_a_full_disk_is_one_message(monkeypatch):
    class Full:
        def seek(self, *where):
            return 0

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("llie.data.cache._file_in_memory", Full)
    with pytest.raises(UserError, match=r"cache: too little memory .*No space left.*set cache: none"):
        filled()


def test_a_pickled_copy_is_empty_and_small():
    cache = filled()
    data = pickle.dumps(cache)
    assert len(data) == len(pickle.dumps(ImageCache()))
    again = pickle.loads(data)
    assert np.array_equal(again.get(Path("a.png"), lambda path: IMAGES[path].copy()), IMAGES[Path("a.png")])


def _file_of(cache, sender):
    """The file of the memory in which this process finds an image, as Linux names it."""
    place = cache.get(Path("a.png"), unread).ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, _, _, device, file, *_ = line.split()
        first, last = (int(end, 16) for end in ends.split("-"))
        if first <= place < last:
            sender.send((device, file))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the memory of a process in /proc")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_has_the_same_memory_however_it_is_started(method):
    processes = multiprocessing.get_context(method)
    receiver, sender = processes.Pipe(duplex=False)
    cache = filled()
    worker = processes.Process(target=_file_of, args=(cache, sender))
    worker.start()
    theirs = receiver.recv()
    worker.join()
    _file_of(cache, sender)
    assert theirs == receiver.recv()
