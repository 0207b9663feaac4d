"""Banks of common features (LFPV, ICCV 2025): learned from all training images, read by every position of a map.

One bank holds vectors, the other small patches; a vector is a patch with a single position, so one class serves both.
In training, two small networks rewrite the banks at every iteration: the sample-updater adds features of the current
batch to each slot, and the mutual-updater exchanges information between random pairs of slots. Every position of the
feature map attends to the banks and adds the result. At test time the banks are constants.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llie.errors import UserError
from llie.ops.ranks import from_first_rank, gather_batch, rank, world_size


class Draws(NamedTuple):
    """The random choices of one update.

    Attributes:
        vector_at: (B, 2), row and column of the vector that each image of this rank contributes.
        patch_at: (B, 2), row and column of the upper left corner of its patch.
        vector_partners: (slots,), the partner of each slot of the vector bank; the same on all ranks.
        patch_partners: (slots,), likewise for the patch bank.
    """

    vector_at: Tensor
    patch_at: Tensor
    vector_partners: Tensor
    patch_partners: Tensor


def updater(inputs: int, channels: int, hidden_width: int, hidden_layers: int, kernel: int) -> nn.Sequential:
    """Convolutions with batch norm and ReLU, then one without: (N, inputs, s, s) -> (N, channels, s, s)."""
    widths = [inputs, *[hidden_width] * hidden_layers, channels]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, kernel, padding=kernel // 2))


class Bank(nn.Module):
    """A bank (slots, C, side, side), with the operations that read and rewrite it."""

    features: Tensor

    def __init__(self, channels: int, slots: int, side: int, hidden_width: int, hidden_layers: int, is_parameter: bool):
        super().__init__()
        self.side = side
        shape, kernel = (channels, side, side), 1 if side == 1 else 3
        features = torch.zeros(slots, *shape)
        if is_parameter:
            self.features = nn.Parameter(features)
        else:
            self.register_buffer("features", features)
        self.query_norm = nn.LayerNorm(features[0].numel())
        self.key_norm = nn.LayerNorm(features[0].numel())
        self.sample_updater = updater(3 * channels, channels, hidden_width, hidden_layers, kernel)
        self.sample_norm = nn.LayerNorm(shape)
        self.mutual_updater = updater(4 * channels, channels, hidden_width, hidden_layers, kernel)
        self.mutual_norm = nn.LayerNorm(shape)

    def read(self, f: Tensor, features: Tensor) -> Tensor:
        """The result of attention from each position of (B, C, h, w) to a bank, same shape (Eqs. 6 and 7), unscaled."""
        queries = self.query_norm(F.pixel_unshuffle(f, self.side).permute(0, 2, 3, 1))
        values = features.flatten(1)
        found = (queries @ self.key_norm(values).T).softmax(-1) @ values
        return F.pixel_shuffle(found.permute(0, 3, 1, 2), self.side)

    def take_in(self, samples: Tensor, shares: Tensor, identities: Tensor) -> Tensor:
        """The sample-updater: combines every slot with every sample; the new slot is the mean over the samples.

        Args:
            samples: (N, C, side, side), features of the images.
            shares: (N,), weights of the mean; they sum to 1.
            identities: (slots, C, side, side), distinguish the slots.
        """
        # The first layer, on the concatenation (slot, sample, identity), is a sum of three terms, each computed once
        # per slot or sample instead of once per pair. Autograd keeps the clone, as `write` overwrites the bank.
        first: Any = self.sample_updater[0]
        of_bank, of_sample, of_identity = first.weight.split(samples.shape[1], dim=1)
        slots = F.conv2d(self.features.clone(), of_bank, first.bias, padding=first.padding)
        slots = slots + F.conv2d(identities, of_identity, padding=first.padding)
        x = slots[:, None] + F.conv2d(samples, of_sample, padding=first.padding)
        x = self.sample_updater[1:](x.flatten(0, 1))
        return self.sample_norm((x.unflatten(0, (len(slots), -1)) * shares.view(-1, 1, 1, 1)).sum(1))

    def exchange(self, features: Tensor, partners: Tensor, identities: Tensor, partner_identities: Tensor) -> Tensor:
        """The mutual-updater: each slot takes in one partner; shapes (slots, C, side, side), but partners (slots,)."""
        x = torch.cat([features, features[partners], identities, partner_identities], dim=1)
        return self.mutual_norm(self.mutual_updater(x))

    @torch.no_grad()
    def write(self, features: Tensor) -> None:
        """Replace the bank, unless the new one is not finite; without waiting for the device."""
        self.features.copy_(torch.where(features.isfinite().all(), features, self.features))


class FeatureBanks(nn.Module):
    """Both banks applied to one feature map: `f + vectors read by f + patches read by f` (Eq. 8).

    In training the banks are first rewritten from the batch. All processes of a run compute the same banks, from the
    samples of all processes, so the result does not depend on how a batch is split.

    With a map of the network's error, samples come from where the network does not fit yet: each image contributes the
    vector and the patch of a position drawn in proportion to the error, and its weight is its mean error. Without a
    map, all images use the same random position and the same weight.

    Args:
        channels: C of the feature map.
        slots: vectors, and patches.
        patch: side of a patch; the map's height and width are multiples of it.
        hidden_width: width of the updaters; published: 4 C, about 1660 C^2 numbers, none of them used at test time.
        hidden_layers: depth of the updaters.
        parity: train like the published code: the banks are parameters, so the optimiser also changes them after each
            update; a slot's partner in the patch bank has the identity of its partner in the vector bank; each process
            has its own banks.
    """

    def __init__(
        self,
        channels: int,
        slots: int = 16,
        patch: int = 4,
        hidden_width: int = 256,
        hidden_layers: int = 5,
        parity: bool = False,
    ):
        super().__init__()
        if slots < 2 or patch < 2:  # batch statistics of the mutual-updater need two slots
            raise UserError(f"LFPV: slots and patch must be at least 2, not {slots} and {patch}")
        if hidden_width < 1 or hidden_layers < 0:
            given = f"{hidden_width} and {hidden_layers}"
            raise UserError(f"LFPV: hidden_width must be at least 1 and hidden_layers at least 0, not {given}")
        self.channels, self.parity = channels, parity
        self.identity = nn.Embedding(slots, channels)
        self.vectors = Bank(channels, slots, 1, hidden_width, hidden_layers, parity)
        self.patches = Bank(channels, slots, patch, hidden_width, hidden_layers, parity)

    def forward(self, f: Tensor, error: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Add to a feature map what it reads from the banks; in training, update the banks first.

        Args:
            f: (B, C, h, w).
            error: (B, 1, H, W), the network's error without banks, of any size; training only.
            draws: random choices to use instead of new ones; training only.

        Returns:
            (B, C, h, w), with the type of `f`; computed in float32 even under autocast.

        Raises:
            UserError: the shape of `f` does not fit the banks.
        """
        side = self.patches.side
        if f.ndim != 4 or f.shape[1] != self.channels or f.shape[2] % side or f.shape[3] % side:
            raise UserError(
                f"LFPV: the feature map is {tuple(f.shape)}; it must be (batch, {self.channels}, height, width) with "
                f"height and width multiples of the patch, {side}"
            )
        with torch.autocast(f.device.type, enabled=False):
            x = f.to(self.vectors.features.dtype)
            vectors, patches = self.vectors.features, self.patches.features
            if self.training:
                vectors, patches = self.update(x, error, draws)
                self.vectors.write(vectors)
                self.patches.write(patches)
            return (x + self.vectors.read(x, vectors) + self.patches.read(x, patches)).to(f.dtype)

    def update(self, f: Tensor, error: Tensor | None = None, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """New vectors (slots, C, 1, 1) and patches (slots, C, patch, patch), not stored yet; see `forward`."""
        if not hasattr(self, "identity"):
            raise UserError(
                "LFPV: this network has no updaters (updaters: false, or stripped), so it cannot be trained"
            )
        draws = draws or self.draw(f, error)
        side = self.patches.side
        shares = f.new_ones(len(f)) if error is None else error.to(f).mean((1, 2, 3))
        samples = [cut(f, draws.vector_at, 1).flatten(1), cut(f, draws.patch_at, side).flatten(1), shares[:, None]]
        packed = torch.cat(samples, dim=1)  # one exchange between ranks
        packed = packed if self.parity else gather_batch(packed)
        # One bad image must not damage the batch statistics permanently; the trainer reports its non-finite loss.
        packed = packed.nan_to_num(0, 0, 0)
        vectors, patches, shares = packed.split([sample.shape[1] for sample in samples], dim=1)
        shares = shares[:, 0] + 1e-8
        shares = shares / shares.sum()

        identities = self.identity.weight[:, :, None, None]
        vectors = self.vectors.take_in(vectors[:, :, None, None], shares, identities)
        vector_partners = identities[draws.vector_partners]
        vectors = self.vectors.exchange(vectors, draws.vector_partners, identities, vector_partners)

        identities = identities.expand(-1, -1, side, side)
        patches = self.patches.take_in(patches.unflatten(1, (-1, side, side)), shares, identities)
        patch_partners = identities[draws.vector_partners if self.parity else draws.patch_partners]
        return vectors, self.patches.exchange(patches, draws.patch_partners, identities, patch_partners)

    def draw(self, f: Tensor, error: Tensor | None = None) -> Draws:
        """New random choices, from PyTorch's generator of the device; all processes use those of rank 0.

        They are tensors on the device, so nothing waits for it.
        """
        batch, slots, side = len(f), len(self.vectors.features), self.patches.side
        if error is None:  # one position for all
            scores, ranks, own = f.new_ones(1, 1, *f.shape[2:]), 1, 0
        else:
            scores = F.adaptive_avg_pool2d(error.to(f), (f.shape[2], f.shape[3]))
            ranks, own = world_size(), rank()
        random = torch.rand(2 * (len(scores) * ranks + slots), device=f.device)
        random = random if self.parity else from_first_rank(random)
        positions, partners = random.split([len(random) - 2 * slots, 2 * slots])
        for_vectors, for_patches = positions.view(2, ranks, -1)[:, own]
        vector_partners, patch_partners = (partners * slots).long().clamp(max=slots - 1).view(2, slots)
        return Draws(
            pick(scores[:, 0], for_vectors).expand(batch, 2),
            pick(F.avg_pool2d(scores, side, stride=1)[:, 0], for_patches).expand(batch, 2),
            vector_partners,
            patch_partners,
        )

    def strip(self) -> None:
        """Delete everything that only training needs; the banks and the norms of queries and keys remain."""
        if not hasattr(self, "identity"):
            return
        del self.identity
        for bank in (self.vectors, self.patches):
            del bank.sample_updater, bank.sample_norm, bank.mutual_updater, bank.mutual_norm


def cut(f: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut squares from (B, C, h, w), one per image, with upper left corners (B, 2): (B, C, side, side)."""
    offsets = torch.arange(side, device=f.device)
    images = torch.arange(len(f), device=f.device)[:, None, None]
    rows, columns = corners[:, 0, None, None] + offsets[:, None], corners[:, 1, None, None] + offsets
    return f[images, :, rows, columns].permute(0, 3, 1, 2)


def pick(scores: Tensor, random: Tensor) -> Tensor:
    """Draw positions (N, 2) in proportion to the values of maps (N, h, w), by random numbers (N,) in [0, 1)."""
    # Integers, because their sum does not depend on the order of summation; a map of zeros means uniform.
    flat = scores.flatten(1).nan_to_num(0, 0, 0)
    shares = (flat / flat.amax(1, keepdim=True).clamp(min=1e-20) * 2**20).long() + 1
    sums = shares.cumsum(1)
    wanted = (random[:, None] * sums[:, -1:]).long()
    index = torch.searchsorted(sums, wanted, right=True)[:, 0].clamp(max=flat.shape[1] - 1)
    return torch.stack([index // scores.shape[2], index % scores.shape[2]], dim=1)
