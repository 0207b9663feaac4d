"""Adversarial runs with data streams, from option files: killed, resumed, in two processes, in half precision."""

import json
import shutil
import signal

import pytest
import torch
import yaml

from llie import train
from llie.errors import UserError
from llie.options import load_options
from tests.conftest import REPOSITORY
from tests.processes import finish, kill, wait_until
from tests.runs import assert_same, final_weights, make_project

STREAM = {"type": "UnpairedImageDataset", "gt_size": 16, "use_hflip": True}


def project(folder, **changes):
    """Two networks that both depend on all randomness there is, two optimisers, two streams."""
    file = make_project(
        folder,
        model_type="AdversarialModel",
        network_d={"type": "TinyJudge"},
        datasets__train_lq_real={**STREAM, "dataroot": str(folder / "val" / "low")},
        datasets__train_hq={**STREAM, "dataroot": str(folder / "val" / "high")},
        train__optim_d={"type": "Adam", "lr": 0.003},
        train__gan_opt={"type": "GANLoss", "gan_type": "lsgan", "real_label_val": [0.7, 1.2], "loss_weight": 0.1},
    )
    options = yaml.safe_load(file.read_text())
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = options
        for section in sections:
            target = target[section]
        target[key] = value
    file.write_text(yaml.safe_dump(options))
    return file


def both_networks(folder):
    judge = folder / "experiments" / "run" / "models" / "net_d_latest.pth"
    return {"g": final_weights(folder), "d": torch.load(judge, weights_only=True)["params"]}


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path, children, processes):
    changes = {"train__total_iter": 40, "logger__save_checkpoint_freq": 8, "val__val_freq": None}
    options = project(tmp_path, **changes)
    argv = ["-opt", str(options), "--auto_resume"]
    assert finish(children(argv, tmp_path / "log", processes)) == [0] * processes, (tmp_path / "log").read_text()
    expected = both_networks(tmp_path)
    shutil.rmtree(tmp_path / "experiments")

    group = children(argv, tmp_path / "log1", processes)
    states = tmp_path / "experiments" / "run" / "training_states"
    wait_until(lambda: states.is_dir() and list(states.glob("*.state")))
    kill(group)
    assert group[0].exitcode == -signal.SIGKILL
    assert finish(children(argv, tmp_path / "log2", processes)) == [0] * processes, (tmp_path / "log2").read_text()
    assert "training iterations 1 to" not in (tmp_path / "log2").read_text()
    for name, weights in both_networks(tmp_path).items():
        assert_same(weights, expected[name])


def test_two_processes_equal_one_with_the_double_batch(tmp_path, children):
    # Without dropout, batch statistics, mixup and drawn labels, which differ between processes.
    plain = {
        "network_g": {"type": "TinyNet", "dropout": 0.0, "norm": False},
        "network_d": {"type": "TinyJudge", "norm": False},
        "train__mixing_augs": {"mixup": False},
        "train__gan_opt": {"type": "GANLoss", "loss_weight": 0.1},
        "train__total_iter": 12,
    }
    folders = {1: tmp_path / "one", 2: tmp_path / "two"}
    for processes, folder in folders.items():
        options = project(folder, datasets__train__batch_size_per_gpu=4 // processes, **plain)
        group = children(["-opt", str(options)], folder / "log", processes)
        assert finish(group) == [0] * processes, (folder / "log").read_text()
    one, two = both_networks(folders[1]), both_networks(folders[2])
    for name in ("g", "d"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)


def test_accumulated_micro_batches_equal_one_large_batch(tmp_path):
    plain = {
        "network_g": {"type": "TinyNet", "dropout": 0.0, "norm": False},
        "network_d": {"type": "TinyJudge", "norm": False},
        "train__mixing_augs": {"mixup": False},
        "train__gan_opt": {"type": "GANLoss", "loss_weight": 0.1},
        "train__total_iter": 6,
    }
    results = []
    for accumulate in (1, 2):
        folder = tmp_path / str(accumulate)
        sizes = {"train__accumulate": accumulate, "datasets__train__batch_size_per_gpu": 4 // accumulate}
        assert train.main(["-opt", str(project(folder, **sizes, **plain))]) == 0
        results.append(both_networks(folder))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision(tmp_path, amp):
    """Near full precision, and finite."""
    logs = []
    for precision in (None, amp):
        folder = tmp_path / str(precision)
        changes = {"train__amp": precision, "train__total_iter": 4, "val__val_freq": None, "logger__print_freq": 1}
        assert train.main(["-opt", str(project(folder, **changes))]) == 0
        lines = (folder / "experiments" / "run" / "metrics.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
    exact, rounded = (log[0] for log in logs)
    for name in ("loss_d", "loss_g", "gan", "score_real", "score_fake"):
        assert rounded[name] == pytest.approx(exact[name], abs=0.02)


def test_hvi_smm_with_an_adversarial_term_is_an_option_file(tmp_path):
    """The file of the project, made small, trains both networks; without and with streams."""
    source = REPOSITORY / "options" / "train" / "LOLv1_adversarial.yml"
    data = project(tmp_path)
    streams = {key: value for key, value in yaml.safe_load(data.read_text())["datasets"].items() if "train_" in key}
    for more in ({}, streams):
        file = tmp_path / f"adversarial_{len(more)}.yml"
        pairs = {
            "dataroot": str(tmp_path),
            "gt_size": 16,
            "batch_size_per_gpu": 2,
            "num_worker_per_gpu": 0,
            "cache": "none",
        }
        changes = {
            "_base_": str(source),
            "name": file.stem,
            "num_gpu": 0,
            "network_g": {"channels": [8, 8, 16, 32]},
            "network_d": {"width": 4},
            "datasets": {"train": pairs, "val": {"dataroot": str(tmp_path)}, **more},
            "train": {
                "total_epochs": None,
                "total_iter": 2,
                "losses": [{"type": "HVILoss", "preds": {"out": 1.0, "base": 0.5}, "perceptual": 0}],
            },
            "val": {"metrics": {"_delete_": True, "psnr": {"type": "psnr"}}},
            "logger": {"print_freq": 1, "use_tb_logger": False},
        }
        file.write_text(yaml.safe_dump(changes))
        assert train.main(["-opt", str(file), "--output", str(tmp_path / "runs")]) == 0
        run = tmp_path / "runs" / file.stem
        assert {path.name for path in (run / "models").glob("*_latest.pth")} == {"net_g_latest.pth", "net_d_latest.pth"}
        first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        assert {"HVILoss", "gan", "loss_d", "lr_d"} <= first.keys()


def test_streams_that_no_one_reads_are_refused(tmp_path):
    misspelt = project(tmp_path, datasets__train_lq_rael={**STREAM, "dataroot": str(tmp_path)})
    with pytest.raises(UserError, match=r"datasets\.train_lq_rael: AdversarialModel has the streams .*'train_lq_real'"):
        load_options(misspelt)
    supervised = project(tmp_path, model_type="SupervisedModel")
    with pytest.raises(UserError, match=r"SupervisedModel has no streams besides train"):
        load_options(supervised)


@pytest.mark.parametrize("variant", ["LOL", "other"])
def test_stage_2_of_drbn_says_what_it_needs(variant, tmp_path, monkeypatch):
    """First the weights of stage 1, then the data."""
    monkeypatch.chdir(tmp_path)
    file = REPOSITORY / "options" / "train" / "drbn" / f"stage2_{variant}.yml"
    with pytest.raises(UserError, match=r"path\.pretrain_network_g: no checkpoint .*train it first"):
        train.main(["-opt", str(file)])
    with pytest.raises(UserError, match="needs weights for its part stage1"):
        train.main(["-opt", str(file), "--force_yml", "path.pretrain_network_g=null"])
