import pytest
import torch

from llie.archs import create_network
from llie.archs.hvi import HVISMM, HVISSM, HVICIDNet
from llie.archs.hvi_blocks import conv3x3, convolve_replicated
from llie.errors import UserError
from llie.ops import lighten, resizing_kernel
from tests.golden.compare import assert_near

TINY = {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}

# Golden vector -> network, and what its constructor takes beside what the vector's facts say.
NETWORKS = {
    "cidnet_tiny": ("HVICIDNet", {}),
    "cidnet_full": ("HVICIDNet", {}),
    "cidnet_full_nonsquare": ("HVICIDNet", {}),
    "cidnet_tiny_norm": ("HVICIDNet", {}),
    "cidnet_fix_tiny_norm": ("HVICIDNet", {"wiring": "fixed"}),
    "cidnet_fix_full": ("HVICIDNet", {"wiring": "fixed"}),
    "hvi_smm_tiny": ("HVISMM", {}),
    "hvi_smm_full": ("HVISMM", {}),
    "hvi_smm_full_nonsquare": ("HVISMM", {}),
    "hvi_smm_ssm2025_tiny": ("HVISSM", {}),
}


def build(vector, name, arguments):
    network = create_network(name, **vector.meta["constructor"], **arguments)
    network.load_state_dict(network.card.official_keys(vector.state_dict()))
    return network.eval()


@pytest.fixture(params=["C", "PyTorch"])
def form(request, monkeypatch):
    """Of attention and resizing, in inference."""
    if request.param == "PyTorch":
        for kernel in (lighten, resizing_kernel):
            monkeypatch.setattr(kernel, "works", lambda x: False)
    elif not lighten.works(torch.zeros(1)):
        pytest.skip("needs a C compiler: install gcc or clang")


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (40, 24)])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 1), (36, 2), (36, 4), (72, 36)])
def test_convolutions_padded_by_replication(size, inputs, outputs):
    torch.manual_seed(0)
    conv, x = conv3x3(inputs, outputs, "replicate"), torch.randn(2, inputs, *size)
    expected = conv(x).detach()
    torch.testing.assert_close(convolve_replicated(conv, x), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(convolve_replicated(conv, x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_golden(golden, name, form):
    vector = golden(name)
    network = build(vector, *NETWORKS[name])
    assert sum(p.numel() for p in network.parameters()) == vector.meta["param_count"]
    taps = {}
    for level in (1, 2, 4):
        lca = getattr(network.trunk, f"lca{level}")
        for branch in ("i", "hv"):
            getattr(lca, branch).register_forward_hook(
                lambda _, __, out, key=f"{branch}_lca{level}": taps.update({key: out})
            )
    network.trunk.i_stem.register_forward_hook(lambda _, __, out: taps.update(ie_block0_first4=out[:, :4]))
    with torch.no_grad():
        output = network(vector["input"])
        features = network.forward_features(vector["input"])
    taps["output_hvi"] = features if isinstance(features, torch.Tensor) else features[0]
    if "scale_factor" in vector:
        taps["scale_factor"] = features[1]
    assert_near(output, vector["output"])
    assert len(taps) >= 8
    for key, value in taps.items():
        assert_near(value, vector[key], of=key)


@pytest.mark.parametrize(
    ("name", "key", "controls"),
    [
        ("cidnet_tiny", "output_saturation_1.3", {"alpha_s": 1.3}),
        ("cidnet_full", "output_rgb_0.84", {"alpha_rgb": 0.84}),
        ("hvi_smm_tiny", "output_alpha_1.3_1_1", {"alpha_s": 1.3}),
        ("hvi_smm_tiny", "output_alpha_1_1_0.8", {"alpha_rgb": 0.8}),
        ("hvi_smm_full", "output_alpha_0.7_1.2_0.9", {"alpha_s": 0.7, "alpha_i": 1.2, "alpha_rgb": 0.9}),
    ],
)
def test_golden_controls(golden, name, key, controls):
    vector = golden(name)
    network = build(vector, *NETWORKS[name])
    with torch.no_grad():
        assert_near(network(vector["input"], **controls), vector[key])


def test_training_returns_named_outputs_that_equal_the_official_ones(golden):
    vector = golden("hvi_smm_tiny")
    network = build(vector, "HVISMM", {}).train()
    outputs = network(vector["input"])
    assert outputs["k"] is network.density_k
    for name, key in {"out": "output", "base": "output_base", "hvi": "output_hvi"}.items():
        assert_near(outputs[name], vector[key], of=name)
    assert set(HVICIDNet(**TINY).train()(vector["input"])) == {"out", "hvi", "k"}


@pytest.mark.parametrize("in_inverse", [True, False])
def test_exponent_learns_through_the_inverse_only_if_asked(in_inverse):
    network = HVISMM(**TINY, k_grad_in_inverse=in_inverse)
    hvi = torch.rand(1, 3, 8, 8)
    rgb = network.to_rgb(hvi.requires_grad_())
    (gradient,) = torch.autograd.grad(rgb.sum(), network.density_k, allow_unused=True)
    assert (gradient is not None) == in_inverse


def test_controls_may_be_maps_of_any_size():
    network = HVISMM(**TINY).eval()
    x = torch.rand(1, 3, 13, 9)
    with torch.no_grad():
        by_map = network(x, alpha_s=torch.full((1, 13, 9), 1.2))
        torch.testing.assert_close(by_map, network(x, alpha_s=1.2))


@pytest.mark.parametrize("name", ["cidnet_tiny_norm", "hvi_smm_full_nonsquare", "hvi_smm_ssm2025_tiny"])
def test_card_reads_the_architecture_off_a_checkpoint(golden, name):
    vector = golden(name)
    classes = (HVICIDNet, HVISMM, HVISSM)
    expected = NETWORKS[name][0]
    found = {cls.__name__: cls.card.detect(cls.card.official_keys(vector.state_dict())) for cls in classes}
    assert [cls for cls, arguments in found.items() if arguments is not None] == [expected]
    constructor = {"norm": False, **vector.meta["constructor"]}
    assert found[expected] == {key: constructor[key] for key in ("channels", "heads", "norm")}


def test_official_keys_leave_ours_alone():
    state = HVISMM(**TINY, norm=True).state_dict()
    assert list(HVISMM.card.official_keys(state)) == list(state)


def test_official_wiring_has_no_trainable_parameter_without_gradient():
    network = HVICIDNet(**TINY).train()
    network(torch.rand(1, 3, 16, 16))["out"].sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == [
        name for name, _ in network.named_parameters() if name.startswith("trunk.lca5.i.")
    ]
    assert all(p.requires_grad == (p.grad is not None) for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": [8, 8, 16]}, "4 channels"),
        ({"heads": [1, 5, 4, 8]}, "36 channels cannot be split into 5 heads"),
        ({"wiring": "offical"}, "'official' or 'fixed'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        create_network("HVICIDNet", **arguments)
