import re

import numpy as np
import pytest
import torch

import llie
from llie.archs.drbn import DRBN, RDB, DRBNRecompose
from llie.errors import UserError
from llie.models.base import create_network
from llie.weights import load_weights
from tests.golden import fill

SMALL = {"width": 4, "growth": 2, "recursions": 2}


def small(seed=0):
    torch.manual_seed(seed)
    return DRBNRecompose(**SMALL)


def officially_named(state):
    return {re.sub(r"(convs\.\d)\.", r"\1.conv.0.", key): value for key, value in state.items()}


def close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def recompose_state(vector):
    values = fill.fill(vector.meta["recompose_shapes"], vector.meta["recompose_seed"])
    return {key: torch.from_numpy(value) for key, value in values.items()}


def test_golden_dense_block(golden):
    vector = golden("drbn_rdb")
    block = RDB(16, 8, 4)
    block.load_state_dict(DRBN.card.official_keys(vector.state_dict()))
    close(block(vector["input"]), vector["output"], 1e-5)


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
        close(network(vector["input"]), vector["out_s1"])
        out = network.train()(vector["input"])
    close(out["out"], vector["out_s1"])
    close(out["half"], vector["out_s2"])
    close(out["quarter"], vector["out_s4"])
    for name in [name for name in vector.arrays if name.startswith("g")]:
        close(taps[name], vector[name])


@pytest.mark.parametrize("case", ["64", "nonsquare"])
def test_golden_stage2(golden, case):
    vector = golden(f"drbn_stage2_{case}")
    network = load_weights(DRBNRecompose(), [vector.state_dict(), recompose_state(vector)]).eval()
    seen = {}
    network.recompose.register_forward_hook(lambda _, inputs, outputs: seen.update(inputs=inputs, weights=outputs[1]))
    with torch.no_grad():
        close(network(vector["input"]), vector["recomposed"])
    for name, tensor in zip(("input", "up4", "up2", "out_s1"), seen["inputs"], strict=True):
        close(tensor, vector[name])
    for number, weight in enumerate(seen["weights"].chunk(3, dim=1), 1):
        close(weight, vector[f"weight{number}"])


def test_both_stages_load_apart_or_together(tmp_path):
    trained = small()
    torch.save({"params": trained.state_dict()}, tmp_path / "both.pth")
    torch.save(trained.stage1.state_dict(), tmp_path / "stage1.pth")
    torch.save(officially_named(trained.recompose.state_dict()), tmp_path / "recompose.pt")
    for source in (tmp_path / "both.pth", [tmp_path / "stage1.pth", tmp_path / "recompose.pt"]):
        loaded = load_weights(small(seed=1), source, need=("stage1", "recompose"))
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trained.parameters(), strict=True))

    loaded = load_weights(small(seed=1), tmp_path / "stage1.pth")
    assert torch.equal(loaded.stage1.recur1.Up1.weight, trained.stage1.recur1.Up1.weight)
    assert torch.equal(loaded.recompose.UPNet.weight, small(seed=1).recompose.UPNet.weight)


def test_training_stage2_needs_stage1(tmp_path):
    torch.save(small().recompose.state_dict(), tmp_path / "recompose.pth")
    torch.save(small().stage1.state_dict(), tmp_path / "stage1.pth")
    options = {"network_g": {"type": "DRBNRecompose", **SMALL}, "path": {}}
    with pytest.raises(UserError, match="needs weights of its part stage1, but no weights are given"):
        create_network(options)
    options["path"]["pretrain_network_g"] = str(tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"pretrain_network_g: .* part stage1, but what is given holds only recompose"):
        create_network(options)
    options["path"]["pretrain_network_g"] = str(tmp_path / "stage1.pth")
    network = create_network(options)
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        name for name, _ in network.named_parameters() if name.startswith("stage1.")
    }
    with pytest.raises(UserError, match="needs weights of its part recompose"):
        create_network(options, trained=True)


def test_one_part_does_not_enhance(tmp_path):
    torch.save(officially_named(small().recompose.state_dict()), tmp_path / "recompose.pt")
    with pytest.raises(UserError, match="DRBNRecompose needs weights of its part stage1"):
        llie.load(tmp_path / "recompose.pt")
    torch.save(small().state_dict(), tmp_path / "both.pth")
    image = np.full((9, 10, 3), 40, np.uint8)
    assert llie.load(tmp_path / "both.pth")(image).shape == image.shape


def test_weights_of_another_network_are_named(tmp_path):
    torch.save(small().recompose.state_dict(), tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"does not fit DRBN: .* looks like DRBNRecompose\(width=4, growth=2"):
        load_weights(DRBN(**SMALL), tmp_path / "recompose.pth")
    with pytest.raises(UserError, match=r"does not fit DRBNRecompose: .* looks like DRBN\(.*recursions=3"):
        load_weights(small(), DRBN(4, 2, recursions=3).state_dict())
    with pytest.raises(UserError, match="no registered network"):
        load_weights(DRBN(**SMALL), {"conv1.weight": torch.zeros(64, 6, 3, 3)})
