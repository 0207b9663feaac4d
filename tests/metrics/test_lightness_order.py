"""LOE against a literal implementation, and its invariances."""

import numpy as np
import pytest
import torch

from llie.errors import UserError
from llie.evaluation import evaluate
from llie.metrics import create_metric, loe


def by_definition(pred, lq):
    """Every pixel with every other, as in the paper's equations."""
    one, other = pred.max(-1), lq.max(-1)
    total = 0
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            for i in range(one.shape[0]):
                for j in range(one.shape[1]):
                    total += (one[y, x] >= one[i, j]) ^ (other[y, x] >= other[i, j])
    return total / one.size


def image(seed, size=(9, 12)):
    return np.random.default_rng(seed).integers(0, 12, (*size, 3), dtype=np.uint8)  # few levels: many ties


def test_equals_the_definition():
    pred, lq = image(0), image(1)
    assert loe(pred, lq) == pytest.approx(float(by_definition(pred, lq)))
    assert loe(pred, lq) > 10


def test_large_images_are_sampled_to_50_pixels():
    pred, lq = image(2, (150, 200)), image(3, (150, 200))
    rows, columns = np.arange(50) * 3 + 1, ((np.arange(67) + 0.5) * 200 / 67).astype(int)
    small = (pred[rows[:, None], columns], lq[rows[:, None], columns])
    assert loe(pred, lq) == pytest.approx(loe(*small))


def test_brightening_keeps_the_order_and_inverting_does_not():
    dark = np.random.default_rng(4).permutation(120).astype(np.uint8).reshape(10, 12, 1).repeat(3, -1)
    assert loe(dark * 2, dark) == loe(dark, dark) == 0
    assert loe(255 - dark, dark) == 119  # all others


def test_it_is_measured_against_the_input_and_needs_no_reference():
    metric = create_metric({"type": "loe"})
    assert metric.protocols(["rgb8", "rgb8-gtmean"]) == ["rgb8"]
    item = {"lq": torch.rand(1, 20, 30).expand(3, -1, -1), "lq_path": "a.png"}  # grey: all orders change
    report = evaluate(lambda batch: 1 - batch["lq"], [item], {"loe": {}})
    assert report.means["loe/rgb8"] > 500 and report.notes == []
    with pytest.raises(UserError, match="loe has none"):
        loe(image(0), image(1), "rgb8-gtmean")
    with pytest.raises(UserError, match="takes no argument"):
        create_metric({"type": "loe", "side": 3})
