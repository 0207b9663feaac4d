"""Maps that wait: in memory of their own, used again, then in a file."""

import pytest
import torch

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
