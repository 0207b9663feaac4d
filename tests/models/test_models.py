from pathlib import Path

import pytest
import torch
from torch import nn

from llie.engine.settings import Settings
from llie.engine.trainer import Trainer
from llie.errors import UserError
from llie.models.adversarial import AdversarialModel
from llie.models.supervised import SupervisedModel
from llie.registry import ARCH_REGISTRY
from tests.engine.tiny import TinyLoader


class PairedOutputs(nn.Module):
    """Returns a dictionary while training, as networks with intermediate results do."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        coarse = self.first(x)[:, :3]
        out = self.last(self.first(x).relu())
        return {"out": out, "coarse": coarse} if self.training else out


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))

    def forward(self, x):
        return self.body(x).mean((2, 3))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for network in (PairedOutputs, Judge):
        monkeypatch.setitem(ARCH_REGISTRY._entries, network.__name__, network)


def options(**train):
    return {"network_g": {"type": "PairedOutputs"}, "network_d": {"type": "Judge"}, "path": {}, "train": train}


def batch(unpaired=False):
    made = next(TinyLoader(batch=2).batches(0))
    return made | ({"lq_unpaired": made["lq"] * 0.5, "hq": made["gt"] * 0.9} if unpaired else {})


def test_supervised_terms_look_at_any_output():
    terms = [{"type": "L1Loss"}, {"type": "MSELoss", "pred": "coarse", "weight": 0.5, "name": "coarse"}]
    model = SupervisedModel(options(losses=terms))
    loss, values = model.loss("g", batch())
    outputs, gt = model.networks["g"](batch()["lq"]), batch()["gt"]
    expected = (outputs["out"] - gt).abs().mean() + 0.5 * (outputs["coarse"] - gt).square().mean()
    torch.testing.assert_close(loss, expected)
    assert list(values) == ["L1Loss", "coarse"] and not values["coarse"].requires_grad


def test_predict_returns_the_result_alone():
    model = SupervisedModel(options(losses=[{"type": "L1Loss"}]))
    network = model.networks["g"].eval()
    assert model.predict(network, batch()).shape == (2, 3, 8, 8)


def test_pretrained_weights_are_loaded(tmp_path):
    source = PairedOutputs()
    torch.save({"params": source.state_dict()}, tmp_path / "net.pth")
    given = options(losses=[{"type": "L1Loss"}]) | {"path": {"pretrain_network_g": str(tmp_path / "net.pth")}}
    model = SupervisedModel(given)
    assert torch.equal(model.networks["g"].first.weight, source.first.weight)
    with pytest.raises(UserError, match="no checkpoint"):
        SupervisedModel(given | {"path": {"pretrain_network_g": str(tmp_path / "none.pth")}})


@pytest.mark.parametrize("unpaired", [False, True])
def test_adversarial_losses_are_the_textbook_ones(unpaired):
    terms = {"losses": [{"type": "L1Loss"}], "gan_opt": {"type": "GANLoss", "gan_type": "lsgan", "loss_weight": 0.1}}
    model = AdversarialModel(options(**terms))
    data = batch(unpaired)
    g, d = model.networks["g"], model.networks["d"].eval()
    fake = g(data.get("lq_unpaired", data["lq"]))["out"].detach()
    real = torch.cat([data["gt"], data["hq"]]) if unpaired else data["gt"]
    judged, _ = model.loss("d", data)
    torch.testing.assert_close(judged, (d(real) - 1).square().mean() + d(fake).square().mean())
    enhanced, values = model.loss("g", data)
    expected = (g(data["lq"])["out"] - data["gt"]).abs().mean() + 0.1 * (d(fake) - 1).square().mean()
    torch.testing.assert_close(enhanced, expected)
    assert set(values) == {"L1Loss", "gan"}


def test_the_judges_step_does_not_touch_the_generator():
    model = AdversarialModel(options(losses=[{"type": "L1Loss"}]))
    model.loss("d", batch())[0].backward()
    assert all(p.grad is None for p in model.networks["g"].parameters())
    assert all(p.grad is not None for p in model.networks["d"].parameters())


def test_generator_waits_and_then_takes_turns():
    model = AdversarialModel(options(losses=[{"type": "L1Loss"}], net_d_iters=2, net_d_init_iters=3))
    assert [model.phases(i) for i in range(1, 7)] == [("d",), ("d",), ("d",), ("d", "g"), ("d",), ("d", "g")]


def test_adversarial_training_runs_and_resumes_bit_for_bit(tmp_path: Path):
    def trainer(total):
        torch.manual_seed(0)
        model = AdversarialModel(options(losses=[{"type": "L1Loss"}], gan_opt={"type": "GANLoss", "loss_weight": 0.1}))
        optimizers = {"g": {"type": "Adam", "lr": 1e-3}, "d": {"type": "SGD", "lr": 1e-3}}
        schedules = {"g": {"type": "MultiStepLR", "milestones": [3], "gamma": 0.5}, "d": {"type": "constant"}}
        settings = Settings(total, optimizers=optimizers, schedules=schedules, print_freq=1, save_freq=3)
        return Trainer(model, TinyLoader(), settings, tmp_path / "run")

    from llie.engine import checkpoint

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


def test_a_missing_judge_is_named():
    with pytest.raises(UserError, match="network_d"):
        AdversarialModel(options(losses=[{"type": "L1Loss"}]) | {"network_d": None})


def test_controls_hold_in_evaluation_only():
    network = {"type": "HVISMM", "channels": [8, 8, 16, 32]}
    options = {"network_g": network, "train": {"losses": [{"type": "L1Loss"}]}}
    plain = SupervisedModel(options)
    dimmed = SupervisedModel(options | {"val": {"controls": {"alpha_rgb": 0.5}}})
    dimmed.networks["g"].load_state_dict(plain.networks["g"].state_dict())
    batch = {"lq": torch.rand(1, 3, 16, 16), "gt": torch.rand(1, 3, 16, 16)}
    results = [model.predict(model.networks["g"].eval(), batch) for model in (plain, dimmed)]
    torch.testing.assert_close(results[1], 0.5 * results[0])
    losses = [model.loss("g", batch)[0] for model in (plain, dimmed) if model.networks["g"].train()]
    torch.testing.assert_close(losses[0], losses[1])


def test_supervised_refuses_an_adversarial_term():
    options = {"network_g": {"type": "HVISMM", "channels": [8, 8, 16, 32]}, "train": {"gan_opt": {"type": "GANLoss"}}}
    with pytest.raises(UserError, match="AdversarialModel"):
        SupervisedModel(options)


@pytest.mark.parametrize(
    ("returned", "told"),
    [(lambda x: (x, x), "a tuple"), (lambda x: {"y": x}, "a mapping of y"), (lambda x: None, "a NoneType")],
)
def test_a_network_that_returns_no_image_is_told(returned, told, monkeypatch):
    monkeypatch.setattr(PairedOutputs, "forward", lambda self, x: returned(x))
    model = SupervisedModel(options(losses=[{"type": "L1Loss"}]))
    for use in (lambda: model.loss("g", batch()), lambda: model.predict(model.networks["g"], batch())):
        with pytest.raises(UserError, match=f"returned {told}; it must return a tensor"):
            use()
