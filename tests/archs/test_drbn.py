import pytest
import torch

from llie.archs.drbn import DRBN, RDB, DRBNRecompose
from llie.weights import load_weights
from tests.golden import fill


def close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def recompose_state(vector):
    values = fill.fill(vector.meta["recompose_shapes"], vector.meta["recompose_seed"])
    return {key: torch.from_numpy(value) for key, value in values.items()}


def test_golden_dense_block(golden):
    vector = golden("drbn_rdb")
    block = RDB(16, 8, 4)
    block.load_state_dict(DRBN.card.official_keys({f"x.{k}": v for k, v in vector.state_dict().items()}), strict=False)
    state = {k.replace(".conv.0.", "."): v for k, v in vector.state_dict().items()}
    block.load_state_dict(state)
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
        out = network.train()(vector["input"])
    close(out["out"], vector["out_s1"])
    close(out["half"], vector["out_s2"])
    close(out["quarter"], vector["out_s4"])
    for name in [name for name in vector.arrays if name.startswith("g")]:
        close(taps[name], vector[name])


@pytest.mark.parametrize("case", ["64", "nonsquare"])
def test_golden_stage2(golden, case):
    vector = golden(f"drbn_stage2_{case}")
    network = DRBNRecompose().eval()
    network.stage1.load_state_dict(DRBN.card.official_keys(vector.state_dict()))
    network.recompose.load_state_dict(DRBN.card.official_keys(recompose_state(vector)))
    seen = {}
    network.recompose.register_forward_hook(lambda _, inputs, outputs: seen.update(inputs=inputs, weights=outputs[1]))
    with torch.no_grad():
        close(network(vector["input"]), vector["recomposed"])
    for name, tensor in zip(("input", "up4", "up2", "out_s1"), seen["inputs"], strict=True):
        close(tensor, vector[name])
    for number, weight in enumerate(seen["weights"].chunk(3, dim=1), 1):
        close(weight, vector[f"weight{number}"])
