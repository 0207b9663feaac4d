"""Augmentations treat both images equally, use only the given generator, and follow their published recipes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.data.transforms import Augmentation, Mixup, RandomGamma, build_batch_transform, generator, mix
from llie.errors import UserError


def ramp(height=6, width=8):
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def torch_generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(0, 99))
def test_any_size_gives_the_crop_and_leaves_the_input_alone(height, width, crop, seed):
    image = ramp(height, width)
    before = image.copy()
    image.flags.writeable = False
    a, b = Augmentation(crop, True, True, True)([image, image], generator(0, 0, seed))
    assert a.shape == (crop, crop, 3)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(image, before)


def test_all_eight_orientations_are_equally_likely():
    image, counts = ramp(5, 5), {}
    for epoch in range(2000):
        (turned,) = Augmentation(None, True, True, True)([image], generator(3, epoch, 0))
        counts[turned.tobytes()] = counts.get(turned.tobytes(), 0) + 1
    assert len(counts) == 8 and min(counts.values()) > 200 and max(counts.values()) < 300


def test_every_crop_is_reached():
    corners = {Augmentation(4)([ramp()], generator(0, e, 0))[0][0, 0].tobytes() for e in range(300)}
    assert len(corners) == 3 * 5


def test_nothing_asked_for_is_the_image_itself():
    image = ramp()
    assert Augmentation()([image], generator(0, 0, 0))[0] is image


def test_mixing_equals_the_published_one(golden):
    recipe = golden("mamballie_recipe")
    for key in ("mix_lq", "mix_gt"):
        mixed = mix(recipe[key], recipe["mix_perm"], recipe.meta["mix_lam"])
        torch.testing.assert_close(mixed, recipe[f"{key}_out"], atol=1e-6, rtol=0)


def test_mixup_treats_input_and_target_alike():
    images = torch.rand(4, 3, 5, 5, generator=torch_generator())
    batch = {"lq": images, "gt": images.clone(), "lq_path": list("abcd")}
    kept = images.clone()
    out = Mixup(1.2)(batch, torch_generator(1))
    torch.testing.assert_close(out["lq"], out["gt"])
    assert not torch.equal(out["lq"], images) and out["lq_path"] == list("abcd")
    assert torch.equal(images, kept), "the given batch is left alone"
    assert torch.equal(Mixup(1.2)(batch, torch_generator(1))["lq"], out["lq"]), "the generator decides all"


def test_mixup_skips_half_of_the_batches():
    batch = {"lq": torch.rand(8, 3, 2, 2), "gt": torch.rand(8, 3, 2, 2)}
    random = torch_generator()
    same = sum(Mixup(1.2, use_identity=True)(batch, random) is batch for _ in range(400))
    assert 160 < same < 240


def test_mixup_weight_follows_its_beta_distribution():
    batch = {"lq": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)}
    random = torch_generator()
    values = torch.stack([Mixup(1.2)(batch, random)["lq"][0].squeeze() for _ in range(4000)])
    lam = values[values > 0]  # the permutation swaps the two every other time: then 1 - lam, again Beta(1.2, 1.2)
    assert lam.mean().item() == pytest.approx(0.5, abs=0.02)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * 1.2 + 1)), rel=0.1)


def test_random_gamma_steps_and_range():
    batch = {"lq": torch.full((2, 3, 1, 1), 0.5), "gt": torch.full((2, 3, 1, 1), 0.5)}
    random = torch_generator()
    gammas = set()
    for _ in range(2000):
        out = RandomGamma(0.6, 1.2)(batch, random)
        assert out["gt"] is batch["gt"] and (out["lq"] == out["lq"][0, 0, 0, 0]).all()
        gammas.add(round(100 * float(torch.log2(1 / out["lq"][0, 0, 0, 0]))))
    assert gammas == set(range(60, 121))


def test_options_to_transform():
    batch = {"lq": torch.rand(4, 3, 2, 2), "gt": torch.rand(4, 3, 2, 2)}
    assert build_batch_transform({}) is None
    assert build_batch_transform({"random_gamma": None, "mixing_augs": {"mixup": False}}) is None
    gamma = build_batch_transform({"random_gamma": [0.5, 0.5]})
    torch.testing.assert_close(gamma(batch, torch_generator())["lq"], batch["lq"] ** 0.5)
    both = build_batch_transform({"random_gamma": [1, 1], "mixing_augs": {"mixup": True, "mixup_beta": 1.2}})
    assert not torch.equal(both(batch, torch_generator())["gt"], batch["gt"])


def test_a_negative_crop_is_refused():
    with pytest.raises(UserError, match="gt_size: -4"):
        Augmentation(crop=-4)


def test_a_size_without_pixels_is_refused():
    with pytest.raises(UserError, match=r"train_size: \[0, 400\]"):
        Augmentation(size=(0, 400))
