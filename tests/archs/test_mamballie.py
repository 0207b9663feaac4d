import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llie.archs import create_network
from llie.archs.mamballie import GLSSB, IRSK, LESSM, MambaLLIE
from llie.engine.schedules import create_schedule
from llie.errors import UserError
from llie.ops.selective_scan import backends
from llie.options import load_options
from tests.conftest import REPOSITORY
from tests.golden.compare import assert_near

BACKENDS = backends.available("cpu")
SMALL = {"nf": 16, "depths": (1, 1, 1, 1, 1, 1), "d_state": 8}


def state_of(vector):
    """The state dict of a golden vector, with its scan set to remember hundreds of positions where it says so."""
    state = vector.state_dict()
    if "override" not in vector.meta:
        return state
    for name, value in state.items():
        if name.endswith("A_logs"):
            rates = (torch.arange(value.shape[1], dtype=torch.float64) + 1) / 8
            state[name] = rates.log().float().expand(value.shape).clone()
        elif name.endswith("Ds"):
            state[name] = torch.ones_like(value)
        elif name.endswith("dt_projs_bias"):
            fraction = (torch.arange(value.shape[1], dtype=torch.float64) + 0.5) / value.shape[1]
            step = torch.exp(math.log(0.01) + fraction * (math.log(0.5) - math.log(0.01)))
            state[name] = (step + torch.log(-torch.expm1(-step))).float().expand(value.shape).clone()
        elif name.endswith("x_proj_weight"):
            state[name] = value * 4
    return state


CASES = ("tiny", "tiny_batch", "full", "full_longmem", "default_nonsquare")


@pytest.mark.parametrize(
    ("case", "backend"),
    # One network is enough for numba: the operator has its own tests.
    [(case, backend) for case in CASES for backend in BACKENDS if backend != "numba" or case == "tiny_batch"],
)
def test_golden_network(golden, case, backend):
    vector = golden(f"mamballie_{case}")
    network = MambaLLIE(**vector.meta["constructor"], scan_backend=backend).eval()
    assert sum(p.numel() for p in network.parameters()) == vector.meta["param_count"]
    network.load_state_dict(state_of(vector))
    stages = {
        "enc1": "VSSB_1",
        "enc2": "VSSB_2",
        "enc3": "VSSB_3",
        "bottleneck": "VSSB_4",
        "dec2": "VSSB_5",
        "dec1": "VSSB_6",
    }
    taps = {}
    for name, stage in stages.items():
        getattr(network, stage)[-1].register_forward_hook(lambda _, __, out, name=name: taps.update({name: out}))
    with torch.no_grad():
        assert_near(network(vector["input"]), vector["output"])
    for key, expected in vector.arrays.items():
        name = key.split("_first")[0]
        if name in taps:
            assert_near(taps[name][:, : expected.shape[1]], expected, of=key)


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_lessm(golden, backend):
    vector = golden("mamballie_lessm")
    module = LESSM(32, 16, 2, scan_backend=backend).eval()
    module.load_state_dict(state_of(vector))
    x, prior = vector["in_x"].requires_grad_(), vector["in_illum"].requires_grad_()
    out = module(x.permute(0, 3, 1, 2), prior).permute(0, 2, 3, 1)
    check_gradients(vector, module, {"out": out}, {"x": x, "illum": prior})


def test_golden_irsk(golden):
    vector = golden("mamballie_irsk")
    module = IRSK(32, 2).eval()
    module.load_state_dict(state_of(vector))
    x, prior = vector["in_x"].requires_grad_(), vector["in_illum"].requires_grad_()
    check_gradients(vector, module, {"out": module(x, prior)}, {"x": x, "illum": prior})


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_glssb(golden, backend):
    vector = golden("mamballie_glssb")
    module = GLSSB(32, 16, 2, scan_backend=backend).eval()
    module.load_state_dict(state_of(vector))
    x, prior = vector["in_x"].requires_grad_(), vector["in_illum"].requires_grad_()
    out_prior = module.update(prior)
    out = module(x, out_prior)
    check_gradients(vector, module, {"x": out, "illum": out_prior}, {"x": x, "illum": prior})


def check_gradients(vector, module, outputs, inputs):
    for name, out in outputs.items():
        assert_near(out, vector[f"out_{name}"], of=name)
    sum((out * vector[f"weight_{name}"]).sum() for name, out in outputs.items()).backward()
    for name, tensor in inputs.items():
        assert_near(tensor.grad, vector[f"grad_in_{name}"], of=name)
    parameters = dict(module.named_parameters())
    for key, expected in vector.arrays.items():
        if key.startswith("grad_param_"):
            assert_near(parameters[key.removeprefix("grad_param_")].grad, expected, of=key)


@pytest.mark.parametrize(("preset", "count"), [("mamballie", 2285529), ("mamballie_48", 4389479)])
def test_presets_are_the_published_networks(preset, count):
    with torch.device("meta"):
        network = create_network(preset)
    assert sum(p.numel() for p in network.parameters()) == count
    arguments = MambaLLIE.card.detect(network.state_dict())
    assert {key: arguments[key] for key in ("nf", "depths")} == {
        "nf": MambaLLIE.card.presets[preset]["nf"],
        "depths": list(MambaLLIE.card.presets[preset]["depths"]),
    }


def test_detect_reads_every_argument_and_rejects_other_networks():
    arguments = {"nf": 16, "depths": [1, 2, 1, 1, 1, 2], "d_state": 5, "mlp_ratio": 3.0}
    assert MambaLLIE.card.detect(MambaLLIE(**arguments).state_dict()) == arguments
    assert MambaLLIE.card.detect({"conv_first_1.weight": torch.ones(1)}) is None


def test_multiplications_with_the_scan_counted():
    with torch.device("meta"):
        network = create_network("mamballie").eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            network(torch.empty(1, 3, 256, 256))
    counts = {operator.__name__.split(".")[0]: flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    scan = counts.pop("selective_scan")
    assert sum(counts.values()) / 2 == pytest.approx(22.14e9, rel=1e-3)
    assert scan / 5 == pytest.approx(3.22e9, rel=1e-3)  # an exponential and two fused multiply-adds a state


def test_a_pixel_reaches_the_whole_image():
    torch.manual_seed(0)
    network = MambaLLIE(**SMALL).eval()
    x = torch.rand(1, 3, 40, 40, requires_grad=True)
    network(x)[0, :, 39, 39].sum().backward()
    assert x.grad[0, :, 0, 0].abs().max() > 0


def test_learns():
    torch.manual_seed(0)
    network = MambaLLIE(**SMALL)
    x, target = torch.rand(1, 3, 16, 16) * 0.2, torch.rand(1, 3, 16, 16)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(15):
        loss = (network(x) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 48}, "embed_dim"),
        ({"depths": [1, 1]}, "six numbers of blocks"),
        ({"mlp_ratio": 1.5}, "whole number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        MambaLLIE(**arguments)


@pytest.mark.parametrize("name", ["LOLv2_real", "LOLv2_syn", "SDSD_indoor", "SDSD_outdoor", "SMID"])
def test_published_recipes(golden, name):
    vector = golden("mamballie_recipe")
    train = load_options(REPOSITORY / "options" / "train" / "mamballie" / f"{name}.yml")["train"]
    schedule = create_schedule(train["scheduler"], train["total_iter"])
    for iteration, expected in zip(vector[f"{name}_iter"].tolist(), vector[f"{name}_lr"].tolist(), strict=True):
        assert schedule(train["optim_g"]["lr"], iteration) == pytest.approx(expected, rel=1e-9)
    assert train["total_iter"] == sum(train["scheduler"]["periods"])
    assert train["optim_g"]["betas"][1] == (0.99 if "SDSD" in name else 0.999)
