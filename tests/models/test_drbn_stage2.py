"""DRBN's second stage: the discriminator, and one training step of the published code in float64."""

import functools

import pytest
import torch

from llie.archs.discriminators import DRBNDiscriminator
from llie.engine.optimizers import create_optimizer
from llie.errors import UserError
from llie.models.adversarial import AdversarialModel
from llie.options import load_options
from tests.conftest import REAL, REPOSITORY
from tests.golden import fill
from tests.golden.compare import assert_near

WEIGHTS = REAL.parent / "weights"


def filled(shapes, seed, prefix=""):
    return {prefix + key: torch.from_numpy(value) for key, value in fill.fill(shapes, seed).items()}


@pytest.fixture
def discriminator(golden):
    vector, maps = golden("drbn_discriminator"), []
    network = DRBNDiscriminator()
    network.load_state_dict(vector.state_dict())
    network.conv9.register_forward_hook(lambda module, images, logits: maps.append(logits))
    return vector, network, maps


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_discriminator(discriminator, mode):
    """Scores are nearly constant; the maps before them, with the border of the padded 1x1 convolution, are not."""
    vector, network, maps = discriminator
    score = network.train(mode == "train")(vector["input"])
    assert_near(maps[0], vector[f"logit_map_{mode}"])
    assert (maps[0][..., 0, :] == network.conv9.bias).all()
    assert_near(score, vector[f"score_{mode}"])
    if mode == "train":
        for key in ("running_mean", "running_var"):
            assert_near(getattr(network.bn2, key), vector[f"bn2_{key}_after"])


def test_discriminator_size():
    assert sum(p.numel() for p in DRBNDiscriminator().parameters()) == 4_691_329


def test_a_discriminator_without_channels_is_refused():
    with pytest.raises(UserError, match="DRBNDiscriminator: width must be at least 1, not 0"):
        DRBNDiscriminator(width=0)


def test_one_tiny_image_is_too_little_to_learn_from():
    network = DRBNDiscriminator(width=2)
    with pytest.raises(UserError, match="raise gt_size or the batch"):
        network(torch.zeros(1, 3, 16, 16))
    assert network(torch.zeros(1, 3, 16, 17)).shape == network.eval()(torch.zeros(1, 3, 1, 1)).shape == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_discriminator_under_autocast(discriminator, dtype):
    vector, network, _ = discriminator
    with torch.no_grad(), torch.autocast("cpu", dtype):
        score = network.eval()(vector["input"])
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, vector["score_eval"], rtol=0, atol=5e-3)


class Step:
    """One step as an option file says, with the weights, images and soft labels of a golden vector.

    The discriminator's part is done; `enhance` is the generator's, as often as it is called.
    """

    def __init__(self, vector, weights, vgg, variant):
        facts = vector.meta
        options = load_options(REPOSITORY / "options" / "train" / "drbn" / f"stage2_{variant}.yml")
        options["path"]["pretrain_network_g"] = weights
        options["train"]["losses"][0]["weights"] = vgg
        self.vector, self.model = vector, AdversarialModel(options)
        self.g, self.d = self.model.networks["g"], self.model.networks["d"]
        self.d.load_state_dict(filled(facts["discriminator_shapes"], facts["discriminator_seed"]))
        for part in (self.g, self.d, self.model.criteria):
            part.double()
        labels = {True: vector["target_real"], False: vector["target_fake"]}
        drawn = self.model.gan.label
        self.model.gan.label = lambda *of: labels[of[1]] if of[2] else drawn(*of)
        optimizer = create_optimizer(list(self.d.parameters()), options["train"]["optim_d"], "optim_d")
        names = {"lq": "lr", "gt": "hr", "lq_real": "lrr", "hq": "hq"}
        self.batch = {name: vector[theirs].double() for name, theirs in names.items()}

        assert self.model.phases(1) == ("d", "g")
        self.judged, self.values = self.model.loss("d", self.batch)
        self.judged.backward()
        self.gradient = self.d.conv1.weight.grad.clone()
        assert all(p.grad is None for p in self.g.parameters())
        optimizer.step()

    def enhance(self):
        """Loss, terms, and gradients of the first and last convolution."""
        self.g.zero_grad()
        loss, values = self.model.loss("g", self.batch)
        loss.backward()
        convs = (self.g.recompose.UPNet2, self.g.recompose.SFENet1)
        return loss.detach(), values, [conv.weight.grad.clone() for conv in convs]


@pytest.fixture(scope="module", params=["drbn_stage2_step", "drbn_stage2_step_published"])
def step(request, golden, tmp_path_factory):
    """Makes a `Step` of a golden vector, once for each variant: with filled weights, and with the published ones."""
    vector, folder = golden(request.param), tmp_path_factory.mktemp("step")
    if vector.meta["shapes"]:
        files = [folder / "stage1.pt", folder / "recompose.pt"]
        torch.save(vector.state_dict(), files[0])
        torch.save(filled(vector.meta["recompose_shapes"], vector.meta["recompose_seed"]), files[1])
    else:
        files = [WEIGHTS / "drbn_stage1.pt", WEIGHTS / "drbn_stage2_recompose.pt"]
        if not all(file.is_file() for file in files):
            pytest.skip(f"needs DRBN's published weights in {WEIGHTS}")
    vgg = folder / "vgg16.pth"
    torch.save(filled(vector.meta["vgg_features_shapes"], vector.meta["vgg_seed"], "features."), vgg)
    return functools.cache(lambda variant: Step(vector, [str(file) for file in files], str(vgg), variant))


def test_the_step_of_the_discriminator(step):
    ours = step("LOL")
    assert_near(ours.judged.reshape(1), ours.vector["disc_loss"])
    for name in ("real", "fake"):
        assert_near(ours.values[f"score_{name}"], ours.vector[f"score_{name}"].mean())
    assert_near(ours.gradient, ours.vector["disc_grad_conv1"])


@pytest.mark.parametrize("variant", ["LOL", "other"])
def test_the_step_of_the_generator(step, variant):
    ours = step(variant)
    loss, values, gradients = ours.enhance()
    vector, weight = ours.vector, {"LOL": 2, "other": 1}[variant]
    assert list(values) == ["PerceptualLoss", "SSIMLoss", "gan"]
    assert_near(values["PerceptualLoss"].reshape(1), vector["vgg_loss"])
    assert_near(values["SSIMLoss"].reshape(1) - 1, vector["ssim_loss"])  # theirs is the negative similarity
    assert_near(values["gan"].reshape(1), weight * vector["adv_loss"])
    assert_near(loss.reshape(1) - 1, vector[f"full_loss_{variant}"])
    for gradient, layer in zip(gradients, ("UPNet2", "SFENet1"), strict=True):
        assert_near(gradient, vector[f"grad_{layer}_full_{variant}"])
    assert all(p.grad is None for p in ours.g.stage1.parameters())


def test_each_terms_own_gradient(step, monkeypatch):
    """The perceptual term hides the others in the total, so each is looked at without the others."""
    ours = step("other")
    terms = {"vgg": ours.model.losses.terms[0], "ssim": ours.model.losses.terms[1]}
    for chosen in ("vgg", "ssim", "adv"):
        for name, term in terms.items():
            monkeypatch.setattr(term, "weight", float(name == chosen))
        monkeypatch.setattr(ours.model, "gan_weight", float(chosen == "adv"))
        _, _, gradients = ours.enhance()
        for gradient, layer in zip(gradients, ("UPNet2", "SFENet1"), strict=True):
            assert_near(gradient, ours.vector[f"grad_{layer}_{chosen}"], of=f"{chosen} in {layer}")
