"""The loss of HVI-CIDNet and HVI-SMM: a sum of distances in RGB and HVI, with brightness alignment."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llie.errors import UserError
from llie.losses.base import ImageLoss, check_choice
from llie.losses.perceptual import PerceptualLoss
from llie.losses.pixel import L1Loss
from llie.losses.structure import EdgeLoss, SSIMLoss
from llie.ops.hvi import hvi_to_rgb, rgb_to_hvi
from llie.registry import LOSS_REGISTRY

SIGMA = 0.1  # standard deviation of a brightness, relative to it
LUMA = (0.299, 0.587, 0.114)


@LOSS_REGISTRY.register()
class HVILoss(nn.Module):
    """Pair loss B(p, g) = S(p, g) + hvi_weight S(T(p), T(g)), T = RGB to HVI, summed over the supervised outputs.

    S = l1 * L1 + ssim * SSIM loss + edge * edge loss + perceptual * VGG19 loss. With `gt_mean`, an output's loss is
    W B(p, g) + (1 - W) B(p', g), where p' is p with the reference's mean brightness, and W, between 0 and 1, grows with
    the difference of the two brightnesses (GT-mean loss, arXiv 2507.20148; HVI-SMM's intensity mean loss is "hvi").
    W and the brightness factor carry gradients.

    Args:
        l1: weight of the L1 distance.
        ssim: weight of the SSIM loss.
        edge: weight of the edge loss.
        perceptual: weight of the VGG19 distance; 0 needs no VGG weights.
        hvi_weight: weight of the distances in HVI, relative to those in RGB.
        gt_mean: alignment of brightness: "none"; "rgb" scales the image; "hvi" scales its intensity channel.
        preds: supervised output -> weight; {out: 1.0, base: 0.5} is HVI-SMM's intermediate supervision.
        detach_target_k: no gradient for the exponent k from the reference's HVI map (k could shrink the distance).
        k_grad_in_inverse: train the exponent through the inverse transform of `gt_mean: hvi`, too; see the network's.
        skip_aligned: leave out p' where W is constantly 1: the same value and gradient at half the cost. It reads W
            from the device once per step; turn it off to capture the step as a graph.
        weights: file with torchvision's VGG19 weights, or its folder; None searches the usual folders.
        precision: "float32"; or "bfloat16" for VGG's convolutions, which are most of the arithmetic of a training step.

    Raises:
        UserError: an unknown `gt_mean`, all weights zero, or no VGG weights.
    """

    takes_outputs = True
    luma: Tensor
    pred_weights: Tensor

    def __init__(
        self,
        l1: float = 1.0,
        ssim: float = 0.5,
        edge: float = 50.0,
        perceptual: float = 0.01,
        hvi_weight: float = 1.0,
        gt_mean: str = "none",
        preds: Mapping[str, float] | None = None,
        detach_target_k: bool = False,
        k_grad_in_inverse: bool = True,
        skip_aligned: bool = True,
        weights: str | None = None,
        precision: str = "float32",
    ):
        super().__init__()
        check_choice("gt_mean", gt_mean, ("none", "rgb", "hvi"))
        self.gt_mean, self.hvi_weight = gt_mean, hvi_weight
        self.detach_target_k, self.skip_aligned = detach_target_k, skip_aligned
        self.k_grad_in_inverse = k_grad_in_inverse
        self.preds = dict(preds or {"out": 1.0})
        self.register_buffer("pred_weights", torch.tensor(list(self.preds.values())), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(3, 1, 1), persistent=False)
        terms: list[tuple[float, ImageLoss]] = [(l1, L1Loss()), (ssim, SSIMLoss()), (edge, EdgeLoss())]
        if perceptual:
            layers = {"conv1_2": 1.0, "conv2_2": 1.0, "conv3_4": 1.0, "conv4_4": 1.0}
            vgg = PerceptualLoss(layers, range_norm=True, criterion="mse", weights=weights, precision=precision)
            terms.append((perceptual, vgg))
        if not any(weight for weight, _ in terms):
            raise UserError("HVILoss: all of its weights are zero")
        self.weights = [weight for weight, _ in terms if weight]
        self.distances = nn.ModuleList(distance for weight, distance in terms if weight)

    def forward(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss of `outputs` (those in `preds`, (B, 3, H, W) in RGB, and `k`) against `batch["gt"]`."""
        missing = [name for name in (*self.preds, "k") if name not in outputs]
        if missing:
            raise UserError(f"HVILoss needs the network's output {missing[0]!r}; it gives {', '.join(outputs)}")
        k, gt = outputs["k"], batch["gt"]
        gt_hvi = rgb_to_hvi(gt, k.detach() if self.detach_target_k else k)
        target = torch.stack([gt, gt_hvi]).unsqueeze(1)  # (2 spaces, 1, B, 3, H, W)

        rgb = torch.stack([outputs[name] for name in self.preds])  # (n, B, 3, H, W)
        hvi = rgb_to_hvi(rgb.flatten(0, 1), k).view(rgb.shape)
        costs = self.pred_weights
        if self.gt_mean != "none":
            mean_pred, mean_gt = self.brightness(rgb, hvi), self.brightness(gt, gt_hvi)
            share, needed = self.share(mean_pred, mean_gt)
            factor = (mean_gt / (mean_pred + 1e-8))[needed, :, None, None, None]
            aligned_rgb, aligned_hvi = self.align(rgb[needed], hvi[needed], factor, k)
            rgb, hvi = torch.cat([rgb, aligned_rgb]), torch.cat([hvi, aligned_hvi])
            costs = torch.cat([costs * share, (costs * (1 - share))[needed]])
        return (costs * self.pair(rgb, hvi, target)).sum()

    def share(self, mean_pred: Tensor, mean_gt: Tensor) -> tuple[Tensor, Tensor]:
        """W of each output (n,), from brightnesses (n, B) and (B,); and which outputs need the aligned version."""
        divergence = brightness_divergence(mean_pred, mean_gt)
        needed = torch.arange(len(divergence), device=divergence.device)
        if self.skip_aligned:
            # Above 1 the clamp has no gradient, so leaving out the aligned version changes nothing.
            needed = (divergence <= 1).any(-1).nonzero().flatten()
        return divergence.clamp(0, 1).mean(-1), needed

    def pair(self, rgb: Tensor, hvi: Tensor, target: Tensor) -> Tensor:
        """B of n predictions (n, B, 3, H, W), given in both spaces, against (2, 1, B, 3, H, W): (n,)."""
        both = torch.stack([rgb, hvi])
        sums = [
            weight * distance.distance(both, target)  # type: ignore[operator]
            for weight, distance in zip(self.weights, self.distances, strict=True)
        ]
        in_rgb, in_hvi = torch.stack(sums).sum(0).mean(-1)
        return in_rgb + self.hvi_weight * in_hvi

    def brightness(self, rgb: Tensor, hvi: Tensor) -> Tensor:
        """Mean brightness of each image, (..., 3, H, W) -> (...): of luma, or of the intensity channel."""
        return ((rgb * self.luma).sum(-3) if self.gt_mean == "rgb" else hvi[..., 2, :, :]).mean((-2, -1))

    def align(self, rgb: Tensor, hvi: Tensor, factor: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions (n, B, 3, H, W) with their brightness multiplied by `factor`, in RGB and HVI."""
        if self.gt_mean == "rgb":
            aligned = (factor * rgb).clamp(0, 1)
            return aligned, rgb_to_hvi(aligned.flatten(0, 1), k).view(rgb.shape)
        # As published, the edited map is compared, not the HVI of the aligned image, whose radius C(I) differs.
        edited = torch.cat([hvi[..., :2, :, :], (factor * hvi[..., 2:, :, :]).clamp(0, 1)], dim=-3)
        k = k if self.k_grad_in_inverse else k.detach()
        return hvi_to_rgb(edited.flatten(0, 1), k).view(rgb.shape), edited


def brightness_divergence(pred: Tensor, target: Tensor) -> Tensor:
    """Divergence of two mean brightnesses: 0 when equal, 1 at a ratio of about 1.33, unbounded.

    The mean of the Kullback-Leibler divergences of N(a, (0.1 a)^2) and N(b, (0.1 b)^2) from the normal distribution
    halfway between them; it depends only on the ratio a / b.
    """
    a, b = target.abs() + 1e-8, pred.abs() + 1e-8
    middle, variance = (a + b) / 2, ((SIGMA * a) ** 2 + (SIGMA * b) ** 2) / 2

    def divergence(mean: Tensor) -> Tensor:
        spread = SIGMA * mean
        return torch.log(variance.sqrt() / spread) + (spread**2 + (mean - middle) ** 2) / (2 * variance) - 0.5

    return (divergence(a) + divergence(b)) / 2
