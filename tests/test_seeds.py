"""Runs over seeds, validation split off the training set, and the page of runs."""

import json
import re
from statistics import mean, stdev

import pytest

from llie import cli, train
from llie.history import SeedTable, read_run, write_page
from llie.history.page import POINTS, page_data, thinned
from llie.history.runs import Run
from llie.options import load_options
from tests.browser import opened
from tests.runs import assert_same, final_weights, make_project

SHORT = {"train__total_iter": 6, "val__val_freq": 3}


def test_seeds_one_after_the_other(tmp_path, capsys):
    options = make_project(tmp_path, manual_seed=[2, 5], logger__use_tb_logger=True, **SHORT)
    assert train.main(["-opt", str(options)]) == 0
    runs = [read_run(tmp_path / "experiments" / f"run_seed{seed}") for seed in (2, 5)]
    finals = [run.validation["psnr/rgb8"][-1][1] for run in runs]
    stored = json.loads((tmp_path / "experiments/run_seeds/seeds.json").read_text())
    line = stored["lines"][0]
    assert line["figure"] == "psnr/rgb8" and line["checkpoint"] == "last" and line["seeds"] == finals
    assert line["mean"] == pytest.approx(mean(finals)) and line["deviation"] == pytest.approx(stdev(finals))
    best = next(line for line in stored["lines"] if line["checkpoint"] == "best")
    assert all(one >= other for one, other in zip(best["seeds"], finals, strict=True))
    assert any("moving average" in note for note in stored["notes"]) and any("too good" in n for n in stored["notes"])
    printed = capsys.readouterr().out
    assert "run: 2 seeds (2, 5)" in printed and f"{mean(finals):.4f}" in printed
    assert "seed 5" in (tmp_path / "experiments/run_seeds/seeds.md").read_text()

    # A seed among others trains as it does alone, and curves and pictures are on the page.
    alone = make_project(tmp_path, manual_seed=5, name="alone", **SHORT)
    assert train.main(["-opt", str(alone)]) == 0
    assert_same(final_weights(tmp_path, "run_seed5"), final_weights(tmp_path, "alone"))
    data = page_data(runs)
    assert [len(run["strips"]) for run in data["runs"]] == [2, 2]
    assert {"loss_g", "lr_g", "grad_norm_g", "seconds_per_step"} <= data["runs"][0]["training"].keys()
    assert data["runs"][0]["training"]["grad_norm_g"][0][1] > 0
    assert data["runs"][0]["versions"]["torch"] and data["runs"][0]["options"]["manual_seed"] == "2"
    text = (tmp_path / "experiments/run_seeds/report.html").read_text(encoding="utf-8")
    assert "run_seed2" in text and not re.findall(r"(?:src|href)=[\"']?(?!data:)[\w/.]+", text)


def test_side_by_side_equals_one_after_the_other(tmp_path, capfd):
    options = make_project(tmp_path, manual_seed=[2, 5], **SHORT)
    assert train.main(["-opt", str(options), "--output", str(tmp_path / "one")]) == 0
    alone = json.loads((tmp_path / "one/run_seeds/seeds.json").read_text())
    assert train.main(["-opt", str(options), "--jobs", "2"]) == 0
    together = json.loads((tmp_path / "experiments/run_seeds/seeds.json").read_text())
    assert [line["seeds"] for line in together["lines"]] == [line["seeds"] for line in alone["lines"]]
    assert "run_seed5: " in capfd.readouterr().out


def test_a_failure_does_not_stop_the_others(tmp_path, capfd):
    options = make_project(tmp_path, manual_seed=[2, 5], **SHORT)
    (tmp_path / "experiments" / "run_seed2").mkdir(parents=True)
    (tmp_path / "experiments" / "run_seed2" / "models").write_text("in the way")
    assert train.main(["-opt", str(options), "--jobs", "2"]) != 0
    assert "run_seed2: error: " in capfd.readouterr().out
    assert final_weights(tmp_path, "run_seed5")
    assert not (tmp_path / "experiments/run_seeds").exists()


def test_the_same_command_resumes(tmp_path, capsys):
    options = make_project(tmp_path, **SHORT)
    command = ["-opt", str(options), "--seeds", "2"]
    assert train.main(command) == 0
    assert {"run_seed3", "run_seed4", "run_seeds"} == {path.name for path in (tmp_path / "experiments").iterdir()}
    assert cli.main(["train", *command]) == 2
    assert "--auto_resume" in capsys.readouterr().err
    assert train.main([*command, "--auto_resume"]) == 0
    assert capsys.readouterr().out.count("already trained") == 2


@pytest.mark.parametrize(
    ("seeds", "words", "message"),
    [
        ([], [], "manual_seed: a list of seeds must not be empty"),
        ([1, 1], [], "manual_seed: 1 stands twice"),
        (0, ["--seeds", "0"], "--seeds: 0 is not a number of runs"),
        ([1, 2], ["--seeds", "2"], "give either --seeds or a list"),
        ([1, 2], ["--jobs", "0"], "--jobs: 0 is not a number of runs"),
        ([1, 2], ["--jobs", "2", "--debug"], "leave out torchrun, srun, --launcher and --debug"),
    ],
)
def test_mistakes(tmp_path, capsys, seeds, words, message):
    options = make_project(tmp_path, manual_seed=seeds, **SHORT)
    assert cli.main(["train", "-opt", str(options), *words]) == 2
    assert message in capsys.readouterr().err


def test_validation_split_off_the_training_set(tmp_path, capsys):
    options = make_project(tmp_path, datasets__val={"split": 0.4}, manual_seed=[0, 1], **SHORT)
    assert train.main(["-opt", str(options)]) == 0
    run = read_run(tmp_path / "experiments/run_seed0")
    assert [iteration for iteration, _ in run.validation["psnr/rgb8"]] == [3, 6]
    assert "no test image was seen" in capsys.readouterr().out
    assert cli.main(["data", "check", str(options)]) == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"split": 1.5}, "between 0 and 1"),
        ({"split": 0.1, "dataroot": "x"}, "{_delete_: true, split: 0.1}"),
        ({"splitt": 0.1}, "type"),
    ],
)
def test_mistakes_of_a_split(tmp_path, capsys, section, message):
    options = make_project(tmp_path, datasets__val=section, **SHORT)
    assert cli.main(["train", "-opt", str(options)]) == 2
    assert message in capsys.readouterr().err


def test_there_is_nothing_to_test_in_a_split(tmp_path, capsys):
    options = make_project(tmp_path, datasets__val={"split": 0.4})
    assert cli.main(["test", "-opt", str(options)]) == 2
    assert "datasets.test" in capsys.readouterr().err
    assert load_options(options)["datasets"]["val"]["split"] == 0.4


def test_the_report_of_runs(tmp_path, capsys):
    options = make_project(tmp_path, **SHORT)
    assert train.main(["-opt", str(options)]) == 0
    folder = tmp_path / "experiments/run"
    assert cli.main(["report", str(folder), str(folder), "-o", str(tmp_path / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out and (tmp_path / "page.html").is_file()
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2
    assert cli.main(["report", str(tmp_path / "train")]) == 2
    assert "not a training run" in capsys.readouterr().err


def test_long_curves_are_thinned():
    curve = [(step, float(step % 2)) for step in range(10_000)] + [(10_000, float("nan"))]
    points = thinned(curve)
    assert len(points) == POINTS and points[0][1] == pytest.approx(0.5, abs=0.1)
    assert thinned([]) == []


def test_one_seed_has_no_deviation(tmp_path):
    run = Run("one", tmp_path, {"manual_seed": 7}, validation={"psnr/rgb8": [(1, 20.0), (2, 21.0)]})
    (line,) = SeedTable("one", [run]).lines()
    assert line == {"figure": "psnr/rgb8", "checkpoint": "last", "mean": 21.0, "deviation": None, "seeds": [21.0]}


def test_the_page_in_a_browser(tmp_path):
    curve = [(step, 1.0 / step) for step in range(1, 50)]
    runs = [
        Run(
            f"seed{seed}", tmp_path, {"manual_seed": seed, "train": {"ema_decay": 0.9}}, best=20,
            training={"loss_g": curve, "lr_g": curve}, validation={"psnr/rgb8": [(20, 20.0 + seed), (40, 19.0)]},
        )
        for seed in (1, 2)
    ]  # fmt: skip
    with opened(write_page(runs, tmp_path / "page.html", SeedTable("both", runs))) as view:
        assert view.locator("#validation svg").count() == 1 and view.locator("#training svg").count() == 2
        assert view.locator("#training path.curve").count() == 4
        assert "21.50" in view.locator("#seeds").inner_text()  # the mean of the best
        assert "best, iteration 20 (moving average)" in view.locator("#figures").inner_text()
        assert view.locator("#differences tbody tr").count() == 1
        view.uncheck("#controls input >> nth=0")
        assert view.locator("#training path.curve").count() == 2
        before = view.locator("#training path.curve").first.get_attribute("d")
        view.select_option("#controls select", "10")
        assert view.locator("#training path.curve").first.get_attribute("d") != before
        assert view.locator("#pictures").is_hidden()
