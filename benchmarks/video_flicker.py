"""How much a video flickers: the input, each frame for itself, and steadied over time (`llie.inference.smoothing`).

    python benchmarks/video_flicker.py [--model NAME=MODEL ...] [--frames 24] [--height 96]

Flicker is the mean change of the mean brightness from one frame to the next, relative to the mean brightness. Scenes
are held-out photographs, darkened by 3 EV, with the noise of a sensor, 25 frames a second:

    static  nothing changes but the noise: the result must not flicker more than the input
    ramp    the light rises by 0.1 EV with every frame
    pan     the camera moves by 1 % of the width with every frame
    cut     half-way the scene becomes another one: flicker of all steps but this one, and how far the first frame after
            it is from the result of that frame for itself, in levels of 255
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

import llie
from llie.data.demo import _shipped
from llie.data.lowlight import Camera
from llie.data.readers import read_image
from llie.inference.smoothing import SECONDS, Steady

PHOTOGRAPHS = ("coffee.png", "chelsea.png")
RATE = 25
LUMA = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]


def view(name: str, height: int, shift: float) -> np.ndarray:
    """A part of a photograph, 4:3, moved to the right by a share of its width."""
    image = read_image(_shipped(name))
    tall = image.shape[0] * 3 // 5
    wide = tall * 4 // 3
    left = min(int(shift * image.shape[1]), image.shape[1] - wide)
    return cv2.resize(image[:tall, left : left + wide], (height * 4 // 3, height), interpolation=cv2.INTER_AREA)


def clip(kind: str, name: str, frames: int, height: int) -> Iterator[Tensor]:
    """The frames of a scene, (3, H, W)."""
    random = np.random.default_rng(0)
    for number in range(frames):
        seen = PHOTOGRAPHS[(PHOTOGRAPHS.index(name) + 1) % 2] if kind == "cut" and number >= frames // 2 else name
        stops = -3 + (0.1 * number if kind == "ramp" else 0)
        camera = Camera(
            (stops, stops), untouched=0, uneven=0, cast=0, gamma=(1, 1), shot=(5e-5,) * 2, read=(3e-4,) * 2, jpeg=0
        )
        image = camera(view(seen, height, 0.01 * number if kind == "pan" else 0), random)
        yield torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def flicker(frames: list[Tensor], without: int | None = None) -> float:
    """See above; `without`: the number of a frame whose step does not count."""
    means = np.array([float((frame * LUMA).sum(0).mean()) for frame in frames])
    steps = np.abs(np.diff(means))
    return float(np.delete(steps, [] if without is None else without - 1).mean() / means.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        nargs="+",
        default=["Dawn=dawn", "CLAHE=clahe"],
        metavar="NAME=MODEL",
        help="anything llie.load takes",
    )
    parser.add_argument("--frames", type=int, default=24, help="of each scene")
    parser.add_argument("--height", type=int, default=96, help="of the frames")
    parser.add_argument("--smooth", type=float, default=SECONDS, help=f"seconds, {SECONDS} if left out")
    parser.add_argument("--scenes", nargs="+", default=["static", "ramp", "pan", "cut"])
    words = parser.parse_args()
    print("| | scene | input | each frame for itself | steadied | after a cut |\n|" + "---|" * 6)
    for label, model in (word.split("=", 1) for word in words.model):
        enhance = llie.load(model)
        for kind in words.scenes:
            figures = []
            for name in PHOTOGRAPHS:
                frames = list(clip(kind, name, words.frames, words.height))
                steady = Steady(enhance, words.smooth)
                alone = [enhance(frame) for frame in frames]
                after = [steady(frame, number / RATE) for number, frame in enumerate(frames)]
                at = words.frames // 2 if kind == "cut" else None
                apart = 255 * (after[at] - alone[at]).abs().mean().item() if at else float("nan")
                figures.append([100 * flicker(part, at) for part in (frames, alone, after)] + [apart])
            row = np.mean(figures, axis=0)
            last = f"{row[3]:.2f}" if kind == "cut" else ""
            print(f"| {label} | {kind} | {row[0]:.3f} % | {row[1]:.3f} % | {row[2]:.3f} % | {last} |", flush=True)


if __name__ == "__main__":
    main()
