import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llie.archs import create_network
from llie.archs.hdm import HDM, Block, Up
from llie.errors import UserError
from llie.inference import Enhancer, load
from llie.ops import fuse, haze_regions
from llie.ops.fusion import ConvChain
from llie.ops.padding import pad_to_multiple
from llie.weights import identify, load_weights
from tests.golden.compare import assert_near

SMALL = {"width": 8, "blocks": 1, "groups": 1}
ROUNDING = 1e-4  # of the whole network in float32: its offsets come from features of hundreds
GUIDE = ("drconv.", "mix3.", "mix4.")  # what the published "mask" variant holds and never uses


def network_of(vector, **arguments):
    """The network of a golden vector with its weights, which come in the layout of the official checkpoints."""
    network = HDM(vector.meta["width"], vector.meta["blocks"], variant=vector.meta["variant"], **arguments)
    return load_weights(network, {"model": {f"module.{key}": value for key, value in vector.state_dict().items()}})


def taps_of(network):
    """Outputs of the parts by their golden names, filled as the network runs; shared parts run twice."""
    taps = {}
    shared = {"dcn_block.dcn": "dcn", "drconv_phy": "region", "drconv": "guide"}
    for name in ("conv1", "conv2", "FAB", "deconv1", "deconv2", "mix1", "mix2", "mix3", "mix4", *shared):
        part = network.get_submodule(name) if getattr(network, name.split(".")[0]) is not None else None
        if part is None:
            continue

        def hook(module, inputs, out, name=name):
            out = out.relu() if name in ("conv1", "conv2", "FAB") else out
            if name in shared:
                turn = "second" if f"{shared[name]}_first" in taps else "first"
                taps[f"{shared[name]}_{turn}"] = out.detach()
            else:
                taps[name] = out.detach()

        part.register_forward_hook(hook)
    return taps


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", ["tiny", "tiny_guide", "full", "full_48x80", "full_guide"])
def test_golden_network(golden, case, fused):
    vector = golden(f"hdm_{case}")
    network = network_of(vector, gamma=0.25 if case == "full_48x80" else None).eval()
    taps = taps_of(network)
    if fused:
        fuse(network)
    with torch.no_grad():
        out = network(vector["input"], vector["regions"])
        assert torch.equal(network(vector["input"]), out)  # it finds the same regions by itself
    assert_near(out, vector["output"], ROUNDING)
    expected = {key.removeprefix("tap_"): value for key, value in vector.arrays.items() if key.startswith("tap_")}
    for name, value in expected.items():
        assert_near(taps[name], value, ROUNDING, of=name)


@pytest.mark.parametrize("case", ["tiny", "tiny_guide"])
def test_golden_gradients(golden, case):
    vector = golden(f"hdm_{case}", torch.float64)
    network = network_of(vector).double().train()
    x = vector["input"].requires_grad_()
    (network(x, vector["regions"]) * vector["probe"]).sum().backward()
    gradients = {"input": x.grad} | {name: p.grad for name, p in network.named_parameters()}
    for key, expected in vector.arrays.items():
        if key.startswith("grad_"):
            assert_near(gradients[key.removeprefix("grad_")], expected, of=key)
    unused = {key for key in vector.state_dict() if key not in gradients}
    assert unused == set(vector.meta["params_without_grad"])


def test_golden_blocks(golden):
    vector = golden("hdm_blocks")

    def load_part(module, name):
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in vector.state_dict().items() if k.startswith(prefix)}
        module.load_state_dict(state)
        return module.eval()

    def chain(*shapes):
        return ConvChain(*(nn.Conv2d(i, o, k, s, k // 2) for i, o, k, s in shapes))

    with torch.no_grad():
        block = load_part(Block(16), "block")
        assert_near(block(vector["block_input"]), vector["block_output"])
        for part in (
            Up(16),
            chain((16, 16, 3, 1), (16, 16, 3, 2)),
            chain((16, 16, 5, 1), (16, 16, 5, 1), (16, 3, 5, 1)),
        ):
            name = {1: "up", 2: "down", 3: "tail"}[len(part)]
            load_part(part, name)
            expected = vector["tail_before_tanh" if name == "tail" else f"{name}_output"]
            for form in (part, fuse(part)):
                out = form(vector[f"{name}_input"])
                out = out.relu() if name == "down" else out
                assert_near(out, expected, of=name)


def test_parameters_and_multiplications():
    assert sum(p.numel() for p in create_network("hdm_guide").parameters()) == 2946684
    network = create_network("HDM").eval().double()  # which all convolutions take directly
    assert sum(p.numel() for p in network.parameters()) == 2819292
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.rand(1, 3, 128, 128).double(), torch.zeros(1, 32, 32, dtype=torch.long))
    # 29.8 G at 256x256, of which the region convolutions' products for other regions, 1.51 - 0.30 G, are not computed.
    assert counter.get_total_flops() / 2 == pytest.approx((29.8e9 - 1.21e9) / 4, rel=5e-3)


def official(vector, **extra):
    return {"model": {f"module.{key}": value for key, value in vector.state_dict().items()}, **extra}


def test_a_published_checkpoint_loads_by_its_name_alone(golden, tmp_path):
    vector = golden("hdm_tiny")
    extra = {"step": 5000, "max_psnr": np.float64(30.5), "losses": [0.1, 0.2], "psnrs": [np.float32(20.0)], "ssims": []}
    torch.save(official(vector, **extra), tmp_path / "hdm_haze_sots.pk")
    enhance = load(tmp_path / "hdm_haze_sots.pk", device="cpu")
    assert enhance.network.drconv is None
    out = enhance(vector["input"])
    assert_near(out, vector["output"].clamp(0, 1), ROUNDING)


def test_the_second_variant_is_asked_for_by_name(golden, tmp_path):
    vector = golden("hdm_full_guide")
    torch.save(official(vector), tmp_path / "hdm.pth")
    enhance = load(tmp_path / "hdm.pth", device="cpu", network="hdm_guide")
    assert_near(enhance(vector["input"]), vector["output"].clamp(0, 1), ROUNDING)


@pytest.mark.parametrize(
    ("name", "normalise", "gamma"), [(None, False, None), ("hdm_haze", True, None), ("hdm-lowlight", False, 0.25)]
)
def test_the_task_is_asked_for_by_name(golden, tmp_path, name, normalise, gamma):
    vector = golden("hdm_full")
    torch.save(official(vector), tmp_path / "hdm.pth")
    network = load(tmp_path / "hdm.pth", device="cpu", network=name).network
    assert (network.normalise, network.gamma) == (normalise, gamma)
    assert torch.equal(network.conv0[0].weight, vector.state_dict()["conv0.0.weight"])


def test_weights_lose_exactly_the_guide_in_the_variant_without(golden):
    state = golden("hdm_tiny").state_dict()
    assert set(state) - set(HDM.card.official_keys(state)) == {key for key in state if key.startswith(GUIDE)}
    state["surplus"] = torch.zeros(1)
    with pytest.raises(UserError, match="surplus"):
        load_weights(HDM(16, 2), state)
    state.pop("surplus"), state.pop("drconv.conv_guide.weight")
    with pytest.raises(UserError, match=r"missing: drconv\."):
        load_weights(HDM(16, 2, variant="mask+guide"), state)


def test_detect_reads_every_argument():
    arguments = {"width": 16, "groups": 2, "blocks": 1, "regions": 3, "variant": "mask"}
    assert identify(HDM(**arguments).state_dict()) == ("HDM", arguments)
    guided = {**arguments, "variant": "mask+guide"}
    assert HDM.card.detect(HDM(**guided).state_dict()) == guided


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 22), (45, 38)])
@pytest.mark.parametrize("variant", ["mask", "mask+guide"])
def test_fused_equals_plain_at_any_size(size, variant):
    torch.manual_seed(0)
    network = HDM(**SMALL, variant=variant).eval()
    nn.init.normal_(network.dcn_block["dcn"].conv_offset_mask.weight, std=0.1)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(fuse(network.train()).train()(x), expected)
        torch.testing.assert_close(network.eval()(x), expected, atol=1e-5, rtol=0)


def test_what_the_enhancer_runs_is_fused():
    torch.manual_seed(0)
    network = HDM(**SMALL)
    before = copy.deepcopy(network.state_dict())
    image = torch.rand(3, 50, 41)
    calls = []
    plain = network.output.plain
    network.output.plain = lambda x: (calls.append(x.shape), plain(x))[1]
    enhance = Enhancer(network, device="cpu")
    out = enhance(image)
    assert calls == []
    with torch.no_grad():
        torch.testing.assert_close(out, network.train()(image[None])[0].clamp(0, 1), atol=1e-5, rtol=0)
    assert len(calls) == 1
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_its_own_regions_are_never_looked_at(monkeypatch):
    """A check would wait for a GPU."""
    network, looked = HDM(**SMALL), []
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: looked.append(1) or tensor.item() != 0)
    network(torch.rand(1, 3, 12, 16))
    assert not looked
    network(torch.rand(1, 3, 12, 16), torch.zeros(1, 3, 4, dtype=torch.long))
    assert len(looked) == 1


def test_regions_may_be_given_in_every_form():
    torch.manual_seed(0)
    network, x = HDM(**SMALL).eval(), torch.rand(2, 3, 14, 18)
    regions = haze_regions(pad_to_multiple(x, 4))
    mask = F.one_hot(regions, 5).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = network(x)
        for form in (regions, regions.byte(), mask, mask[:, :, None]):
            torch.testing.assert_close(network(x, form), expected)
        assert not torch.allclose(network(x, (regions + 1) % 5), expected)
        soft = network(x, (mask + 0.2) / 2)
    assert soft.isfinite().all() and not torch.allclose(soft, expected)


def test_one_pixel_may_have_its_region():
    network = HDM(**SMALL).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 1, 1), torch.ones(1, 1, 1, dtype=torch.long)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (torch.zeros(1, 4, 3, dtype=torch.long), r"\(1, 4, 4\)"),
        (torch.zeros(1, 4, 4, 1), "5 regions"),
        (torch.ones(1, 4, 4, 4) / 4, "5 regions"),
        (torch.zeros(1, 5, 1, 4, 4), "must sum to one"),
        (torch.full((1, 4, 4), 5), "0 .. 4"),
    ],
)
def test_regions_that_do_not_fit(regions, message):
    with pytest.raises(UserError, match=message):
        HDM(**SMALL)(torch.rand(1, 3, 14, 16), regions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "guide"}, "'mask' or 'mask.guide'"),
        ({"width": 20}, "multiple of 8"),
        ({"regions": 0}, "at least 1"),
        ({"gamma": 2.0}, "gamma"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        HDM(**{**SMALL, **arguments})


def test_options_reach_the_computation():
    torch.manual_seed(0)
    plain = HDM(**SMALL).eval()
    x = torch.rand(1, 3, 40, 40) * 0.3
    with torch.no_grad():
        expected = plain(x)
        for arguments in ({"normalise": True}, {"gamma": 0.25}, {"fab_passes": 2}):
            other = HDM(**SMALL, **arguments).eval()
            other.load_state_dict(plain.state_dict())
            assert not torch.allclose(other(x), expected, atol=1e-6)
            # Regions are those of the image, not of what the convolutions see.
            regions = haze_regions(x, gamma=arguments.get("gamma"))
            assert torch.equal(other(x, regions), other(x))


def test_float64_and_initial_values():
    torch.manual_seed(0)
    network = HDM(**SMALL, variant="mask+guide").double().eval()
    gates = [getattr(network, f"mix{i}").w.item() for i in (1, 2, 3, 4)]
    assert gates == pytest.approx([-1, -0.6, -0.5, -0.5])
    assert not network.dcn_block["dcn"].conv_offset_mask.weight.any()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    out = network(x)
    assert out.dtype == torch.float64 and out.abs().max() < 1


def test_learns():
    torch.manual_seed(0)
    network = HDM(**SMALL, gamma=0.25)
    target = torch.rand(1, 3, 32, 32) * 0.8
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = (network(target * 0.2) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
