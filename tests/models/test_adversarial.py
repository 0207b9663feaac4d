"""Training against a discriminator: the losses, one step of DRBN's second stage, and whole runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from llie.archs import Card
from llie.engine import checkpoint
from llie.engine.settings import Settings
from llie.engine.trainer import Trainer
from llie.errors import UserError
from llie.models.adversarial import AdversarialModel
from llie.registry import ARCH_REGISTRY, DISCRIMINATOR_REGISTRY
from tests.engine.tiny import TinyLoader


class Coarse(nn.Module):
    """Returns a dictionary while training, as networks with intermediate results do; counts its calls."""

    def __init__(self):
        super().__init__()
        self.body, self.k, self.calls = nn.Conv2d(3, 6, 3, padding=1), nn.Parameter(torch.ones(1)), 0

    def forward(self, x):
        self.calls += 1
        first, last = self.body(x).chunk(2, dim=1)
        out = self.k * last + x
        return {"out": out, "coarse": first, "k": self.k} if self.training else out


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))

    def forward(self, x):
        return self.body(x).mean((2, 3))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._entries, "Coarse", Coarse)
    monkeypatch.setitem(DISCRIMINATOR_REGISTRY._entries, "Judge", Judge)


L1 = [{"type": "L1Loss"}]


def model(**train):
    torch.manual_seed(0)
    networks = {"network_g": {"type": "Coarse"}, "network_d": {"type": "Judge"}}
    train = {"losses": [*L1, {"type": "L1Loss", "pred": "coarse"}], "optim_d": {"type": "Adam"}, **train}
    return AdversarialModel(networks | {"path": {}, "train": train})


def batch(*streams):
    made = next(TinyLoader(batch=2).batches(0))
    more = {"lq_real": made["lq"].flip(0) * 0.5, "hq": made["gt"] * 0.9}
    return made | {name: more[name] for name in streams}


@pytest.mark.parametrize("streams", [(), ("lq_real",), ("hq",), ("lq_real", "hq")])
def test_the_losses_are_the_textbook_ones(streams):
    ours = model(losses=L1, gan_opt={"type": "GANLoss", "gan_type": "lsgan", "loss_weight": 0.1})
    data = batch(*streams)
    g, d = ours.networks["g"], ours.networks["d"].eval()
    fake = g(data.get("lq_real", data["lq"]))["out"].detach()
    real = torch.cat([data["gt"], data["hq"]]) if "hq" in streams else data["gt"]
    judged, _ = ours.loss("d", data)
    torch.testing.assert_close(judged, (d(real) - 1).square().mean() + d(fake).square().mean())
    enhanced, values = ours.loss("g", data)
    expected = {"L1Loss": (g(data["lq"])["out"] - data["gt"]).abs().mean(), "gan": 0.1 * (d(fake) - 1).square().mean()}
    torch.testing.assert_close(values, {name: value.detach() for name, value in expected.items()})
    torch.testing.assert_close(enhanced, sum(expected.values()))


@pytest.mark.parametrize(("pred", "output"), [("lq_real", "out"), ("lq_real/coarse", "coarse")])
def test_a_term_may_use_the_photographs_without_reference(pred, output):
    term = {"type": "L1Loss", "pred": pred, "target": "lq_real"}
    ours, data = model(losses=[*L1, term], gan_opt={"type": "GANLoss", "loss_weight": 0}), batch("lq_real")
    _, values = ours.loss("g", data)
    expected = ours.networks["g"](data["lq_real"])[output]
    torch.testing.assert_close(values["L1Loss_2"], (expected - data["lq_real"]).abs().mean().detach())


@pytest.mark.parametrize("streams", [(), ("lq_real",)])
def test_what_a_network_takes_while_it_trains_belongs_to_pairs(streams, monkeypatch):
    """Photographs without reference, in the same call, have none of it."""
    seen = []
    monkeypatch.setattr(Coarse, "card", Card(training_inputs=("gt",)), raising=False)
    ours, data = model(), batch(*streams)
    forward = ours.networks["g"].forward
    ours.networks["g"].forward = lambda x, gt=None: seen.append(gt) or forward(x)
    ours.loss("g", data)
    assert seen == [None] if streams else torch.equal(seen[0], data["gt"])


@pytest.mark.parametrize("shares", [False, True])
def test_each_step_gives_gradients_to_its_own_network_alone(shares):
    ours, data = model(), batch("lq_real", "hq")
    if shares:
        ours.phases(1)
    for phase, other in (("d", "g"), ("g", "d")):
        ours.loss(phase, data)[0].backward()
        assert all(p.grad is not None for p in ours.networks[phase].parameters())
        assert all(p.grad is None for p in ours.networks[other].parameters())
        ours.networks[phase].zero_grad()


def test_one_enhancement_serves_both_steps():
    """Both steps get the same result as with two forward passes."""
    results = []
    for accumulate, calls in ((1, 1), (2, 2)):
        ours, data = model(accumulate=accumulate), batch("lq_real", "hq")
        judge = torch.optim.SGD(ours.networks["d"].parameters(), lr=1.0)
        for phase in ours.phases(1):
            loss, _ = ours.loss(phase, data)
            loss.backward()
            judge.step() if phase == "d" else None
            results.append(loss.detach())
        results += [p.grad for p in ours.networks["g"].parameters()]
        assert ours.networks["g"].calls == calls
    half = len(results) // 2
    torch.testing.assert_close(results[:half], results[half:])


def test_generator_waits_and_then_takes_turns():
    ours = model(net_d_iters=2, net_d_init_iters=3)
    assert [ours.phases(i) for i in range(1, 7)] == [("d",), ("d",), ("d",), ("d", "g"), ("d",), ("d", "g")]


def test_terms_of_weight_0_need_no_backbone():
    """No perceptual network is loaded, no score is computed, no photograph is enhanced."""
    perceptual = {"type": "PerceptualLoss", "layer_weights": {"relu1_1": 1.0}, "weights": "nowhere", "weight": 0.0}
    ours = model(losses=[*L1, perceptual], gan_opt={"type": "GANLoss", "loss_weight": 0.0})
    assert ours.phases(1) == ("g",)
    seen = Counter()
    ours.networks["g"].register_forward_hook(lambda module, images, out: seen.update(images=len(images[0])))
    ours.networks["d"].register_forward_hook(lambda *call: seen.update("judged"))
    loss, values = ours.loss("g", batch("lq_real", "hq"))
    assert seen == {"images": 2} and list(values) == ["L1Loss"]
    assert loss == values["L1Loss"]


@pytest.mark.parametrize("missing", ["network_d", "train.optim_d"])
def test_a_missing_judge_is_named(missing):
    options = {"network_g": {"type": "Coarse"}, "network_d": {"type": "Judge"}, "train": {"losses": L1}}
    options |= {"network_d": None} if missing == "network_d" else {}
    with pytest.raises(UserError, match=missing):
        AdversarialModel(options)


def test_a_loss_that_is_not_adversarial_is_named():
    with pytest.raises(UserError, match=r"train\.gan_opt: L1Loss is not an adversarial loss"):
        model(gan_opt={"type": "L1Loss"})


def test_streams_of_another_size_are_named():
    data = batch("lq_real", "hq")
    data["lq_real"] = data["lq_real"][..., :4]
    ours = model()
    ours.phases(1)
    with pytest.raises(UserError, match="lq 8x8, lq_real 4x8; give all training sets the same gt_size"):
        ours.loss("d", data)


def test_it_resumes_bit_for_bit(tmp_path: Path):
    def trainer(total):
        soft = {"type": "GANLoss", "gan_type": "lsgan", "real_label_val": [0.7, 1.2], "fake_label_val": [0.0, 0.3]}
        optimizers = {"g": {"type": "Adam", "lr": 1e-3}, "d": {"type": "Adam", "lr": 1e-3}}
        schedules = {"g": {"type": "MultiStepLR", "milestones": [3], "gamma": 0.5}, "d": {"type": "constant"}}
        settings = Settings(total, optimizers=optimizers, schedules=schedules, print_freq=1, save_freq=3)
        return Trainer(model(gan_opt=soft), TinyLoader(), settings, tmp_path / "run")

    whole = trainer(6)
    whole.run()
    assert whole.optimizers["g"].param_groups[0]["lr"] == pytest.approx(5e-4)
    assert whole.optimizers["d"].param_groups[0]["lr"] == pytest.approx(1e-3)
    (tmp_path / "run" / "training_states" / "6.state").unlink()
    resumed = trainer(6)
    resumed.resume(checkpoint.newest_state(tmp_path / "run", print))
    assert resumed.iteration == 3
    resumed.run()
    for name in ("g", "d"):
        theirs = resumed.networks[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in whole.networks[name].state_dict().items())
    assert (tmp_path / "run" / "models" / "net_d_latest.pth").exists()
