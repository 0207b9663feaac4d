"""The training command, from its words to its files."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from llie import train
from llie.errors import UserError
from tests.processes import PATIENCE
from tests.runs import assert_same, final_weights, make_project

SCRIPT = Path(train.__file__)


def test_the_script_runs_from_any_folder_and_resumes_by_name(tmp_path, monkeypatch, capsys):
    """As users type it; `llie/` on the path must not hide modules, and the run is not looked for in the cwd."""
    options = make_project(tmp_path, train__total_iter=6)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["--opt", str(options), "--auto_resume", "--force_yml"]
    command = [sys.executable, str(SCRIPT), *words, "train.total_iter=6"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "training iterations 1 to 6" in done.stdout

    monkeypatch.chdir(elsewhere)
    assert train.main([*words, "train.total_iter=9"]) == 0
    assert "training iterations 7 to 9" in capsys.readouterr().out
    assert not list(elsewhere.iterdir())


def test_mistakes_are_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "-opt", str(tmp_path / "none.yml")])
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path[1:]])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "none.yml" in said


def test_print_shows_resolved_options_and_trains_nothing(tmp_path, capsys):
    assert train.main(["-opt", str(make_project(tmp_path)), "--print", "--force_yml", "train.optim_g.lr=1e-4"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["train"]["optim_g"]["lr"] == pytest.approx(1e-4)
    assert not (tmp_path / "experiments").exists()


def test_an_existing_run_is_neither_overwritten_nor_renamed(tmp_path):
    words = ["-opt", str(make_project(tmp_path, train__total_iter=3))]
    train.main(words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "experiments").rglob("*")}
    with pytest.raises(UserError, match="--auto_resume"):
        train.main(words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "experiments").rglob("*")} == before


def test_a_checkpoint_contains_its_origin_as_plain_values(tmp_path):
    train.main(["-opt", str(make_project(tmp_path, train__total_iter=3))])
    file = tmp_path / "experiments" / "run" / "models" / "net_g_3.pth"
    content = torch.load(file, weights_only=True)
    assert set(content) == {"params", "params_ema", "iteration", "options", "versions", "git_revision"}
    assert content["options"]["network_g"]["type"] == "TinyNet"
    assert content["versions"]["torch"] == torch.__version__


def test_all_iterations_are_done_although_epochs_do_not_divide(tmp_path):
    """5 images in batches of 2 for 24 iterations: loops over epochs stop early here."""
    train.main(["-opt", str(make_project(tmp_path))])
    logged = [json.loads(line) for line in (tmp_path / "experiments/run/metrics.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in logged if line["kind"] == "train"] == list(range(2, 25, 2))
    assert [line["iter"] for line in logged if line["kind"] == "val"] == [6, 12, 18, 24]


def test_a_batch_that_cannot_be_filled_is_refused_at_the_start(tmp_path):
    options = make_project(tmp_path, datasets__train__batch_size_per_gpu=6)
    with pytest.raises(UserError, match="5 images"):
        train.main(["-opt", str(options)])
    assert not (tmp_path / "experiments").exists()


def test_seeds_differ_and_repeat(tmp_path):
    words = ["-opt", str(make_project(tmp_path, train__total_iter=3)), "--force_yml"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train.main([*words, f"name={name}", f"manual_seed={seed}"])
    assert_same(final_weights(tmp_path, "a"), final_weights(tmp_path, "b"))
    assert not torch.equal(final_weights(tmp_path, "a")["last.weight"], final_weights(tmp_path, "c")["last.weight"])


def test_resume_state_names_a_file(tmp_path):
    options = make_project(tmp_path, train__total_iter=6)
    train.main(["-opt", str(options)])
    state = tmp_path / "experiments" / "run" / "training_states" / "3.state"
    train.main(["-opt", str(options), "--force_yml", f"path.resume_state={state}", "name=other"])
    assert_same(final_weights(tmp_path, "other"), final_weights(tmp_path))
    with pytest.raises(UserError, match=r"9\.state"):
        train.main(["-opt", str(options), "--force_yml", f"path.resume_state={state.with_name('9.state')}"])


def test_a_changed_network_cannot_be_resumed(tmp_path):
    options = make_project(tmp_path, train__total_iter=3)
    train.main(["-opt", str(options)])
    with pytest.raises(UserError, match="another network"):
        train.main(["-opt", str(options), "--auto_resume", "--force_yml", "network_g.width=9", "train.total_iter=6"])


def test_debug_runs_under_its_own_name(tmp_path):
    train.main(["-opt", str(make_project(tmp_path, train__total_iter=2)), "--debug"])
    assert (tmp_path / "experiments" / "debug_run").is_dir()
    assert not (tmp_path / "experiments" / "run").exists()


def test_epochs_instead_of_iterations(tmp_path):
    train.main(["-opt", str(make_project(tmp_path, train__total_iter=None, train__total_epochs=2))])
    assert (tmp_path / "experiments" / "run" / "models" / "net_g_6.pth").exists()  # 3 batches hold 5 images


def test_a_missing_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="num_gpu: 1 requested"):
        train.main(["-opt", str(make_project(tmp_path, num_gpu=1))])


def test_a_metric_that_cannot_be_measured_is_reported_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LLIE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = make_project(tmp_path, val__metrics={"psnr": {"type": "psnr"}, "lpips": {"type": "lpips"}})
    assert train.main(["-opt", str(options)]) == 0  # validates four times
    assert [record.message.count("lpips is left out") for record in caplog.records] == [1]
