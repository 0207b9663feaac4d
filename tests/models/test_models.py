import pytest
import torch
from torch import nn

from llie.errors import UserError
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


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._entries, "PairedOutputs", PairedOutputs)


def options(**train):
    return {"network_g": {"type": "PairedOutputs"}, "path": {}, "train": train}


def batch():
    return next(TinyLoader(batch=2).batches(0))


def test_supervised_terms_use_any_output():
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
def test_a_network_that_returns_no_image_is_reported(returned, told, monkeypatch):
    monkeypatch.setattr(PairedOutputs, "forward", lambda self, x: returned(x))
    model = SupervisedModel(options(losses=[{"type": "L1Loss"}]))
    for use in (lambda: model.loss("g", batch()), lambda: model.predict(model.networks["g"], batch())):
        with pytest.raises(UserError, match=f"returned {told}; it must return a tensor"):
            use()
