"""Maps that wait: in memory of their own, used again, then in a file."""

import itertools
import os
from pathlib import Path

import pytest
import torch

from llie.strips.space import Space
from llie.strips.store import Store

MIB = 2**20


def rows(count, value=None):
    """Rows of half a MiB each, channels last."""
    block = torch.rand(1, 32, count, 4096) if value is None else torch.full((1, 32, count, 4096), float(value))
    return block.contiguous(memory_format=torch.channels_last)


def test_a_map_returns_the_rows_that_were_appended():
    blocks = [rows(n) for n in (3, 5, 2)]
    whole = torch.cat(blocks, 2)
    for memory in (2**30, 3 * MIB, 0):
        kept = Store(memory).map(2)
        for block in blocks:
            kept.append(block)
        assert torch.equal(kept.read(0, 10), whole) and torch.equal(kept.read(2, 9), whole[:, :, 2:9])
        kept.release(4)
        assert torch.equal(kept.read(4, 9), whole[:, :, 4:9])


def test_taking_a_map_empties_it():
    store = Store(3 * MIB)
    kept, blocks = store.map(2), [rows(2), rows(4), rows(2)]
    for block in blocks:
        kept.append(block)
    taken = kept.take()
    assert torch.equal(taken, torch.cat(blocks, 2)) and taken.is_contiguous(memory_format=torch.channels_last)
    assert store.used == 0


def test_memory_of_dropped_blocks_is_used_again():
    store = Store(64 * MIB)
    places = set()
    for value in range(20):
        kept = store.map(2)
        kept.append(rows(4, value))
        places.add(kept.read(0, 4).data_ptr())
        assert (kept.read(0, 4) == value).all()
        kept.release(4)
    assert len(places) == 1 and store.peak == 2 * MIB


@pytest.mark.parametrize("view", [lambda t: t, lambda t: t.permute(0, 2, 3, 1)])
def test_rows_that_are_held_do_not_change_when_the_block_they_came_from_is_dropped(view):
    store = Store(64 * MIB)
    kept, held = store.map(2), store.window(2)
    kept.append(rows(4, 1))
    held.append(view(kept.read(0, 4)))
    kept.release(4)
    kept.append(rows(4, 2))
    assert (held.read(0, 4) == 1).all()


def test_a_window_holds_the_rows_that_are_needed_one_after_the_other():
    store = Store(0)
    window, whole = store.window(2), rows(60)
    assert window.room(3) is None  # whose layout nobody knows
    done = 0
    for count, needed in ((3, 0), (5, 2), (4, 6), (7, 6), (1, 18), (20, 19), (20, 58)):
        place = window.room(count) if done else None
        part = whole[:, :, done : done + count]
        window.append(part if place is None else place.copy_(part))
        done += count
        first = min(needed, done)
        read = window.read(first, done)
        assert torch.equal(read, whole[:, :, first:done]) and read.is_contiguous(memory_format=torch.channels_last)
        window.release(needed)
    assert done == 60 and store.used < 2 * 2**20 * 30
    window.release(1 << 62)
    assert store.used == 0


def test_what_is_stored_does_not_change_with_the_window_it_was_read_from():
    store = Store(64 * MIB)
    kept, window = store.map(2), store.window(2)
    window.append(rows(1, 1))
    kept.append(window.read(0, 1))
    window.release(1)
    for _ in range(4):
        window.append(rows(1, 2))
    assert (kept.read(0, 1) == 1).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is resident")
def test_memory_of_dropped_blocks_is_given_back():
    store = Store(256 * MIB)
    maps = [store.map(2) for _ in range(3)]
    for value, kept in enumerate(maps):
        for _ in range(8):
            kept.append(rows(8, value))
    for kept in maps[::2]:
        kept.release(64)
    before = resident()
    store.give_back()
    assert before - resident() > 48 * MIB  # of 64
    assert (maps[1].read(0, 64) == 1).all()
    maps[0].append(rows(8, 5))
    assert (maps[0].read(64, 72) == 5).all() and store.used == 36 * MIB


def resident():
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_no_rows_of_a_map():
    kept = Store(0).map(2)
    kept.append(rows(2))
    kept.release(2)
    assert kept.read(5, 5).shape == (1, 32, 0, 4096)


def test_a_range_gets_the_first_place_that_it_fits_in():
    space = Space(10)
    assert [space.take(n) for n in (3, 4, 2)] == [0, 3, 7]
    assert space.take(2) is None  # one is left
    space.give(7, 2)
    space.give(0, 3)
    assert space.take(4) is None  # enough are free, but not side by side
    space.give(3, 4)
    assert space.take(10) == 0


@pytest.mark.parametrize("memory", [0, 64 * MIB])
def test_places_are_used_again_for_blocks_of_other_sizes(memory):
    store = Store(memory)
    for count in (4, 3, 5, 2):
        kept = store.map(2)
        for value in range(6):
            kept.append(rows(count, value))
            assert (kept.read(value * count + 1, value * count + 2) == value).all()
            kept.release(value * count)
        kept.release(1 << 62)
    assert store.written <= 8 * MIB and (store.peak == 0 or store.written == 0)


def test_memory_does_not_grow_beyond_its_limit_where_free_places_are_too_small():
    store = Store(4 * MIB)
    maps = [store.map(2) for _ in range(4)]
    for value, kept in enumerate(maps):
        kept.append(rows(2, value))
    for kept in maps[::2]:
        kept.release(2)
    wide = store.map(2)
    wide.append(rows(4, 9))  # 2 MiB are free, in two places
    assert (wide.read(0, 4) == 9).all() and store.written == 2 * MIB and store.used == 2 * MIB


def test_rows_may_be_written_where_they_will_be_stored():
    store = Store(8 * MIB)
    kept = store.map(2)
    assert kept.room(4) is None  # whose shape nobody knows
    kept.append(rows(4, 0))
    place = kept.room(6)
    kept.append(place.fill_(1))
    assert kept.read(4, 10).data_ptr() == place.data_ptr() and store.used == 5 * MIB
    assert kept.room(4) is not None
    kept.append(rows(4, 2))  # lies elsewhere
    assert kept.room(8) is None  # does not fit
    kept.append(rows(8, 3))
    assert [kept.read(row, row + 1).unique().item() for row in (3, 4, 9, 10, 14, 21)] == [0, 1, 1, 2, 3, 3]
    assert store.used == 7 * MIB and store.written == 4 * MIB


@pytest.mark.parametrize(("start", "waiting"), [(3, 8), (5, 40)])
def test_where_many_rows_wait_they_do_not_move(start, waiting):
    store = Store(2**20)
    window, whole = store.window(2), torch.rand(1, 4, 400, 16).contiguous(memory_format=torch.channels_last)
    peaks, places, moved = [], {}, []
    for first, stop in itertools.pairwise([0, *range(start, 400, 5)]):
        window.append(whole[:, :, first:stop])
        needed = max(0, stop - waiting)
        window.release(needed)
        read = window.read(needed, stop)
        assert torch.equal(read, whole[:, :, needed:stop])
        assert read.is_contiguous(memory_format=torch.channels_last)
        peaks.append(store.peak)
        now = {row: window.read(row, row + 1).data_ptr() for row in range(needed, stop)}
        moved.append(any(places.setdefault(row, place) != place for row, place in now.items()))
    row = whole[:, :, :1].nbytes
    assert peaks[-1] == peaks[20] <= 90 * row  # while it moved, both were counted
    assert not any(moved[20:])
    assert len(set(places.values())) < 150  # always the same
