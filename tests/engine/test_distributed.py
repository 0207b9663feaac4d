import os
import subprocess
import sys

import pytest
import torch

from llie.engine import distributed
from llie.errors import UserError
from tests.processes import PATIENCE

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def test_alone_every_exchange_returns_what_it_was_given():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather([3, 1]) == [3, 1]
    assert distributed.broadcast("x") == "x"
    assert distributed.average(torch.tensor([2.0])).item() == 2.0
    distributed.barrier()


def test_missing_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.choose_device("auto") == torch.device("cpu")
    assert distributed.choose_device(0) == torch.device("cpu")
    with pytest.raises(UserError, match=r"num_gpu: 2 requested, but 0 visible.*num_gpu: 0"):
        distributed.choose_device(2)
    with pytest.raises(UserError, match="auto"):
        distributed.choose_device("all")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"process 2 .* only 2 GPU"):
        distributed.choose_device("auto")


def test_all_visible_gpus_are_used_by_default(monkeypatch):
    spawned = []
    monkeypatch.setattr(distributed, "gpu_count", lambda num_gpu: 4)
    monkeypatch.setattr(distributed, "spawn", lambda *arguments: spawned.append(arguments) or 7)
    assert distributed.launch(pytest.fail, "train.py", ["-opt", "x.yml"]) == 7
    assert spawned == [("train.py", ["-opt", "x.yml"], 4)]


@pytest.mark.parametrize(("launcher", "mend"), [("pytorch", "torchrun"), ("slurm", "srun")])
def test_a_launcher_that_was_not_used(launcher, mend):
    with pytest.raises(UserError, match=mend):
        distributed.launch(pytest.fail, "train.py", [], launcher=launcher)


def test_slurm_variables_give_the_rank(monkeypatch):
    facts = {"STEP_ID": "0", "STEP_NUM_TASKS": "2", "PROCID": "1", "LOCALID": "1", "STEP_NODELIST": "node7"}
    for name, value in facts.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed.started_by_launcher()
    found = distributed._slurm_environment()
    assert (found["RANK"], found["WORLD_SIZE"], found["MASTER_ADDR"]) == ("1", "2", "node7")


def test_an_interactive_slurm_shell_is_not_a_group(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not distributed.started_by_launcher()


SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from llie.engine import distributed as d
import torch
from torch.nn.parallel import DistributedDataParallel

def all_threads():  # Linux only
    return {{path.parent.name: path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}}

before = all_threads()

def threads():  # that the group started
    return [name for number, name in all_threads().items() if number not in before]

def job(device):
    wrapped = DistributedDataParallel(torch.nn.Linear(2, 2))
    wrapped.circle = [wrapped]
    wrapped(torch.ones(1, 2)).sum().backward()
    assert threads() or sys.platform != "linux"
    if d.rank() == {failing}:
        raise ValueError("the frames of a failure must not keep the group either")

if d.started_by_launcher():
    try:
        with d.group(0) as device:
            gathered = d.gather([10 * d.rank() + i for i in range(d.rank() + 1)])
            heard = d.broadcast({{"from": d.rank()}})
            mean = d.average(torch.tensor([float(d.rank()), float("nan") if d.rank() else 1.0])).tolist()
            told = f"{{d.rank()}} {{d.world_size()}} {{device}} {{gathered}} {{heard}} {{mean}}"
            job(device)
    except ValueError:
        pass
    # In one write: the ranks share this output, and print may write in pieces.
    os.write(1, f"{{told}} {{threads()}}\\n".encode())
    sys.exit({code} if int(os.environ["RANK"]) == 1 else 0)
sys.exit(d.spawn(__file__, ["word"], 2))
"""


def test_spawned_processes_meet_exchange_and_part_and_their_exit_code_comes_back(tmp_path):
    """Gloo's threads must end with the group: one that outlives Python may end the process with an abort."""
    script = tmp_path / "job.py"
    root = str(distributed.Path(__file__).parents[2])
    script.write_text(SCRIPT.format(root=root, code=3, failing=1), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHERS}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    lines = sorted(line for line in done.stdout.splitlines() if line[:1] in "01")
    assert lines == [
        "0 2 cpu [0, 10, 11] {'from': 0} [0.5, nan] []",
        "1 2 cpu [] {'from': 0} [0.5, nan] []",
    ], done.stderr
    assert done.returncode == 3
