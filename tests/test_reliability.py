"""Runs survive kill -9, signals, broken files and full disks, and end with the very same weights."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import sys
import zipfile

import pytest
import torch

from llie import train
from llie.engine import checkpoint
from llie.errors import UserError
from tests.processes import PATIENCE, finish, kill, wait_until
from tests.runs import assert_same, final_weights, make_project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals, which Windows lacks")


def latest(log, total):
    """The last iteration that a training log tells of; the total where there is nothing left to do."""
    text = log.read_text()
    return (
        total if "already trained" in text else max((int(n) for n in re.findall(rf" (\d+)/{total} ", text)), default=0)
    )


@pytest.mark.parametrize(
    ("workers", "processes", "kills"), [(0, 1, 5), (2, 1, 1), (0, 2, 2)], ids=["alone", "workers", "two-processes"]
)
def test_kill_nine_at_random_moments(tmp_path, children, workers, processes, kills):
    total = 12 * kills
    options = make_project(tmp_path, datasets__train__num_worker_per_gpu=workers, train__total_iter=total)
    argv = ["-opt", str(options), "--auto_resume"]
    assert finish(children(argv, tmp_path / "log", processes)) == [0] * processes, (tmp_path / "log").read_text()
    expected = final_weights(tmp_path), final_weights(tmp_path, kind="params_ema")
    whole_log = (tmp_path / "experiments" / "run" / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "experiments")

    moments = random.Random(workers + 10 * processes)
    for _ in range(kills):  # in the middle of writing a file, in one of the next two checkpoints: at most 6 iterations
        group = children(argv, tmp_path / "log", processes, die_at_sync=moments.randrange(1, 14))
        assert finish(group)[0] == -signal.SIGKILL
    for reached in sorted(moments.sample(range(6 * kills, total - 2, 2), kills)):  # anywhere after that iteration
        log = tmp_path / f"log{reached}"
        log.touch()
        group = children(argv, log, processes)
        wait_until(lambda log=log, reached=reached: latest(log, total) >= reached)
        kill(group)
    assert finish(children(argv, tmp_path / "log", processes)) == [0] * processes, (tmp_path / "log").read_text()

    assert_same(final_weights(tmp_path), expected[0])
    assert_same(final_weights(tmp_path, kind="params_ema"), expected[1])
    if processes == 1:  # sums over processes may be logged in the last digit differently
        assert (tmp_path / "experiments" / "run" / "metrics.jsonl").read_text() == whole_log


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_stop_signal_saves_and_resumes_exactly(tmp_path, children, number, workers):
    """The signal goes to the whole process group, as a terminal's Ctrl-C and a cluster's SIGTERM do."""
    options = make_project(tmp_path, train__total_iter=100_000, datasets__train__num_worker_per_gpu=workers)
    argv = ["-opt", str(options), "--auto_resume"]
    group = children(argv, tmp_path / "log")
    wait_until(lambda: checkpoint.saved_iterations(tmp_path / "experiments" / "run"))
    os.killpg(group[0].pid, number)
    assert finish(group) == [128 + number], (tmp_path / "log").read_text()
    reached = checkpoint.saved_iterations(tmp_path / "experiments" / "run")[-1]
    assert f"stopped by {number.name}; saved" in (tmp_path / "log").read_text()

    total = reached + 3
    resume = [*argv, "--force_yml", f"train.total_iter={total}"]
    assert train.main(resume) == 0
    logged = (tmp_path / "experiments" / "run" / "metrics.jsonl").read_text().splitlines()
    iterations = [json.loads(line)["iter"] for line in logged if '"train"' in line]
    assert iterations == [*range(2, total, 2), total]


def test_two_processes_stop_together(tmp_path, children):
    options = make_project(tmp_path, train__total_iter=100_000)
    group = children(["-opt", str(options)], tmp_path / "log", processes=2)
    wait_until(lambda: checkpoint.saved_iterations(tmp_path / "experiments" / "run"))
    os.kill(group[1].pid, signal.SIGTERM)  # only one of them is told
    assert finish(group, grace=PATIENCE) == [128 + signal.SIGTERM] * 2, (tmp_path / "log").read_text()


def test_two_processes_equal_one_with_the_double_batch(tmp_path, children):
    one, two = tmp_path / "one", tmp_path / "two"
    # No dropout, and no batch norm: it sees half of the batch in each process.
    plain = {"network_g": {"type": "TinyNet", "dropout": 0.0, "norm": False}, "train__mixing_augs": {"mixup": False}}
    files = (
        make_project(one, datasets__train__batch_size_per_gpu=4, **plain),
        make_project(two, datasets__train__batch_size_per_gpu=2, **plain),
    )
    groups = children(["-opt", str(files[0])], one / "log"), children(["-opt", str(files[1])], two / "log", processes=2)
    assert [finish(group) for group in groups] == [[0], [0, 0]], (two / "log").read_text()
    theirs = final_weights(two)
    for key, value in final_weights(one).items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-5)


@pytest.fixture
def finished(tmp_path):
    """A project with a run of 12 iterations, and what calls `train.main` on it."""
    options = make_project(tmp_path, train__total_iter=12)

    def run(*more: str) -> int:
        return train.main(["-opt", str(options), *more])

    assert run() == 0
    return tmp_path, run


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "not a zip"])
def test_a_damaged_newest_checkpoint_is_skipped(finished, damage, capsys):
    folder, run = finished
    expected = final_weights(folder)
    newest = folder / "experiments" / "run" / "training_states" / "12.state"
    content = bytearray(newest.read_bytes())
    with zipfile.ZipFile(newest) as archive:  # the bytes between its records mean nothing
        record = max(archive.infolist(), key=lambda info: info.file_size)
        content[content.index(archive.read(record), record.header_offset) + record.file_size // 2] ^= 16
    broken = {"truncated": newest.read_bytes()[:-700], "empty": b"", "flipped bit": bytes(content), "not a zip": b"x"}
    newest.write_bytes(broken[damage])
    assert run("--auto_resume") == 0
    told = capsys.readouterr().out
    assert "12.state" in told and "falling back" in told
    assert "training iterations 10 to 12" in told
    assert_same(final_weights(folder), expected)


def test_all_checkpoints_broken_is_an_error_that_says_so(finished):
    folder, run = finished
    for state in (folder / "experiments" / "run" / "training_states").iterdir():
        state.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 3 training states"):
        run("--auto_resume")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_named_and_the_last_checkpoint_survives(tmp_path, monkeypatch, number):
    """The disk fills up in the middle of a write, and is freed later."""
    options = make_project(tmp_path, train__total_iter=12)
    argv = ["-opt", str(options)]
    assert train.main([*argv, "--force_yml", "name=whole"]) == 0
    real, calls = os.fsync, iter(range(10**9))

    def full(descriptor):
        if next(calls) > 14:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=os.strerror(number)) as caught:
        train.main(argv)
    assert str(tmp_path / "experiments" / "run") in str(caught.value)
    monkeypatch.undo()
    run = tmp_path / "experiments" / "run"
    assert not list(run.rglob("*.tmp"))
    assert checkpoint.newest_state(run, print)["iteration"] in (3, 6)
    assert train.main([*argv, "--auto_resume"]) == 0
    assert_same(final_weights(tmp_path), final_weights(tmp_path, "whole"))


def test_unwritable_folder_is_named(tmp_path):
    options = make_project(tmp_path)
    (tmp_path / "experiments").write_text("a file is in the way")  # holds for root too, whom permissions do not stop
    with pytest.raises(UserError, match="experiments"):
        train.main(["-opt", str(options)])


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_training_image_is_named(tmp_path, workers):
    options = make_project(tmp_path, datasets__train__num_worker_per_gpu=workers)
    picture = tmp_path / "train" / "low" / "3.png"
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(UserError, match=r"3\.png"):
        train.main(["-opt", str(options)])
