"""Enhancing the frames of a clip in order, without flicker.

A network that treats every frame separately decides each time how much light is missing. Noise changes this decision,
so the picture flickers. Here the decision is averaged over the past, in seconds rather than frames:

- networks that decide on a thumbnail (`card.halo`): the decision itself;
- all others: the field of logarithmic gains, log(result / input) of thumbnails of `SIDE` x `SIDE` pixels; the result is
  multiplied by the difference of the averaged field from the current one. Where the picture moves, there is no average:
  the gain of a lamp must not stay where the lamp was.

An average still wanders with the noise, and what works locally amplifies the noise of dark places. So both the average
and the mean brightness of the results stay as they are until they stray by more than they do by chance (a dead band):
while nothing but the noise changes, the picture rests. At a cut the past is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.inference.enhancer import Enhancer
from llie.ops.bilateral_grid import DARKEST, log_scale, make_thumbnail

SECONDS = 1.0  # long enough against noise, shorter than the adaptation of an eye or a camera
SIDE = 16  # pixels of a thumbnail; few, so that noise averages out
LUMA = (0.2126, 0.7152, 0.0722)  # of BT.709
# Half the width of dead bands, as share of the largest recent change from one frame to the next, which is about 3
# standard deviations of the noise of single frames:
VALUES_REST = 1.0
AVERAGES_REST = 0.2  # over a second, noise moves an average by 0.15 to 0.2 of a standard deviation
UNSEEN = 0.01  # of the mean brightness: what may be held back where much changes
MOVES = 0.1  # change of a pixel of the thumbnail above which its past is ignored
CUT = 0.06  # smallest mean change of the thumbnail at a cut; between photographs it is 0.07 to 0.2
STANDS_OUT = 2.5  # smallest ratio to the change of the frames before, because a fast pan changes as much all the time


class Steady:
    """Enhances the frames of one clip, in order.

    Args:
        enhance: an `Enhancer`, or any function from a tensor (3, H, W) in [0, 1] to another of the same size.
        seconds: length of the average; 0 treats every frame separately.

    Example:
        >>> steady = Steady(lambda frame: frame, seconds=0.5)
        >>> steady(torch.zeros(3, 4, 6), time=0.0).shape
        torch.Size([3, 4, 6])
    """

    def __init__(self, enhance: Callable[[Tensor], Tensor], seconds: float = SECONDS):
        self.enhance = enhance
        self.seconds = seconds
        self.decision = DeadBand(seconds, AVERAGES_REST, average=MovingAverage(seconds))
        self.brightness = DeadBand(seconds, VALUES_REST, most=UNSEEN)
        self.cuts = CutDetector(seconds)

    def __call__(self, frame: Tensor, time: float) -> Tensor:
        """Enhance the next frame.

        Args:
            frame: (3, H, W), float in [0, 1].
            time: its time in seconds, later than that of the frame before.

        Returns:
            (3, H, W), on the same device.
        """
        if self.seconds == 0:
            return self.enhance(frame)
        view = make_thumbnail(frame[None], SIDE)
        if self.cuts(view, time):
            self.decision.forget()
            self.brightness.forget()
        if isinstance(self.enhance, Enhancer) and self.enhance.decides:
            result = self.enhance(frame, decision=self.decision(self.enhance.decide(frame), time))
        else:
            result = self._with_steady_gains(self.enhance(frame), view, time)
        mean = torch.log(
            (make_thumbnail(result[None], SIDE)[0].mean((1, 2)) @ view.new_tensor(LUMA)).clamp(min=DARKEST)
        )
        return (result * torch.exp(self.brightness(mean, time) - mean)).clamp_(0, 1)

    def _with_steady_gains(self, result: Tensor, view: Tensor, time: float) -> Tensor:
        gain = torch.log(make_thumbnail(result[None], SIDE).clamp(min=DARKEST) / view.clamp(min=DARKEST))
        stays = (1 - self.cuts.change / MOVES).clamp(min=0) if self.cuts.change is not None else 1
        correction = self.decision(gain, time, stays) - gain
        size = result.shape[-2:]
        return (result * torch.exp(F.interpolate(correction, size=size, mode="bilinear")[0])).clamp_(0, 1)


class DeadBand:
    """A value that is followed only where it leaves a band around what is in use.

    Args:
        seconds: for how long a change from one value to the next counts as recent.
        width: half the width of the band, as share of the largest recent change.
        most: half the width is never more than this.
        average: is followed instead of the values themselves.
    """

    def __init__(self, seconds: float, width: float, most: float = math.inf, average: MovingAverage | None = None):
        self.seconds, self.width, self.most, self.average = seconds, width, most, average
        self.forget()

    def forget(self) -> None:
        """Start again with the next value."""
        if self.average is not None:
            self.average.forget()
        self._held: Tensor | None = None
        self._before = self._change = torch.zeros(())
        self._time = 0.0

    def __call__(self, value: Tensor, time: float, stays: Tensor | float = 1) -> Tensor:
        """What to use from now on.

        Args:
            value: the next one.
            time: in seconds.
            stays: share of the past that still counts, beside its age.
        """
        target = value if self.average is None else self.average(value, time, stays)
        if self._held is None:
            self._held, self._change = value, torch.zeros_like(value)
        else:
            faded = self._change * math.exp(-max(0.0, time - self._time) / self.seconds)
            self._change = torch.maximum(faded, (value - self._before).abs())
            band = (self.width * self._change).clamp(max=self.most) * stays
            strays = target - self._held
            self._held = self._held + strays.sign() * (strays.abs() - band).clamp(min=0)
        self._before, self._time = value, time
        return self._held


class MovingAverage:
    """The average over the past: two exponential averages in a row, each over half the time.

    Two in a row have less than half the jitter of a single one with the same delay: their weights rise from 0, so no
    single value counts much, and then fall as exp(-2 age / `seconds`).
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.forget()

    def forget(self) -> None:
        """Start again with the next value."""
        self._averages: list[Tensor] = []
        self._time = 0.0

    def __call__(self, value: Tensor, time: float, stays: Tensor | float = 1) -> Tensor:
        """Add a value, and return the average.

        Args:
            value: the next one.
            time: in seconds.
            stays: share of the past to keep, in addition to the decay with time.
        """
        kept = math.exp(-2 * max(0.0, time - self._time) / self.seconds) * stays
        averages = []
        for average in self._averages or [value, value]:
            value = value + kept * (average - value)
            averages.append(value)
        self._averages, self._time = averages, time
        return value


class CutDetector:
    """Detects cuts from thumbnails (1, 3, side, side) of the frames.

    Attributes:
        change: change of each pixel of the thumbnail since the last frame, (1, 1, side, side); None at the first frame.
    """

    def __init__(self, seconds: float):
        self.change: Tensor | None = None
        self._before: Tensor | None = None
        self._usual = MovingAverage(seconds)

    def __call__(self, view: Tensor, time: float) -> bool:
        """Whether a new scene begins with this frame."""
        view, before = log_scale(view), self._before
        self._before = view
        if before is None:
            return False
        self.change = (view - before).abs().mean(1, keepdim=True)
        mean = self.change.mean()
        usual = self._usual_change
        cut = bool(mean > CUT) and bool(mean > STANDS_OUT * usual)
        if not cut:
            self._usual_change = self._usual(mean, time)
        return cut

    _usual_change: Tensor | float = 0.0
