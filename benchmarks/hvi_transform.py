"""HVI transforms, forward plus backward: ours against a literal implementation with masked assignment.

python benchmarks/hvi_transform.py
"""

import argparse
import math

import torch
from timing import compare, report
from torch import Tensor

from llie.ops.hvi import EPS, hvi_to_rgb, rgb_to_hvi


def masked_rgb_to_hvi(rgb: Tensor, k: Tensor) -> Tensor:
    high, low = rgb.max(1)[0], rgb.min(1)[0]
    chroma = high - low
    red, green, blue = rgb[:, 0], rgb[:, 1], rgb[:, 2]
    hue = torch.zeros_like(high)
    is_blue, is_green, is_red = blue == high, green == high, red == high
    hue[is_blue] = 4 + ((red - green) / (chroma + EPS))[is_blue]
    hue[is_green] = 2 + ((blue - red) / (chroma + EPS))[is_green]
    hue[is_red] = (((green - blue) / (chroma + EPS)) % 6)[is_red]
    hue[low == high] = 0
    hue = hue / 6
    saturation = chroma / (high + EPS)
    saturation[high == 0] = 0
    radius = ((high * math.pi / 2).sin() + EPS).pow(k) * saturation
    return torch.stack((radius * (2 * math.pi * hue).cos(), radius * (2 * math.pi * hue).sin(), high), dim=1)


def masked_hvi_to_rgb(hvi: Tensor, k: Tensor, alpha_s: Tensor | float = 1.0, alpha_i: Tensor | float = 1.0) -> Tensor:
    h, v, value = hvi[:, 0].clamp(-1, 1), hvi[:, 1].clamp(-1, 1), alpha_i * hvi[:, 2].clamp(0, 1)
    collapse = ((value * math.pi / 2).sin() + EPS).pow(k)
    h, v = (h / (collapse + EPS)).clamp(-1, 1), (v / (collapse + EPS)).clamp(-1, 1)
    hue = (torch.atan2(v + EPS, h + EPS) / (2 * math.pi)) % 1
    saturation = (alpha_s * (h**2 + v**2 + EPS).sqrt()).clamp(0, 1)
    value = value.clamp(0, 1)
    sextant = torch.floor(hue * 6)
    rest = hue * 6 - sextant
    p = value * (1 - saturation)
    q = value * (1 - rest * saturation)
    t = value * (1 - (1 - rest) * saturation)
    red, green, blue = torch.zeros_like(value), torch.zeros_like(value), torch.zeros_like(value)
    colours = ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q))
    for number, (r, g, b) in enumerate(colours):
        here = sextant == number
        red[here], green[here], blue[here] = r[here], g[here], b[here]
    return torch.stack((red, green, blue), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    rgb = torch.rand(4, 3, *arguments.size, requires_grad=True)
    k = torch.tensor([0.2], requires_grad=True)
    hvi = rgb_to_hvi(rgb, k).detach().requires_grad_()
    weight = torch.rand_like(rgb)

    def both_ways(transform, x):
        def run():
            x.grad = k.grad = None
            transform(x, k).backward(weight)
            return x.grad

        return run

    pairs = {
        "RGB to HVI": (masked_rgb_to_hvi, rgb_to_hvi, rgb),
        "HVI to RGB": (masked_hvi_to_rgb, hvi_to_rgb, hvi),
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for title, (masked, ours, x) in pairs.items():
            torch.testing.assert_close(ours(x, k), masked(x, k), atol=2e-6, rtol=0)
            report(
                f"{title}, forward + backward",
                compare({"masked": both_ways(masked, x), "llie": both_ways(ours, x)}, arguments.rounds),
            )


if __name__ == "__main__":
    main()
