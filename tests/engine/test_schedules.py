import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.engine.schedules import SCHEDULES, create_schedule, hvi_cosine
from llie.errors import UserError


def test_mamballie_recipe_is_the_published_one(golden):
    vectors = golden("mamballie_recipe")
    for name, facts in vectors.meta["schedules"].items():
        spec = {
            "type": "CosineAnnealingRestartCyclicLR",
            "periods": facts["periods"],
            "restart_weights": [1, 1],
            "eta_mins": facts["eta_mins"],
        }
        rate = create_schedule(spec, facts["total_iter"])
        for iteration, expected in zip(vectors[f"{name}_iter"].tolist(), vectors[f"{name}_lr"].tolist(), strict=True):
            assert rate(facts["base_lr"], int(iteration)) == pytest.approx(expected, rel=1e-9), (name, iteration)


def test_hvi_schedules_are_the_published_ones(golden):
    vectors = golden("hvi_schedules")
    base, eta_min = vectors.meta["base_lr"], vectors.meta["eta_min"]
    for name, facts in vectors.meta["schedules"].items():
        cyclic_eta = 2e-4 if facts["cyclic"] else None
        curve = hvi_cosine(facts["epochs"], facts["warmup"], eta_min, cyclic_eta)
        for epoch, expected in enumerate([*vectors[name].tolist(), facts["lr_after_last_step"]]):
            assert abs(curve(base, epoch) - expected) <= 1e-15, (name, epoch)


def test_snr_aware_schedules_are_the_published_ones(golden):
    vectors = golden("snr_lr")
    cosine = {"type": "CosineAnnealingLR_Restart", "eta_min": 1e-7}
    schedules = {
        "multistep": {"type": "MultiStepLR", "milestones": [50000, 100000, 200000, 300000], "gamma": 0.5},
        "cosine": {**cosine, "T_period": [200000], "restarts": [200000], "restart_weights": [1]},
        "restart": {**cosine, "T_period": [10, 10, 10], "restarts": [10, 20], "restart_weights": [0.5, 0.25]},
    }
    for name, spec in schedules.items():
        rate = create_schedule({**spec, "first_step": 1}, 200000)
        for iteration, expected in zip(vectors[f"{name}_steps"].tolist(), vectors[f"{name}_lr"].tolist(), strict=True):
            assert rate(4e-4, iteration) == pytest.approx(expected, rel=1e-6), (name, iteration)


def test_hvi_schedule_advances_once_per_epoch():
    rate = create_schedule({"type": "HVICosine", "total_epochs": 10}, 50, iterations_per_epoch=5)
    assert [rate(3e-4, i) for i in (1, 5)] == [0, 0]
    assert [rate(3e-4, i) for i in (6, 10, 11)] == pytest.approx([1e-4, 1e-4, 2e-4])


def test_multi_step_with_warmup_reaches_the_configured_rate():
    rate = create_schedule({"type": "MultiStepLR", "milestones": [10], "gamma": 0.1}, 20, warmup_iter=5)
    assert rate(1e-3, 1) == pytest.approx(2e-4)
    assert [rate(1e-3, i) for i in (5, 6, 10)] == [1e-3] * 3
    assert rate(1e-3, 11) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (
            {"type": "MultiStepLR", "milestones": [3, 7], "gamma": 0.3},
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.3),
        ),
        (
            {"type": "CosineAnnealingLR", "T_max": 12, "eta_min": 1e-5},
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 1e-5),
        ),
    ],
)
def test_agrees_with_torch(spec, reference):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = reference(optimizer)
    rate = create_schedule(spec, 12)
    for iteration in range(1, 14):
        assert rate(0.01, iteration) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        if iteration <= 12:
            optimizer.step()
            scheduler.step()


def test_restart_weights_scale_each_period():
    spec = {"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1, 0.5], "eta_min": 1e-4}
    rate = create_schedule(spec, 8)
    assert rate(1e-3, 5) == pytest.approx(1e-4)  # step 4 ends the first period
    assert rate(1e-3, 6) == pytest.approx(1e-4 + 0.25 * 9e-4 * (1 + math.cos(math.pi / 4)))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 100), st.floats(1e-6, 1.0))
def test_past_the_end_the_last_value_holds(name, beyond, base):
    arguments = {
        "MultiStepLR": {"milestones": [5]},
        "MultiStepRestartLR": {"milestones": [5]},
        "CosineAnnealingRestartLR": {"periods": [5, 5]},
        "CosineAnnealingRestartCyclicLR": {"periods": [5, 5], "eta_mins": [0.2, 0.1]},
        "CosineAnnealingLR_Restart": {"T_period": [5, 5], "restarts": [5], "restart_weights": [0.5]},
        "HVICosine": {"total_epochs": 10},
    }.get(name, {})
    rate = create_schedule({"type": name, **arguments}, 10)
    assert rate(base, 20 + beyond) == rate(base, 20)
    assert 0 <= rate(base, 20) <= max(base, 0.2)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="MultiStepLR"):
        create_schedule({"type": "MultistepLR"}, 10)
    with pytest.raises(UserError, match="milestones"):
        create_schedule({"type": "MultiStepLR", "milestone": [3]}, 10)
    with pytest.raises(UserError, match="first_step must be 0 or 1"):
        create_schedule({"type": "cosine", "first_step": "one"}, 10)
    with pytest.raises(UserError, match="each restart needs a weight and a period"):
        create_schedule({"type": "CosineAnnealingLR_Restart", "T_period": [3], "restarts": [3]}, 7)
    with pytest.raises(UserError, match="equally long"):
        create_schedule({"type": "CosineAnnealingRestartCyclicLR", "periods": [3, 4], "eta_mins": [0.1]}, 7)
