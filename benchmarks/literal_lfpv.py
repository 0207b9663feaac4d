"""A literal implementation of LFPV on SNR-Aware, with official names: the baseline of its benchmarks."""

import torch
from literal_snr_aware import LiteralSNRAware, literal_snr_map
from torch import Tensor, nn
from torch.nn import functional as F

from llie.archs.lfpv import official_keys

SLOTS, PATCH = 16, 4


def updater(inputs: int, c: int, kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((inputs, 4 * c), *[(4 * c, 4 * c)] * 4, (4 * c, c)):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(c, c, kernel, padding=kernel // 2))


class LiteralLFPV(LiteralSNRAware):
    """For sizes that are multiples of 16; the output is a pair (with banks, plain) in training."""

    def __init__(self, c: int = 64):
        super().__init__(c)
        self.common_feature = nn.Parameter(torch.zeros(SLOTS, c))
        self.common_feature_patch = nn.Parameter(torch.zeros(SLOTS, c, PATCH, PATCH))
        self.embedding = nn.Embedding(SLOTS, c)
        self.update_feature, self.update_feature_patch = updater(3 * c, c, 1), updater(3 * c, c, 3)
        self.propagate, self.propagate_patch = updater(4 * c, c, 1), updater(4 * c, c, 3)
        self.norm_feature, self.norm_feature2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.norm_patch, self.norm_patch2 = nn.LayerNorm((c, PATCH, PATCH)), nn.LayerNorm((c, PATCH, PATCH))
        self.norm_query1, self.norm_query2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.norm_query3, self.norm_query4 = nn.LayerNorm(16 * c), nn.LayerNorm(16 * c)

    def sample(self, net: nn.Module, bank: Tensor, samples: Tensor) -> Tensor:
        """All pairs of slots and samples through the updater; the mean over samples."""
        identities = self.embedding.weight[:, :, None, None].repeat(1, 1, *bank.shape[2:])
        slots = [t[:, None].repeat(1, len(samples), 1, 1, 1) for t in (bank, identities)]
        pairs = torch.cat([slots[0], samples[None].repeat(SLOTS, 1, 1, 1, 1), slots[1]], 2).flatten(0, 1)
        return net(pairs).unflatten(0, (SLOTS, -1)).mean(1)

    def exchange(self, net: nn.Module, bank: Tensor, partners: Tensor, identity_partners: Tensor) -> Tensor:
        identities = self.embedding.weight[:, :, None, None].repeat(1, 1, *bank.shape[2:])
        return net(torch.cat([bank, bank[partners], identities, identities[identity_partners]], 1))

    def update(self, f: Tensor) -> tuple[Tensor, Tensor]:
        h, w = f.shape[2:]
        r, c = int(torch.randint(h, ())), int(torch.randint(w, ()))
        rp, cp = int(torch.randint(h - PATCH + 1, ())), int(torch.randint(w - PATCH + 1, ()))
        a, a2 = torch.randint(SLOTS, (SLOTS,)), torch.randint(SLOTS, (SLOTS,))
        v = self.sample(self.update_feature, self.common_feature[:, :, None, None], f[:, :, r, c, None, None])
        v = self.norm_feature(v.flatten(1))
        p = self.sample(self.update_feature_patch, self.common_feature_patch, f[:, :, rp : rp + PATCH, cp : cp + PATCH])
        p = self.norm_patch(p)
        v = self.norm_feature2(self.exchange(self.propagate, v[:, :, None, None], a, a).flatten(1))
        return v, self.norm_patch2(self.exchange(self.propagate_patch, p, a2, a))

    def query(self, f: Tensor, v: Tensor, p: Tensor) -> Tensor:
        b, c, h, w = f.shape
        q = self.norm_query1(f.permute(0, 2, 3, 1).reshape(b, h * w, c))
        near = (q @ self.norm_query2(v).T).softmax(-1) @ v
        u = F.unfold(f, PATCH, stride=PATCH).transpose(1, 2)
        p = p.flatten(1)
        far = (self.norm_query3(u) @ self.norm_query4(p).T).softmax(-1) @ p
        return f + near.transpose(1, 2).reshape(b, c, h, w) + F.fold(far.transpose(1, 2), (h, w), PATCH, stride=PATCH)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        mask = literal_snr_map(x) if mask is None else mask
        *skips, f = self.encode(x)
        if not self.training:
            return self.decode(x, mask, *skips, self.query(f, self.common_feature, self.common_feature_patch))
        plain = self.decode(x, mask, *skips, f)
        v, p = self.update(f)
        fused = self.query(f, v, p)
        self.common_feature.data, self.common_feature_patch.data = v.detach(), p.detach()
        return self.decode(x, mask, *skips, fused), plain

    def weights_as_ours(self) -> dict[str, Tensor]:
        """Its state under the names of `LFPV`."""
        return official_keys(self.state_dict())
