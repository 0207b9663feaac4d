"""`benchmarks/training_step.py`: its literal networks and losses compute what ours do, so times can be compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("name", ["HVISMM", "HVICIDNet", "DRBN", "HDM", "ZeroDCE"])
def test_the_literal_step_has_the_loss_and_the_gradient_of_ours(name, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_step
    from literal_losses import random_vgg

    recipe = training_step.RECIPES[name]
    monkeypatch.setitem(training_step.RECIPES, name, dataclasses.replace(recipe, crop=32, batch=1))
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    if recipe.vgg:
        torch.save(random_vgg(recipe.vgg[0]), tmp_path / training_step.FILES[recipe.vgg[0]])
    losses, norms = [], []
    for variant in ("literal", "llie", "checkpoint")[: 2 if name == "ZeroDCE" else 3]:
        step = training_step.make_step(name, variant, ratio=1.15)
        gradients = []
        step.optimiser.register_step_pre_hook(
            lambda optimiser, *_, found=gradients: found.extend(p.grad for p in optimiser.param_groups[0]["params"])
        )
        losses.append(step())
        norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))
        assert all(seconds > 0 for seconds in step.seconds.values())
    assert losses[1:] == pytest.approx([losses[0]] * len(losses[1:]), rel=1e-3)
    assert norms[1:] == pytest.approx([norms[0]] * len(norms[1:]), rel=1e-2)
