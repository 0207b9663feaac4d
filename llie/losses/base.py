"""The base class of full-reference losses: one distance per image, reduced over the batch."""

from __future__ import annotations

from torch import Tensor, nn

from llie.errors import UserError, suggest


def check_choice(option: str, value: object, known: tuple[str, ...]) -> None:
    """Raise a `UserError` unless `value` is one of `known`."""
    if value not in known:
        raise UserError(f"{option}: {value!r} is not one of {', '.join(known)}.{suggest(value, known)}")


class ImageLoss(nn.Module):
    """A loss whose value for a batch is the mean (or sum) of the distances of its images.

    Subclasses implement `distance`. Composite losses call it with many predictions at once.

    Args:
        reduction: "mean" over all elements, or "sum" over them.
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        check_choice("reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """Distance of every image: (..., C, H, W) and a target that broadcasts with it -> (...)."""
        raise NotImplementedError  # every loss has its own

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The distance of (B, C, H, W) from a target of the same shape, reduced to a scalar."""
        return self.reduce(self.distance(pred, target), dims=None)

    def reduce(self, values: Tensor, dims: tuple[int, ...] | None = (-3, -2, -1)) -> Tensor:
        """Mean or sum over `dims` (by default the dimensions of an image), according to `reduction`."""
        return values.mean(dims) if self.reduction == "mean" else values.sum(dims)
