"""Smoothing with a weight for each pair of neighbours: a weighted least-squares problem on the pixel grid.

When weights span many orders of magnitude, simple iterations hardly converge. Conjugate gradients with a multigrid
preconditioner need about a hundred steps; time and memory grow linearly with the number of pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DAMPING = 0.6  # factor on a Jacobi step
SMALLEST = 64  # largest number of pixels of the coarsest grid


def weighted_smoothing(image: Tensor, down: Tensor, right: Tensor, tolerance: float = 1e-3, most: int = 1000) -> Tensor:
    """The map t that minimises `sum (t - image)^2 + sum down * (dt/dy)^2 + sum right * (dt/dx)^2`.

    Args:
        image: (H, W), float64.
        down: (H - 1, W) weights, at least 0, of the squared difference between a pixel and the one below.
        right: (H, W - 1) weights, likewise, for a pixel and the one to its right.
        tolerance: stop when the residual of the linear equations is this share of the image's norm.
        most: largest number of steps.

    Returns:
        (H, W), within the range of the image up to the tolerance.
    """
    grid = _Grid(torch.ones_like(image), down, right)
    # The preconditioner need not be exact, and single precision halves its memory traffic.
    cycle = _Multigrid(_Grid(grid.mass.float(), down.float(), right.float()))
    smooth = image.clone()
    residual = image - grid(smooth)
    direction, last = torch.zeros_like(image), 1.0
    enough = tolerance * float(image.norm())
    for _ in range(most):
        if float(residual.norm()) <= enough:
            break
        corrected = cycle(residual.float()).double()
        now = float((residual * corrected).sum())
        direction = corrected + now / last * direction
        last = now
        product = grid(direction)
        step = now / float((direction * product).sum())
        smooth += step * direction
        residual -= step * product
    return smooth


class _Grid:
    """The matrix of the linear equations: half the gradient of the sum of squares."""

    def __init__(self, mass: Tensor, down: Tensor, right: Tensor):
        self.mass, self.down, self.right = mass, down, right
        self.diagonal = mass + F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))
        self.diagonal += F.pad(right, (1, 0)) + F.pad(right, (0, 1))

    def __call__(self, t: Tensor) -> Tensor:
        out = self.mass * t
        flow = self.down * t.diff(dim=0)
        out[:-1] -= flow
        out[1:] += flow
        flow = self.right * t.diff(dim=1)
        out[:, :-1] -= flow
        out[:, 1:] += flow
        return out

    def coarser(self) -> _Grid:
        """The same for maps that are constant on blocks of 2x2 pixels; only weights between blocks remain."""
        return _Grid(_block_sums(self.mass), _pair_sums(self.down[1::2]), _pair_sums(self.right[:, 1::2].T).T)


class _Multigrid:
    """Solves the equations approximately: Jacobi steps on each grid around a correction from the next coarser one."""

    def __init__(self, grid: _Grid):
        self.grid = grid
        self.step = DAMPING / grid.diagonal
        self.coarser = _Multigrid(grid.coarser()) if grid.mass.numel() > SMALLEST else None

    def __call__(self, wanted: Tensor) -> Tensor:
        t = self.step * wanted
        if self.coarser is None:
            for _ in range(20):
                self.sweep(t, wanted)
            return t
        height, width = t.shape
        correction = self.coarser(_block_sums(wanted - self.grid(t)))
        t += correction.repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width]
        return self.sweep(t, wanted)

    def sweep(self, t: Tensor, wanted: Tensor) -> Tensor:
        """One damped Jacobi step, in place."""
        return t.addcmul_(self.step, wanted - self.grid(t))


def _pair_sums(x: Tensor) -> Tensor:
    """Sums of columns 0 and 1, 2 and 3, ...; an odd last one stays alone."""
    sums = x[:, ::2].clone()
    sums[:, : x.shape[1] // 2] += x[:, 1::2]
    return sums


def _block_sums(x: Tensor) -> Tensor:
    return _pair_sums(_pair_sums(x).T).T
