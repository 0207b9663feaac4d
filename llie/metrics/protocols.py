"""Evaluation protocols: the steps between the output of a network and the formula of a metric, named once, as data.

A figure without its protocol means nothing: on one image, the protocols below differ by up to ten dB. Never compare
figures of two protocols. A protocol is a tuple of steps, applied in order to `(prediction, reference)`, both (H, W, C)
float64 on the 0..255 scale. Its name lists the steps:

    rgb8          rounded to 8 bits                      (SNR-Aware, MambaLLIE, BasicSR)
    rgb8-trunc    truncated to 8 bits                    (HVI-CIDNet and HVI-SMM, which write PNGs that way)
    rgb-float     clipped to [0, 1] only                 (PSNR of Retinexformer)
    y8 ...        the same, then the luma of BT.601 in studio range 16..235, not rounded (BasicSR `test_y_channel`)
    ...-gtmean    the prediction scaled to the reference's mean brightness. It uses the reference, so it flatters: name
                  it beside the figure, and give the plain figure, too.
    rgb8-shave10  rounded to 8 bits, without 10 pixels at each side (PSNR of DRBN, as in super-resolution)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import cv2
import numpy as np

from llie.errors import UserError, suggest
from llie.metrics.images import Pixels, cut

Step = Callable[[Pixels, Pixels], tuple[Pixels, Pixels]]


def clip(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Clip the prediction to the range of an image."""
    return prediction.clip(0, 255), reference


def round8(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Round both to 8 bits, half to even."""
    return prediction.round(), reference.round()


def truncate8(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Truncate the prediction to 8 bits, like the conversion of a float tensor to PIL; round the reference."""
    return np.floor(prediction), reference.round()


def luma(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Convert both to Y of BT.601 YCbCr, 16..235, like BasicSR's `test_y_channel`."""
    return to_luma(prediction), to_luma(reference)


def to_luma(image: Pixels) -> Pixels:
    """(H, W, 3) RGB to (H, W, 1) Y of BT.601 YCbCr in 16..235; an image with one channel does not change."""
    if image.shape[-1] == 1:
        return image
    return 16 + (image @ np.array([65.481, 128.553, 24.966]) / 255)[..., None]


def match_gray8(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """GT-mean of HVI-CIDNet: means of OpenCV's rounded 8-bit grey; the scaled prediction is clipped, not rounded."""
    return _scaled(prediction, _gray8(reference).mean(), _gray8(prediction).mean()), reference


def match_gray(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """GT-mean with the unrounded grey 0.299 R + 0.587 G + 0.114 B."""
    weights = [0.299, 0.587, 0.114]
    return _scaled(prediction, _weighted_mean(reference, weights), _weighted_mean(prediction, weights)), reference


def match_swapped(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """GT-mean of Retinexformer: unrounded grey of RGB taken for BGR, so the weights of R and B are swapped."""
    weights = [0.114, 0.587, 0.299]
    return _scaled(prediction, _weighted_mean(reference, weights), _weighted_mean(prediction, weights)), reference


def match_channels(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """GT-mean of LYT-Net (PyTorch): the plain mean over all values."""
    return _scaled(prediction, reference.mean(), prediction.mean()), reference


def match_gamma(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Oracle gamma of LYT-Net (TensorFlow): of 100 exponents in 0.4..2.5, the one with the best PSNR."""
    logarithm = np.log(np.maximum(prediction, 1e-12) / 255)
    candidates = (255 * np.exp(gamma * logarithm) for gamma in np.linspace(0.4, 2.5, 100))
    return min(candidates, key=lambda candidate: float(np.square(candidate - reference).mean())), reference


def shave10(prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Cut off ten pixels at each side of both."""
    return cut(prediction, 10), cut(reference, 10)


def _scaled(prediction: Pixels, target: float, mean: float) -> Pixels:
    """Scale a prediction to a brightness; a black one stays black."""
    return (prediction * (target / mean)).clip(0, 255) if mean > 0 else prediction


def _gray8(image: Pixels) -> np.ndarray:
    image = image.astype(np.uint8)
    return image if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _weighted_mean(image: Pixels, weights: list[float]) -> float:
    means = image.mean(axis=(0, 1))
    return float(means @ weights) if len(means) == 3 else float(means[0])


_LEVELS: dict[str, tuple[Step, ...]] = {"8": (round8,), "8-trunc": (truncate8,), "-float": ()}
_GT_MEAN: dict[str, Step] = {"8": match_gray8, "8-trunc": match_gray8, "-float": match_gray}
_COLOURS: dict[str, tuple[Step, ...]] = {"rgb": (), "y": (luma,)}

PROTOCOLS: dict[str, tuple[Step, ...]] = {
    f"{colour}{level}{suffix}": (clip, *_LEVELS[level], *([_GT_MEAN[level]] if suffix else []), *_COLOURS[colour])
    for colour, level, suffix in product(_COLOURS, _LEVELS, ["", "-gtmean"])
}
PROTOCOLS |= {f"rgb8-shave10{suffix}": (*PROTOCOLS[f"rgb8{suffix}"], shave10) for suffix in ("", "-gtmean")}
# Retinexformer measures PSNR in floating point, and SSIM after rounding, which follows the scaling.
PROTOCOLS["rgb-float-gtmean-swapped"] = (clip, match_swapped)
PROTOCOLS["rgb8-gtmean-swapped"] = (clip, match_swapped, round8)
PROTOCOLS["rgb-float-gtmean-channels"] = (clip, match_channels)
PROTOCOLS["rgb-float-gamma"] = (clip, match_gamma)


def protocol_steps(name: str) -> tuple[Step, ...]:
    """The steps of a protocol.

    Raises:
        UserError: unknown protocol; the message lists similar names.
    """
    if name not in PROTOCOLS:
        raise UserError(f"no protocol is called {name!r}.{suggest(name, PROTOCOLS)} Known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def uses_reference(name: str) -> bool:
    """Whether the protocol changes the prediction depending on the reference."""
    return any(step.__name__.startswith("match_") for step in protocol_steps(name))


def plain(name: str) -> str:
    """The protocol that does not use the reference: `rgb8` for `rgb8-gtmean`."""
    return name.split("-gtmean")[0].split("-gamma")[0] if uses_reference(name) else name


def with_counterparts(names: Iterable[str]) -> list[str]:
    """The named protocols, each plain one with its GT-mean form and vice versa: neither is shown without the other."""
    both: list[str] = []
    for name in names:
        both += [plain(name), f"{plain(name)}-gtmean", name]
    return list(dict.fromkeys(both))


def apply_protocol(name: str, prediction: Pixels, reference: Pixels) -> tuple[Pixels, Pixels]:
    """Apply the steps of a protocol to a prediction and its reference, (H, W, C) on the 0..255 scale.

    Raises:
        UserError: unknown protocol, or images of different shapes.
    """
    steps = protocol_steps(name)
    if prediction.shape != reference.shape:
        raise UserError(
            f"the prediction is {_size(prediction)}, but its reference is {_size(reference)}; the sizes must be equal"
        )
    for step in steps:
        prediction, reference = step(prediction, reference)
    return prediction, reference


def _size(image: Pixels) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
