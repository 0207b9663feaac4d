"""Pieces cover an image exactly once and keep their bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.inference.tiles import smaller_on_failure, split


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([0, 8, 72]), st.integers(1, 400_000))
def test_pieces_cover_the_image_once_within_the_bounds(height, width, halo, pixels):
    tiles = split(height, width, halo, pixels)
    covered = torch.zeros(height, width, dtype=torch.int32)
    for tile in tiles:
        covered[slice(*tile.rows), slice(*tile.columns)] += 1
        for inner, outer, size in (
            (tile.rows, tile.outer_rows, height),
            (tile.columns, tile.outer_columns, width),
        ):
            assert outer == (max(0, inner[0] - halo), min(size, inner[1] + halo))
            assert outer[0] % 8 == 0
        area = (tile.outer_rows[1] - tile.outer_rows[0]) * (tile.outer_columns[1] - tile.outer_columns[0])
        assert area <= max(pixels, (2 * halo + 64) ** 2)
    assert (covered == 1).all()


def test_large_images_lose_little_to_margins():
    tiles = split(4000, 6000, 72, 2_000_000)
    work = sum((t.outer_rows[1] - t.outer_rows[0]) * (t.outer_columns[1] - t.outer_columns[0]) for t in tiles)
    assert work < 1.25 * 4000 * 6000
    assert len(split(1000, 1000, 72, 2_000_000)) == 1


def test_a_full_gpu_means_smaller_pieces(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tried, messages = [], []

    def run(pixels):
        tried.append(pixels)
        if pixels > 300_000:
            raise torch.OutOfMemoryError("full")

    assert smaller_on_failure(run, 1_000_000, messages.append) == 250_000
    assert tried == [1_000_000, 500_000, 250_000] and len(messages) == 2 and "0.25 megapixels" in messages[1]
    with pytest.raises(torch.OutOfMemoryError):
        smaller_on_failure(lambda pixels: run(10**9), 10_000, messages.append)
