import runpy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llie.archs import create_network, snr_aware
from llie.archs.snr_aware import EncoderLayer, SNRAware, cut, paste
from llie.data.readers import read_image, to_tensor
from llie.engine.schedules import create_schedule
from llie.errors import UserError
from llie.models.supervised import SupervisedModel
from llie.ops.fusion import fuse
from llie.ops.snr import snr_map
from llie.options import load_options
from tests.conftest import REPOSITORY
from tests.golden.compare import assert_near
from tests.golden.fill import low_light_input

LiteralSNRAware = runpy.run_path(str(REPOSITORY / "benchmarks" / "literal_snr_aware.py"))["LiteralSNRAware"]
SMALL = {"nf": 16, "layers": 2}


def build(**arguments):
    torch.manual_seed(0)
    return SNRAware(**{**SMALL, **arguments}).eval()


def photo(height, width, batch=1, dtype=torch.float32):
    return torch.from_numpy(low_light_input(height, width, seed=7, batch=batch)).to(dtype)


def some_valid(height, width):
    """A map above 0.5 in the left third alone, and smooth, so that the blend has a gradient everywhere."""
    return torch.linspace(0.95, 0.05, width, dtype=torch.float64).pow(1.5).expand(1, 1, height, width)


def load(golden, case):
    vector = golden(f"snr_{case}")
    given = vector.meta["constructor"]
    network = create_network(
        "SNRAware",
        front_blocks=given["front_RBs"],
        back_blocks=given["back_RBs"],
        layers=vector.meta.get("encoder_layers", 6),
    ).eval()
    network.load_state_dict(vector.state_dict())
    return vector, network


@pytest.mark.parametrize(
    "case", ["depth1_64x64", "full_64x64", "full_mixedmask_64x48_b2", "full_60x52", "rb5_10_32x48"]
)
@pytest.mark.parametrize("fused", [False, True])
def test_golden_network(golden, case, fused):
    vector, network = load(golden, case)
    if fused:
        fuse(network)
    assert sum(p.numel() for p in network.parameters()) == vector.meta["params"]
    taps = {}
    network.recon_trunk_light.register_forward_hook(lambda _, __, out: taps.update(fea_light=out))
    network.recon_trunk.register_forward_hook(
        lambda _, given, out: taps.update(fea_fused=given[0], recon_trunk_out=out)
    )
    network.transformer.register_forward_hook(
        lambda _, given, out: taps.update(tokens_in=given[0], valid=given[1], tokens_out=out)
    )
    with torch.no_grad():
        assert_near(network(vector["x"], snr=vector["mask"]), vector["output"])
        taps["fea_in"], context = network.encode(vector["x"], vector["mask"])
        taps["L1_fea_3"] = context.quarter
        if vector.meta["mask_kind"] == "snr":
            assert_near(network(vector["x"]), vector["output"])
    assert torch.equal(taps.pop("valid"), vector["token_mask"][:, 0] > 0)
    for name, tap in taps.items():
        assert_near(tap, vector[name], of=name)


@pytest.mark.parametrize(("key", "size"), [("lol_400x608", (400, 608)), ("syn_384x384", (384, 384))])
def test_golden_protocol_resizes_image_and_native_map(golden, key, size):
    vector, network = load(golden, "protocol")
    with torch.no_grad():
        out = network(vector["x"], size=size)
    assert_near(out, vector[key])


def test_golden_encoder_layer(golden):
    """Closely: the norms' epsilon changes a layer by 1e-5."""
    vector = golden("snr_encoder_layer")
    layer = EncoderLayer(1024).eval()
    layer.load_state_dict(vector.state_dict())
    x, valid = vector["input"], vector["mask"][:, 0] != 0
    assert valid.any(1).tolist() == [True, False]
    with torch.no_grad():
        attended = layer.slf_attn(x, valid, uniform=False)
        assert_near(attended, vector["after_attention"], 5e-6)
        assert_near(layer(x, valid), vector["output"], 5e-6)
        everything = torch.ones_like(valid)
        assert_near(layer(x, everything), vector["output_without_mask"], 5e-6)
        alone = layer.slf_attn(x[1:], valid[1:], uniform=True)
        assert_near(alone, vector["after_attention"][1:], 5e-6)


@pytest.mark.parametrize("maps", ["natural", "some valid", "mixed batch", "all valid", "strip"])
def test_output_and_gradients_are_those_of_the_definition(maps):
    height, width = (28, 36) if maps == "strip" else (32, 48)
    x = photo(height, width, 2, torch.float64)
    snr = {
        "natural": snr_map(x),
        "some valid": some_valid(height, width).expand(2, -1, -1, -1),
        "mixed batch": torch.cat([some_valid(height, width), snr_map(x[1:])]),
        "all valid": torch.full((2, 1, height, width), 0.8, dtype=torch.float64),
        "strip": some_valid(height, width).expand(2, -1, -1, -1),
    }[maps]
    ours = build().double()
    literal = LiteralSNRAware(**SMALL).double()
    literal.load_state_dict(ours.state_dict())
    results = []
    for network in (ours, literal):
        image = x.clone().requires_grad_()
        out = network(image, snr)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        results.append({"out": out.detach(), "x": image.grad} | {n: p.grad for n, p in network.named_parameters()})
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-9, atol=1e-11, msg=name)


def test_without_a_valid_token_queries_and_keys_get_a_zero_gradient():
    network = build().train()
    network(photo(32, 32)).sum().backward()
    for layer in network.transformer.layer_stack:
        assert not layer.slf_attn.w_qs.weight.grad.any()
        assert not layer.slf_attn.w_ks.weight.grad.any()
        assert layer.slf_attn.w_vs.weight.grad.any()


def test_the_single_token_stands_for_all(monkeypatch):
    network, x = build(), photo(32, 48, 2)
    calls = []
    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a: calls.append(a[1].shape[2]) or original(*a))
    with torch.no_grad():
        short = network(x)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        full = network(x)
    assert calls == [1, 1, 6, 6]
    torch.testing.assert_close(short, full, rtol=0, atol=1e-6)


def test_queries_in_parts_change_nothing(monkeypatch):
    network, x = build(), photo(32, 48)
    with torch.no_grad():
        whole = network(x, some_valid(32, 48).float())
        monkeypatch.setattr(snr_aware, "QUERIES", 4)
        torch.testing.assert_close(network(x, some_valid(32, 48).float()), whole, rtol=0, atol=1e-6)


def test_no_value_is_read_while_computing():
    """On the meta device there are none: any synchronisation with a GPU would fail here, too."""
    with torch.device("meta"):
        out = create_network("SNRAware")(torch.empty(2, 3, 63, 50))
    assert out.shape == (2, 3, 63, 50)


def test_multiplications():
    with torch.device("meta"):
        network, counter = create_network("SNRAware").eval(), FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            network(torch.empty(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 == pytest.approx(24.37e9, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("masked", ["all", "some", "one of two"])
def test_attention_in_half_precision(dtype, masked):
    torch.manual_seed(0)
    layer = EncoderLayer(256).eval()
    x = torch.randn(2, 30, 256)
    valid = torch.zeros(2, 30, dtype=torch.bool)
    valid[: {"all": 0, "some": 2, "one of two": 1}[masked], 3:9] = True
    with torch.no_grad():
        expected = layer(x, valid)
        found = layer.to(dtype)(x.to(dtype), valid)
    assert (found.float() - expected).abs().max() < 0.05


def test_reflected_edges_complete_the_patches():
    zeros, reflect = build(), build(edges="reflect")
    with torch.no_grad():
        assert torch.equal(zeros(photo(32, 48)), reflect(photo(32, 48)))
        x = photo(40, 48)  # 10x12 at a quarter of the size: the last two rows fill no patch
        feature, context = zeros.encode(x)
        without, completed = (network._long_range(feature, context.snr) for network in (zeros, reflect))
    assert not without[..., 8:, :].any() and without[..., :8, :].any()
    assert completed[..., 8:, :].any() and completed.shape == without.shape


def test_patches_are_those_of_pixel_unshuffle():
    x = torch.rand(2, 3, 8, 12)
    expected = F.pixel_unshuffle(x, 4).flatten(2).transpose(1, 2)
    assert torch.equal(cut(x), expected)
    assert torch.equal(paste(cut(x), 12), x)


def test_decode_of_encode_is_the_network():
    network, x = build(), photo(32, 48)
    with torch.no_grad():
        assert torch.equal(network.decode(*network.encode(x)), network(x))


def test_the_mask_is_empty_on_photographs(real):
    for path in sorted(real.glob("lolv1_eval15/low/*.png"))[:5]:
        image = to_tensor(read_image(path))[None]
        tokens = F.avg_pool2d(snr_map(image)[..., ::4, ::4], 4)
        assert tokens.max() < 0.5, path
        assert F.avg_pool2d(snr_map(image, quantile=0.5)[..., ::4, ::4], 4).max() > 0.5, path


def test_learns():
    network = build(layers=1).train()
    x = photo(16, 16)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        loss = (network(x) - 3 * x).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_detect_reads_the_arguments_and_rejects_other_networks():
    arguments = {"nf": 16, "front_blocks": 2, "back_blocks": 3, "layers": 1}
    state = SNRAware(**arguments).state_dict()
    assert SNRAware.card.detect(state) == arguments
    assert SNRAware.card.detect({**state, "common_feature": torch.zeros(16, 64)}) is None
    assert SNRAware.card.detect({"conv_first_1.weight": torch.ones(1)}) is None


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'zeros' or 'reflect'"):
        SNRAware(edges="mirror")
    with pytest.raises(UserError, match=r"nf must be at least 1.* not 0, 1, 1 and 6"):
        SNRAware(nf=0)
    with pytest.raises(UserError, match="layers at least 0; not 8, 1, 1 and -1"):
        SNRAware(nf=8, layers=-1)
    with pytest.raises(UserError, match="snr_quantile"):
        SNRAware(snr_quantile=0)
    with pytest.raises(UserError, match="height and a width"):
        build()(photo(16, 20), size=[400])
    with pytest.raises(UserError, match="height and a width"):
        build()(photo(16, 20), size=400.0)
    with pytest.raises(UserError, match="not 0"):
        build()(photo(16, 20), snr=0.5)
    with pytest.raises(UserError, match=r"\(1, 1, 16, 20\).*\(1, 3, 16, 20\)"):
        build()(photo(16, 20), snr=torch.ones(1, 3, 16, 20))


@pytest.mark.parametrize(
    ("name", "vgg", "side", "batch", "rate", "size"),
    [
        ("LOLv1", 0, 128, 32, 4e-4, [400, 608]),
        ("LOLv2_real", 0.1, None, 4, 4e-4, [400, 608]),
        ("LOLv2_syn", 0.02, 128, 32, 4e-4, [384, 384]),
        ("SID", 0.1, None, 2, 1e-4, None),
        ("SMID", 0, 256, 12, 4e-4, None),
        ("SDSD_indoor", 0, 256, 12, 4e-4, None),
        ("SDSD_outdoor", 0, 128, 4, 1e-4, None),
    ],
)
def test_published_recipes(name, vgg, side, batch, rate, size):
    options = load_options(REPOSITORY / "options" / "train" / "snr_aware" / f"{name}.yml")
    train, data = options["train"], options["datasets"]
    is_lol = name.startswith("LOL")
    assert train["losses"].get("perceptual", {"weight": 0})["weight"] == vgg
    assert (data["train"].get("gt_size"), data["train"]["batch_size_per_gpu"]) == (side, batch)
    assert (data["train"].get("train_size") == [608, 400]) == (name == "LOLv2_real")
    assert train["optim_g"] == {"type": "Adam", "lr": rate, "betas": [0.9, 0.99], "fused": True}
    assert train["total_iter"] == (600_000 if is_lol else 200_000)
    schedule = create_schedule(train["scheduler"], train["total_iter"])
    if is_lol:
        assert schedule(rate, 200_000) == rate / 8
    else:
        assert schedule(rate, 100_000) == pytest.approx((rate + 1e-7) / 2)

    sizes = {"SMID": None, "SID": [960, 512], "SDSD_indoor": [960, 512], "SDSD_outdoor": [960, 512]}
    tested = load_options(REPOSITORY / "options" / "test" / "snr_aware" / f"{name}.yml", phase="test")
    for val, section in ((options["val"], data["val"]), (tested["val"], tested["datasets"]["test"])):
        assert val["controls"] == ({"size": size} if size else {})
        assert val["average"] == ("image" if is_lol else "folder")
        assert section.get("frames_per_scene") == (30 if name[:2] in ("SM", "SD") else None)
        assert section.get("train_size", "stored") == sizes.get(name, "stored")


def test_a_model_evaluates_under_the_protocol_of_its_options():
    options = load_options(
        REPOSITORY / "options" / "train" / "snr_aware" / "LOLv1.yml",
        ["network_g.nf=16", "network_g.layers=1", "val.controls.size=[32,48]"],
    )
    model, x = SupervisedModel(options), photo(25, 37)
    network = model.networks["g"].eval()
    with torch.no_grad():
        assert torch.equal(model.predict(network, {"lq": x}), network(x, size=(32, 48)))
        assert not torch.equal(model.predict(network, {"lq": x}), network(x))


def test_decoding_twice_shares_the_part_of_the_stem():
    network, x = build().double(), photo(32, 48, batch=2).double()  # which all convolutions take directly

    def decode(twice):
        feature, context = network.encode(x, twice=twice)
        with FlopCounterMode(display=False) as counter:
            return network.decode(feature, context), counter.get_total_flops()

    with torch.no_grad():
        (plain, all_of_it), (shared, less) = decode(False), decode(True)
    torch.testing.assert_close(shared, plain, atol=1e-6, rtol=1e-5)
    assert less < 0.8 * all_of_it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_decoder_equals_the_plain_one(dtype):
    torch.manual_seed(0)
    network = create_network("SNRAware", nf=16, layers=1).eval()
    x = photo(64, 72, batch=2)
    close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.05}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = network(x)
        result = fuse(network)(x)
        assert torch.equal(network.train()(x), expected)
    torch.testing.assert_close(result, expected, **close)
