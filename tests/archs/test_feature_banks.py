"""The banks of LFPV on their own, without a network."""

import pytest
import torch

from llie.archs.feature_banks import Draws, FeatureBanks, cut, pick
from llie.archs.lfpv import official_keys
from llie.errors import UserError
from tests.golden.compare import assert_near


def load(vector, **arguments):
    """Published banks with a golden vector's weights."""
    channels = vector.meta["channels"]
    banks = FeatureBanks(channels, hidden_width=4 * channels, **arguments)
    state = official_keys(vector.state_dict())
    banks.load_state_dict({key.removeprefix("banks."): value for key, value in state.items()})
    return banks


def recorded_draws(vector, step, batch):
    position = vector[f"step{step}_pos"]
    partners = vector[f"step{step}_partner_vector"], vector[f"step{step}_partner_patch"]
    return Draws(position[:2].expand(batch, 2), position[2:].expand(batch, 2), *partners)


def features(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def small(**arguments):
    torch.manual_seed(0)
    banks = FeatureBanks(8, slots=4, patch=2, hidden_width=8, hidden_layers=2, **arguments)
    for bank in (banks.vectors, banks.patches):
        bank.features.copy_(torch.randn_like(bank.features))
    return banks


@pytest.mark.parametrize("channels", [64, 36])
def test_golden_query(golden, channels):
    vector = golden(f"lfpv_query_c{channels}")
    banks, f = load(vector).eval(), vector["feature"]
    for side, name in ((banks.vectors, "vector"), (banks.patches, "patch")):
        assert_near(side.read(f, side.features), vector[f"added_{name}"])
    assert_near(banks(f), vector["output"])


@pytest.mark.parametrize("case", ["c64", "c36", "zero_c64"])
def test_golden_update(golden, case):
    """Each step starts from the recorded banks, and in float64.

    Batch and layer norms over a few numbers amplify rounding a hundredfold in each step: computed with another number
    of threads, the published code itself is not within 1e-4 after two steps.
    """
    vector = golden(f"lfpv_update_{case}", torch.float64)
    banks = load(vector, parity=True).double().train()
    sampled = {}
    for name in ("vectors", "patches"):
        getattr(banks, name).sample_norm.register_forward_hook(
            lambda _, __, out, name=name: sampled.update({name: out})
        )
    for step in (1, 2):
        banks.vectors.features.data.copy_(vector[f"bank_vector_{step - 1}"][..., None, None])
        banks.patches.features.data.copy_(vector[f"bank_patch_{step - 1}"])
        f = vector[f"step{step}_feature"]
        fused = banks(f, draws=recorded_draws(vector, step, len(f)))
        found = {
            f"step{step}_sampled_vector": sampled["vectors"].flatten(1),
            f"step{step}_sampled_patch": sampled["patches"],
            f"bank_vector_{step}": banks.vectors.features.flatten(1),
            f"bank_patch_{step}": banks.patches.features,
            f"step{step}_fused": fused,
        }
        for key, value in found.items():
            assert_near(value, vector[key], 5e-5, of=key)
    for name, bank in (("update_feature.1", "vectors.sample"), ("propagate_patch.16", "patches.mutual")):
        norm = banks.get_submodule(f"{bank}_updater.{name.partition('.')[2]}")
        assert_near(norm.running_mean, vector[f"bn_mean:{name}"])
        assert_near(norm.running_var, vector[f"bn_var:{name}"])
        assert norm.num_batches_tracked == vector.meta["bn_num_batches_tracked"]


@pytest.mark.parametrize("channels", [36, 64, 144])
def test_size(channels):
    with torch.device("meta"):
        banks = FeatureBanks(channels, hidden_width=4 * channels, parity=True)
    assert sum(p.numel() for p in banks.parameters()) == 1660 * channels**2 + 680 * channels
    banks.strip()
    assert sum(p.numel() for p in banks.parameters()) == 340 * channels


def test_the_first_layer_is_that_of_all_pairs():
    banks = small().double().train()
    bank, samples = banks.patches, features(3, 8, 2, 2).double()
    identities = banks.identity.weight[:, :, None, None].expand(-1, -1, 2, 2)
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    slots = (t[:, None].expand(-1, 3, -1, -1, -1) for t in (bank.features, identities))
    pairs = torch.cat([next(slots), samples.expand(4, -1, -1, -1, -1), next(slots)], dim=2).flatten(0, 1)
    out = (bank.sample_updater(pairs).unflatten(0, (4, 3)) * shares.view(-1, 1, 1, 1)).sum(1)
    torch.testing.assert_close(bank.take_in(samples, shares, identities), bank.sample_norm(out))


def test_only_training_writes_the_banks():
    banks = small().eval()
    before = banks.vectors.features.clone(), banks.patches.features.clone()
    banks(features(2, 8, 4, 6))
    assert torch.equal(banks.vectors.features, before[0]) and torch.equal(banks.patches.features, before[1])
    banks.train()(features(2, 8, 4, 6))
    assert not torch.equal(banks.vectors.features, before[0]) and not torch.equal(banks.patches.features, before[1])
    assert not banks.vectors.features.requires_grad


def test_the_present_update_is_read_and_carries_gradient():
    banks = small().train()
    f = features(2, 8, 4, 6).requires_grad_()
    draws = banks.draw(f)
    out = banks(f, draws=draws)
    stored = banks.eval()(f)  # the banks as written
    torch.testing.assert_close(out, stored)
    out.sum().backward()
    assert all(p.grad is not None for p in banks.parameters())


def test_parity_mistakes_the_identity_of_patch_partners_alone():
    banks, f = small().train(), features(2, 8, 4, 6)
    draws = Draws(
        torch.zeros(2, 2).long(), torch.zeros(2, 2).long(), torch.tensor([1, 2, 3, 0]), torch.tensor([3, 2, 1, 0])
    )
    vectors, patches = banks.update(f, draws=draws)
    banks.parity = True
    same, different = banks.update(f, draws=draws)
    torch.testing.assert_close(vectors, same)
    assert (patches - different).abs().max() > 1e-2


def test_parity_banks_are_parameters():
    names = {name for name, _ in FeatureBanks(8, parity=True).named_parameters()}
    intended = {name for name, _ in FeatureBanks(8).named_parameters()}
    assert names - intended == {"vectors.features", "patches.features"}
    assert FeatureBanks(8, parity=True).state_dict().keys() == FeatureBanks(8).state_dict().keys()


def test_a_feature_that_is_not_finite_spoils_nothing():
    banks, f = small().train(), features(2, 8, 4, 6)
    f[1] = float("nan")
    for value in (float("nan"), float("inf")):
        f[1] = value
        banks(f, error=f[:, :1])
    assert all(value.isfinite().all() for value in banks.state_dict().values())
    banks.vectors.mutual_norm.weight.data.fill_(float("nan"))
    before = banks.vectors.features.clone()
    banks(f)
    assert torch.equal(banks.vectors.features, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_banks_in_float32(dtype):
    f, error = features(2, 8, 4, 6).to(dtype), features(2, 1, 8, 12).abs().to(dtype)
    exact, rounded = small().train(), small().train()
    draws = exact.draw(f, error)
    expected = exact(f.float(), error, draws)
    with torch.autocast("cpu", dtype=dtype):
        out = rounded(f, error, draws)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    torch.testing.assert_close(rounded.patches.features, exact.patches.features)


def test_without_an_error_all_images_give_one_position_and_every_position_can_be_it():
    banks, f = small().train(), features(3, 8, 4, 6)
    torch.manual_seed(0)
    draws = [banks.draw(f) for _ in range(400)]
    assert all((d.vector_at == d.vector_at[0]).all() and (d.patch_at == d.patch_at[0]).all() for d in draws)
    assert len({tuple(d.vector_at[0].tolist()) for d in draws}) == 4 * 6
    assert len({tuple(d.patch_at[0].tolist()) for d in draws}) == 3 * 5  # of a patch of 2
    assert {int(i) for d in draws for i in d.vector_partners} == {0, 1, 2, 3}


def test_samples_and_weights_of_images_follow_the_error(monkeypatch):
    banks, f = small().train(), features(2, 8, 4, 6)
    error = torch.zeros(2, 1, 8, 12)
    error[0, :, 2:4, 10:12] = 3  # row 1, column 5 of the feature
    error[1, :, 6:8, 0:2] = 1
    draws = banks.draw(f, error)
    assert draws.vector_at.tolist() == [[1, 5], [3, 0]]
    assert all(0 <= row - corner <= 1 for row, corner in zip((1, 3), draws.patch_at[:, 0].tolist(), strict=True))
    seen = []
    monkeypatch.setattr(banks.vectors, "take_in", lambda samples, shares, _: seen.append((samples, shares)) or f[:1])
    monkeypatch.setattr(banks.vectors, "exchange", lambda *_: None)
    banks.update(f, error, draws)
    [(samples, shares)] = seen
    assert torch.equal(samples[:, :, 0, 0], torch.stack([f[0, :, 1, 5], f[1, :, 3, 0]]))
    torch.testing.assert_close(shares, torch.tensor([0.75, 0.25]), atol=1e-5, rtol=0)


def test_positions_are_picked_in_proportion():
    scores = torch.tensor([[[1.0, 0.0], [2.0, 5.0]]])
    picked = pick(scores.expand(8000, 2, 2), torch.arange(8000) / 8000)
    counts = torch.bincount(picked[:, 0] * 2 + picked[:, 1], minlength=4)
    torch.testing.assert_close(counts / 1000, torch.tensor([1.0, 0.0, 2.0, 5.0]), atol=0.01, rtol=0)
    for odd in (0.0, float("nan")):
        assert pick(torch.full((1, 2, 3), odd), torch.tensor([0.99999994])).tolist() == [[1, 2]]


def test_a_patch_is_cut_as_it_lies():
    f = torch.arange(24.0).view(1, 1, 4, 6)
    assert cut(f, torch.tensor([[1, 3]]), 2).tolist() == [[[[9, 10], [15, 16]]]]


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 8, 4, 5), "multiples of the patch, 2"), ((8, 4, 4), "batch, 8"), ((1, 3, 4, 4), "batch, 8")],
)
def test_features_that_do_not_fit(size, message):
    with pytest.raises(UserError, match=message):
        small()(torch.zeros(size))


def test_bad_arguments_and_training_without_updaters():
    with pytest.raises(UserError, match="at least 2"):
        FeatureBanks(8, slots=1)
    with pytest.raises(UserError, match="hidden_width must be at least 1"):
        FeatureBanks(8, hidden_width=0)
    with pytest.raises(UserError, match="hidden_layers at least 0"):
        FeatureBanks(8, hidden_layers=-1)
    banks = small().train()
    banks.strip()
    with pytest.raises(UserError, match="cannot be trained"):
        banks(features(1, 8, 4, 4))
