import os

import pytest
import torch

from llie.engine import checkpoint
from llie.errors import UserError


def state(iteration: int) -> dict:
    return {"iteration": iteration, "networks": {"g": {"w": torch.full((50,), float(iteration))}}, "optimizers": {}}


def save(folder, iteration, keep_last=3):
    checkpoint.save(folder, state(iteration), {"g": {"params": state(iteration)["networks"]["g"]}}, keep_last)


def test_round_trip_and_names(tmp_path):
    save(tmp_path, 10)
    read = checkpoint.newest_state(tmp_path, print)
    assert read["iteration"] == 10
    assert torch.equal(read["networks"]["g"]["w"], torch.full((50,), 10.0))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert names == {"models/net_g_10.pth", "models/net_g_latest.pth", "training_states/10.state"}


def test_only_the_last_ones_stay_but_best_and_latest_always(tmp_path):
    checkpoint.save_network(tmp_path, "g", {"params": {}}, "best")
    for iteration in (5, 10, 15, 100):
        save(tmp_path, iteration, keep_last=2)
    assert checkpoint.saved_iterations(tmp_path) == [15, 100]
    models = {path.name for path in (tmp_path / "models").iterdir()}
    assert models == {"net_g_15.pth", "net_g_100.pth", "net_g_latest.pth", "net_g_best.pth"}


def test_a_damaged_later_state_does_not_push_out_good_ones(tmp_path):
    """After a damaged state was skipped, the new states have smaller numbers."""
    for iteration in (5, 10):
        save(tmp_path, iteration, keep_last=1)
    (tmp_path / "training_states" / "20.state").write_bytes(b"broken")
    save(tmp_path, 15, keep_last=1)
    told = []
    assert checkpoint.newest_state(tmp_path, told.append)["iteration"] == 15
    assert len(told) == 1 and "20.state" in told[0]


@pytest.mark.parametrize("stage", ["first file", "between the files", "state"])
def test_a_crash_inside_a_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch, stage):
    save(tmp_path, 1)

    class Crash(BaseException):
        pass

    real, calls = os.fsync, []
    dies_at = {"first file": 0, "between the files": 2, "state": 4}[stage]

    def sync(descriptor):
        if len(calls) == dies_at:
            raise Crash
        calls.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(Crash):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.newest_state(tmp_path, pytest.fail)["iteration"] == 1
    save(tmp_path, 2)  # and the leftovers are in nobody's way
    assert checkpoint.newest_state(tmp_path, pytest.fail)["iteration"] == 2


def test_no_run_is_no_state(tmp_path):
    assert checkpoint.newest_state(tmp_path, pytest.fail) is None


def test_states_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    path = tmp_path / "training_states" / "1.state"
    path.parent.mkdir()
    torch.save({**state(1), "evil": Evil()}, path)
    with pytest.raises(UserError, match=r"1\.state"):
        checkpoint.read_state(path)
    assert not (tmp_path / "owned").exists()


def test_a_network_file_is_not_a_training_state(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(UserError, match="not a training state"):
        checkpoint.read_state(tmp_path / "models" / "net_g_3.pth")
