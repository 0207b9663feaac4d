"""Frames in order: no flicker, no average across cuts, no delay behind movement."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import llie
from llie.archs import Card
from llie.inference import Enhancer
from llie.inference.smoothing import LUMA, CutDetector, DeadBand, MovingAverage, Steady
from llie.ops.bilateral_grid import make_thumbnail

FRAMES = 24
RATE = 24


def scene(seed: int, level: float = 0.1, size: tuple[int, int] = (48, 64)) -> Tensor:
    """A picture of soft shapes, (3, H, W)."""
    shapes = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed)) * 2 * level
    return torch.nn.functional.interpolate(shapes, size=size, mode="bilinear")[0]


def noisy(picture: Tensor, seed: int, sigma: float = 0.02) -> Tensor:
    return (picture + sigma * torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def flicker(frames: list[Tensor]) -> float:
    """Mean change of the mean brightness from frame to frame, relative to it."""
    weights = torch.tensor(LUMA)
    means = np.array([(frame.mean((1, 2)) @ weights).item() for frame in frames])
    return float(np.abs(np.diff(means)).mean() / means.mean())


def unsteady(frame: Tensor) -> Tensor:
    """Brightens by a gain that depends on the noise of a single pixel."""
    return (frame * (4 + 20 * (frame[0, 5, 5] - 0.1))).clamp(0, 1)


class Deciding(nn.Module):
    """The same, as a network that decides from a thumbnail."""

    card = Card(halo=8)

    def forward(self, x):
        return self.render(x, self.decide(make_thumbnail(x)))[0]

    def decide(self, thumbnail):
        return 4 + 20 * (thumbnail[:, :1, 13:14, 10:11] - 0.1)

    def render(self, x, gain, region=None):
        return (x * gain, x)


METHODS = pytest.mark.parametrize(
    "method", [unsteady, Enhancer(Deciding(), "cpu")], ids=["any function", "a network that decides"]
)


def run(steady: Steady, frames: list[Tensor]) -> list[Tensor]:
    return [steady(frame, number / RATE) for number, frame in enumerate(frames)]


@METHODS
def test_a_static_scene_flickers_less_than_without_and_keeps_its_brightness(method):
    frames = [noisy(scene(0), seed) for seed in range(FRAMES)]
    before, after = [method(frame) for frame in frames], run(Steady(method), frames)
    assert flicker(after) < flicker(before) / 20
    settled, usual = (torch.stack(results[-8:]).mean() for results in (after, before))
    assert abs(settled / usual - 1) < 0.05


@pytest.mark.parametrize("model", ["dawn", "clahe"])
@pytest.mark.parametrize("sigma", [0.005, 0.02])
def test_a_static_scene_flickers_no_more_than_the_input(model, sigma):
    enhance = llie.load(model, "cpu")
    frames = [noisy(scene(0), seed, sigma) for seed in range(12)]
    assert flicker([enhance(frame) for frame in frames]) > flicker(frames), "each frame for itself"
    assert flicker(run(Steady(enhance), frames)) <= flicker(frames)


@METHODS
def test_a_new_scene_is_seen_for_itself(method):
    frames = [noisy(scene(0, 0.05), 1)] * 6 + [noisy(scene(1, 0.4), 2)] * 2
    after = run(Steady(method), frames)
    assert torch.allclose(after[6], method(frames[6]), atol=1e-5)


@METHODS
def test_nothing_is_done_over_no_time(method):
    frames = [noisy(scene(0), seed) for seed in range(3)]
    assert all(torch.equal(*pair) for pair in zip(run(Steady(method, 0), frames), map(method, frames), strict=True))


def test_a_steady_function_is_left_alone():
    frames = [noisy(scene(0), seed) for seed in range(4)]
    for result, frame in zip(run(Steady(lambda x: x / 2), frames), frames, strict=True):
        assert torch.allclose(result, frame / 2, atol=1e-3)


def test_the_gain_of_a_lamp_does_not_stay_where_it_was():
    """A function that darkens what is bright; where the lamp was, the wall must be as bright as elsewhere."""
    wall = torch.full((3, 64, 64), 0.1)
    frames = []
    for number in range(8):
        frames.append(wall.clone())
        frames[-1][:, 16:32, 8 * number : 8 * number + 8] = 0.9
    after = run(Steady(lambda x: torch.where(x > 0.5, x / 3, x * 3)), frames)
    assert after[-1][:, 16:32, 36:44].mean().item() == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("rate", [20, 50, 200])
def test_the_average_counts_seconds_not_frames(rate):
    average = MovingAverage(1.0)
    for number in range(rate + 1):
        value = average(torch.tensor(float(number > 0)), number / rate)
    assert value.item() == pytest.approx(1 - 3 * math.exp(-2), abs=0.03)  # of two exponentials in continuous time


def test_two_exponentials_jitter_less_than_one_that_lags_as_far_behind():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    average, single, one = MovingAverage(1.0), [], torch.tensor(0.0)
    double = [average(value, number / RATE) for number, value in enumerate(values)]
    for value in values:
        one = value + math.exp(-1 / RATE) * (one - value)
        single.append(one)
    assert torch.stack(double)[100:].diff().abs().mean() < torch.stack(single)[100:].diff().abs().mean() / 2


def test_a_dead_band_rests_in_noise_and_follows_what_is_more():
    generator = torch.Generator().manual_seed(0)
    band = DeadBand(1.0, 1.0)
    noise = [band(torch.randn((), generator=generator), n / RATE) for n in range(100)]
    assert torch.stack(noise)[50:].diff().abs().mean() < 0.1, "single values change by 1.1"
    values = [band(n + torch.randn((), generator=generator), (100 + n) / RATE) for n in range(1, 100)]
    assert values[-1].item() == pytest.approx(99, abs=6), "behind by the noise and a step"
    capped = DeadBand(1.0, 1.0, most=0.01)
    assert [round(capped(torch.tensor(float(n)), n / RATE).item(), 2) for n in range(4)] == [0, 0.99, 1.99, 2.99]


def test_fading_light_is_followed():
    """The light rises by 0.1 EV with every frame, which the brightness of a steady function must do, too."""
    frames = [scene(0, 0.02 * 2 ** (number / 10)) for number in range(FRAMES)]
    for result, frame in zip(run(Steady(lambda x: x / 2), frames), frames, strict=True):
        assert result.mean().item() == pytest.approx(frame.mean().item() / 2, rel=0.0101)


def test_an_average_forgets():
    average = MovingAverage(0.5)
    average(torch.tensor(1.0), 0.0)
    average.forget()
    assert average(torch.tensor(5.0), 0.1).item() == 5


@pytest.mark.parametrize(
    ("pictures", "cuts"),
    [
        ([scene(0)] * 3 + [scene(1)] * 3, [3]),
        ([scene(0, 0.03)] * 3 + [scene(1, 0.03)] * 3, [3]),
        ([scene(0, 0.02 * 1.2**number) for number in range(12)], []),
        ([scene(0, size=(48, 160))[..., number : number + 64] for number in range(0, 60, 4)], []),
    ],
    ids=["cut", "cut between dark scenes", "brighter and brighter", "pan"],
)
def test_cuts_are_told_from_what_changes_all_the_time(pictures, cuts):
    detector = CutDetector(0.75)
    views = [make_thumbnail(noisy(picture, seed, 0.005)[None], 16) for seed, picture in enumerate(pictures)]
    assert [number for number, view in enumerate(views) if detector(view, number / RATE)] == cuts
