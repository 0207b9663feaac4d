import re

import numpy as np
import pytest
import torch

import llie
from llie.archs.drbn import DRBN, RDB, DRBNRecompose
from llie.data.readers import read_image, to_tensor
from llie.engine.schedules import create_schedule
from llie.errors import UserError
from llie.losses import build_losses
from llie.models.base import create_network
from llie.ops.fusion import fuse
from llie.options import load_options
from llie.weights import load_weights
from tests.conftest import REPOSITORY
from tests.golden import fill
from tests.golden.compare import assert_near

OPTIONS = REPOSITORY / "options"
SMALL = {"width": 4, "growth": 2, "recursions": 2}


def small(seed=0):
    torch.manual_seed(seed)
    return DRBNRecompose(**SMALL)


def officially_named(state):
    return {re.sub(r"(convs\.\d)\.", r"\1.conv.0.", key): value for key, value in state.items()}


def recompose_state(vector):
    values = fill.fill(vector.meta["recompose_shapes"], vector.meta["recompose_seed"])
    return {key: torch.from_numpy(value) for key, value in values.items()}


def test_golden_dense_block(golden):
    vector = golden("drbn_rdb")
    block = RDB(16, 8, 4)
    block.load_state_dict(DRBN.card.official_keys(vector.state_dict()))
    assert_near(block(vector["input"]), vector["output"])


def test_gradients_of_a_dense_block_are_those_of_its_definition():
    torch.manual_seed(0)
    block = RDB(6, 3, 4).double()
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    sources = [x, *block.parameters()]
    ours = torch.autograd.grad((block(x) * weight).sum(), sources)
    maps = x
    for conv in block.convs:
        maps = torch.cat([maps, conv(maps).relu()], dim=1)
    defined = torch.autograd.grad(((block.LFF(maps) + x) * weight).sum(), sources)
    for a, b in zip(ours, defined, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("width", "growth", "convs"), [(16, 8, 4), (20, 16, 1), (8, 8, 2), (16, 5, 3), (6, 8, 2)])
@pytest.mark.parametrize("size", [(1, 40, 64), (2, 33, 38), (1, 3, 5)])
def test_the_fused_dense_block_equals_the_plain_one(width, growth, convs, size):
    torch.manual_seed(0)
    block = fuse(RDB(width, growth, convs)).eval()
    batch, *sides = size
    x, other, last = (torch.randn(batch, width, *sides) for _ in range(3))
    kept = x.clone()
    with torch.no_grad():
        expected = block.plain(x) + other + last
        torch.testing.assert_close(block(x, other, None, last), expected, rtol=0, atol=1e-5)
        block.LFF.bias += 1
        torch.testing.assert_close(block(x, other, last), expected + 1, rtol=0, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            for given in (x, x.bfloat16()):
                torch.testing.assert_close(block(given, other), block.plain(given, other), rtol=0.02, atol=0.02)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("case", ["64", "nonsquare"])
def test_golden_stage1(golden, case):
    vector = golden(f"drbn_stage1_{case}")
    network = load_weights(DRBN(), vector.state_dict()).eval()
    taps = {}

    def tap(number):
        def hook(_, __, output):
            for kind, maps in zip(("res", "feat"), output, strict=True):
                taps.update({f"g{number}_{kind}_s{scale}": m for scale, m in zip((1, 2, 4), maps, strict=True)})

        return hook

    for number in range(1, 5):
        network.get_submodule(f"recur{number}").register_forward_hook(tap(number))
    with torch.no_grad():
        assert_near(network(vector["input"]), vector["out_s1"])
        out = network.train()(vector["input"])
    assert_near(out["out"], vector["out_s1"])
    assert_near(out["half"], vector["out_s2"])
    assert_near(out["quarter"], vector["out_s4"])
    for name in [name for name in vector.arrays if name.startswith("g")]:
        assert_near(taps[name], vector[name], of=name)


@pytest.mark.parametrize("case", ["64", "nonsquare"])
def test_golden_stage2(golden, case):
    vector = golden(f"drbn_stage2_{case}")
    network = load_weights(DRBNRecompose(), [vector.state_dict(), recompose_state(vector)]).eval()
    seen = {}
    network.recompose.register_forward_hook(lambda _, inputs, outputs: seen.update(inputs=inputs, weights=outputs[1]))
    with torch.no_grad():
        assert_near(network(vector["input"]), vector["recomposed"])
    for name, tensor in zip(("input", "up4", "up2", "out_s1"), seen["inputs"], strict=True):
        assert_near(tensor, vector[name], of=name)
    for number, weight in enumerate(seen["weights"].chunk(3, dim=1), 1):
        assert_near(weight, vector[f"weight{number}"], of=f"weight{number}")


def test_both_stages_load_apart_or_together(tmp_path):
    trained = small()
    torch.save({"params": trained.state_dict()}, tmp_path / "both.pth")
    torch.save(trained.stage1.state_dict(), tmp_path / "stage1.pth")
    torch.save(officially_named(trained.recompose.state_dict()), tmp_path / "recompose.pt")
    mixed = {**trained.stage1.state_dict(), **officially_named(trained.recompose.state_dict())}
    for source in (tmp_path / "both.pth", [tmp_path / "stage1.pth", tmp_path / "recompose.pt"], mixed):
        loaded = load_weights(small(seed=1), source, need=("stage1", "recompose"))
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trained.parameters(), strict=True))

    loaded = load_weights(small(seed=1), tmp_path / "stage1.pth")
    assert torch.equal(loaded.stage1.recur1.Up1.weight, trained.stage1.recur1.Up1.weight)
    assert torch.equal(loaded.recompose.UPNet.weight, small(seed=1).recompose.UPNet.weight)


def test_training_stage2_needs_stage1(tmp_path):
    torch.save(small().recompose.state_dict(), tmp_path / "recompose.pth")
    torch.save(small().stage1.state_dict(), tmp_path / "stage1.pth")
    options = {"network_g": {"type": "DRBNRecompose", **SMALL}, "path": {}}
    with pytest.raises(UserError, match="needs weights for its part stage1, but no weights are given"):
        create_network(options)
    options["path"]["pretrain_network_g"] = str(tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"pretrain_network_g: .* part stage1, but .* contain only recompose"):
        create_network(options)
    options["path"]["pretrain_network_g"] = str(tmp_path / "stage1.pth")
    network = create_network(options)
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        name for name, _ in network.named_parameters() if name.startswith("stage1.")
    }
    with pytest.raises(UserError, match="needs weights for its part recompose"):
        create_network(options, trained=True)


def test_one_part_does_not_enhance(tmp_path):
    torch.save(officially_named(small().recompose.state_dict()), tmp_path / "recompose.pt")
    with pytest.raises(UserError, match="DRBNRecompose needs weights for its part stage1"):
        llie.load(tmp_path / "recompose.pt")
    torch.save(small().state_dict(), tmp_path / "both.pth")
    image = np.full((9, 10, 3), 40, np.uint8)
    assert llie.load(tmp_path / "both.pth")(image).shape == image.shape


def test_weights_of_another_network_are_recognised(tmp_path):
    torch.save(small().recompose.state_dict(), tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"does not fit DRBN: .* looks like DRBNRecompose\(width=4, growth=2"):
        load_weights(DRBN(**SMALL), tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"does not fit DRBNRecompose: .* looks like DRBN\(.*recursions=3"):
        load_weights(small(), DRBN(4, 2, recursions=3).state_dict())
    with pytest.raises(UserError, match="any registered network"):
        load_weights(DRBN(**SMALL), {"conv1.weight": torch.zeros(64, 6, 3, 3)})


@pytest.mark.parametrize("name", ["width", "growth", "convs", "recursions"])
def test_bad_arguments(name):
    with pytest.raises(UserError, match=f"{name} must be at least 1, not 0"):
        DRBNRecompose(**{name: 0})


@pytest.mark.parametrize("size", [(32, 48), (17, 22)])
def test_coarser_results_belong_to_strided_references(size):
    torch.manual_seed(0)
    batch = {"lq": torch.rand(1, 3, *size) * 0.2, "gt": torch.rand(1, 3, *size)}
    network = DRBN(**SMALL).train()
    losses = build_losses(load_options(OPTIONS / "train" / "drbn" / "LOLv2_real.yml")["train"])
    total, values = losses(network(batch["lq"]), batch)
    assert list(values) == ["full", "half", "quarter"]
    total.backward()
    assert network.recur1.UPNet4[0].weight.grad.abs().max() > 0


def test_golden_stage1_loss(golden):
    vector = golden("drbn_loss_ssim", torch.float64)
    scales = {"out": "s1", "half": "s2", "quarter": "s4"}
    outputs = {name: vector[f"pred_{scale}"].requires_grad_() for name, scale in scales.items()}
    losses = build_losses(load_options(OPTIONS / "train" / "drbn" / "LOLv2_real.yml")["train"]).double()
    total, values = losses(outputs, {"gt": vector["target"]})
    total.backward()
    # Ours is 1 - SSIM, the published one -SSIM: one more for each scale.
    assert_near(total.reshape(1) - 3, vector["loss_total"])
    for value, (name, scale) in zip(values.values(), scales.items(), strict=True):
        assert_near(value.reshape(1) - 1, vector[f"loss_{scale}"])
        assert_near(outputs[name].grad, vector[f"grad_{scale}"])


def test_published_weights_on_photographs(golden, real):
    weights = [real.parent / "weights" / f"drbn_{name}.pt" for name in ("stage1", "stage2_recompose")]
    if not all(path.is_file() for path in weights):
        pytest.skip(f"needs DRBN's published weights, {weights[0]} and {weights[1].name}")
    stage1, stage2 = load_weights(DRBN(), weights[0]).eval(), load_weights(DRBNRecompose(), weights).eval()
    seen = {}
    stage2.recompose.register_forward_hook(lambda _, inputs, outputs: seen.update(inputs=inputs, weights=outputs[1]))
    for name in ("lime_3", "lol_eval_780"):
        vector = golden(f"drbn_real_{name}")
        image = to_tensor(read_image(real / "low" / f"{name}.png"))[None]
        height, width = vector.meta["stage2_input_hw"]
        with torch.inference_mode():
            recomposed = stage2(image[..., :height, :width])
            height, width = vector.meta["stage1_png_input_hw"]
            enhanced = stage1(image[..., :height, :width])
        top, left, size = vector["window_yx_size"].tolist()
        maps = {"up4": seen["inputs"][1], "up2": seen["inputs"][2], "res_s1": seen["inputs"][3]}
        maps |= {f"weight{number}": weight for number, weight in enumerate(seen["weights"].chunk(3, dim=1), 1)}
        for key, whole in (maps | {"recomposed": recomposed}).items():
            assert_near(whole[..., top : top + size, left : left + size], vector[key], of=key)
        assert_near(recomposed.mean((0, 2, 3)), vector["mean_rgb_recomposed"])
        assert_near(enhanced.mean((0, 2, 3)), vector["stage1_full_mean_rgb"])
        for picture, result in (("stage1", enhanced), ("stage2", recomposed)):
            expected = real.parent / "golden" / f"drbn_real_{name}_{picture}.png"
            if expected.is_file():
                levels = (result[0].clamp(0, 1) * 255).round()
                apart = (levels - 255 * to_tensor(read_image(expected))).abs().amax(dim=0).round()
                assert (apart <= 1).float().mean() >= 0.999
                assert (apart == 0).float().mean() >= 0.99


def test_the_recipe_is_the_published_one():
    options = load_options(OPTIONS / "train" / "drbn" / "LOLv2_real.yml")
    data, train = options["datasets"]["train"], options["train"]
    assert (data["gt_size"], data["batch_size_per_gpu"]) == (256, 4)
    assert data["use_hflip"] and data["use_vflip"] and data["use_rot"]
    assert train["optim_g"] == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.999]}
    rate = create_schedule(train["scheduler"], train["total_iter"])
    steps = 862  # of an epoch
    assert train["total_iter"] == 300 * steps
    assert [rate(1e-4, iteration) for iteration in (1, 200 * steps, 200 * steps + 1)] == [1e-4, 1e-4, 5e-5]


@pytest.mark.parametrize("seed", range(5))
def test_training_starts_from_positive_images(seed):
    """From negative ones SSIM would lead to the negative of the reference."""
    torch.manual_seed(seed)
    scales = DRBN().scales(torch.full((1, 3, 16, 16), 0.05))
    assert all(scale.mean((2, 3)).min() > 0 for scale in scales)
