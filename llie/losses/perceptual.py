"""Perceptual loss: distance between VGG features (Johnson et al., ECCV 2016), with an early gradient to save memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from llie.losses.base import ImageLoss, check_choice
from llie.losses.vgg import VGGFeatures
from llie.registry import LOSS_REGISTRY

CRITERIA: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "mse": F.mse_loss}


@LOSS_REGISTRY.register()
class PerceptualLoss(ImageLoss):
    """Weighted distance between VGG features, and optionally between their Gram matrices (style).

    The target's features have no gradient, and are computed once for all predictions with the same target.

    Args:
        layer_weights: layer name -> weight; "conv*" is before the ReLU, "relu*" after it.
        vgg_type: "vgg16" or "vgg19".
        use_input_norm: apply ImageNet's mean and standard deviation.
        range_norm: map [-1, 1] to [0, 1] first. (HVI-CIDNet does so for images in [0, 1], too.)
        perceptual_weight: factor on the feature distance.
        style_weight: factor on the distance between Gram matrices.
        criterion: "l1", or "l2" (also called "mse").
        reduction: "mean" over the elements of each layer, or "sum" over them and over the batch.
        weights: file with torchvision's VGG weights, or its folder; None searches the usual folders.
        precision: "float32"; or "bfloat16" for VGG's convolutions, several times faster where the hardware supports it.
            The value is within 1 %; the gradient gets noisy as the prediction approaches the target.

    Raises:
        UserError: an unknown layer, criterion or network; missing weights.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: str = "l1",
        reduction: str = "mean",
        weights: str | None = None,
        precision: str = "float32",
    ):
        super().__init__(reduction)
        check_choice("criterion", criterion, tuple(CRITERIA))
        self.criterion = CRITERIA[criterion]
        self.layer_weights = dict(layer_weights)
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        self.vgg = VGGFeatures(self.layer_weights, vgg_type, use_input_norm, range_norm, weights, precision)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """See `ImageLoss.distance`."""
        targets = target.reshape(-1, *target.shape[-3:])
        numbers = torch.arange(len(targets)).view(target.shape[:-3]).expand(pred.shape[:-3]).flatten()
        order = numbers.argsort(stable=True)
        groups = pred.reshape(-1, *pred.shape[-3:])[order.to(pred.device)].unflatten(0, (len(targets), -1))
        # One target at a time, because the features of all targets would be gigabytes.
        values = torch.cat([self._to_one(preds, one) for preds, one in zip(groups, targets.unbind(), strict=True)])
        return values[order.argsort().to(pred.device)].view(pred.shape[:-3])

    def _to_one(self, preds: Tensor, target: Tensor) -> Tensor:
        """Distances of (n, 3, H, W) from one (3, H, W)."""
        with torch.no_grad():
            wanted = self.vgg(target.unsqueeze(0))
        value: Tensor = EagerGradient.apply(preds, lambda images: self._compare(self.vgg(images), wanted))
        return value

    def _compare(self, features: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=features[next(iter(features))].device)
        for name, weight in self.layer_weights.items():
            found, sought = (_at_least_float32(maps[name]) for maps in (features, wanted))
            if self.perceptual_weight:
                total = total + self.perceptual_weight * weight * self._distances(found, sought)
            if self.style_weight:
                total = total + self.style_weight * weight * self._distances(_gram(found), _gram(sought))
        return total

    def _distances(self, found: Tensor, sought: Tensor) -> Tensor:
        """Distances of n tensors from one, (n, ...) and (1, ...) -> (n,)."""
        if found.ndim == 4:  # in the order of memory, because the gradients of losses are slow in any other on CPUs
            found, sought = (maps.permute(0, 2, 3, 1) for maps in (found, sought))
        return torch.stack([self.criterion(each, sought[0], reduction=self.reduction) for each in found])


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def _gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): correlations between channels, divided by the number of elements."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


class EagerGradient(torch.autograd.Function):
    """Values of independent images, with the gradient computed in the forward pass instead of in the backward pass.

    The parameters of a frozen network have no gradient, and each value depends on one image only, so the backward pass
    needs nothing but d value / d image. That is as large as the image; the activations, fifty times larger, are freed
    before the next images are evaluated.
    """

    @staticmethod
    def forward(ctx, images: Tensor, evaluate: Callable[[Tensor], Tensor]) -> Tensor:
        """Values (n,) of images (n, C, H, W)."""
        if not ctx.needs_input_grad[0]:
            return evaluate(images)
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            values = evaluate(images)
        # The gradients of a mean are tiny; multiplied by the number of pixels, they fit into float16.
        scale = float(images[0, 0].numel())
        (gradient,) = torch.autograd.grad(values, images, torch.full_like(values, scale))
        ctx.save_for_backward(gradient / scale)
        return values.detach()

    @staticmethod
    def backward(ctx, of_values: Tensor) -> tuple[Tensor, None]:
        """The stored d value / d image, times the incoming gradient of each value."""
        (gradient,) = ctx.saved_tensors
        return of_values.view(-1, 1, 1, 1) * gradient, None
