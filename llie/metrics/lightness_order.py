"""Whether an enhancement keeps what is lighter than what: the lightness order error."""

from __future__ import annotations

import numpy as np

from llie.errors import UserError
from llie.metrics.images import Image, Pixels
from llie.metrics.metric import mean_over_pairs, register_metric
from llie.metrics.protocols import plain

SIDE = 50  # pixels of the shorter side of the image that is compared
_CHUNK = 512  # pixels compared with all others at once


@register_metric("lower", needs_reference=False, needs_input=True)
def loe(pred: Image, lq: Image, protocol: str = "rgb8", crop_border: int = 0, input_order: str = "HWC") -> float:
    """Lightness order error of a result towards its *input*, from 0 to the number of pixels; lower is better.

    Wang et al., "Naturalness Preserved Enhancement Algorithm for Non-Uniform Illumination Images", TIP 2013: the mean
    over pixels of how many others have changed their order with it. Lightness is the largest channel, and a pixel is
    before another if it is at least as light. Both images are sampled to 50 pixels at the shorter side. The paper does
    not say how: here the nearest pixel counts, so figures compare within one program only.

    Args:
        pred: see `psnr`.
        lq: the unprocessed input, of the same size.
        protocol: one without help of a reference; see `psnr`.
        crop_border: see `psnr`.
        input_order: see `psnr`.

    Raises:
        UserError: as `psnr`; also when the protocol needs a reference.
    """
    if plain(protocol) != protocol:
        raise UserError(f"the protocol {protocol} needs a reference, loe has none; use {plain(protocol)}")
    return mean_over_pairs(_loe, pred, lq, protocol, crop_border, input_order=input_order)


def _loe(pred: Pixels, lq: Pixels) -> float:
    one, other = _lightness(pred), _lightness(lq)
    changed = 0
    for start in range(0, len(one), _CHUNK):
        part = slice(start, start + _CHUNK)
        changed += int(np.count_nonzero((one[part, None] >= one) != (other[part, None] >= other)))
    return changed / len(one)


def _lightness(image: Pixels) -> np.ndarray:
    """The largest channel of the sampled image, flat."""
    ratio = min(1.0, SIDE / min(image.shape[:2]))
    rows, columns = (
        ((np.arange(count) + 0.5) * side / count).astype(int)
        for side in image.shape[:2]
        for count in [max(1, round(side * ratio))]
    )
    return image[rows[:, None], columns].max(axis=-1).ravel()
