"""Evaluation of a whole data set: rows, means, files, errors, and several processes."""

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from llie.engine.distributed import disconnect
from llie.errors import UserError
from llie.evaluation import Report, evaluate
from llie.evaluation.evaluate import image_names
from llie.metrics import Metric, psnr, ssim
from tests.processes import together


def item(index, with_gt=True, folder="set", size=(24, 20)):
    gt = torch.rand(3, *size, generator=torch.Generator().manual_seed(index))
    low = {"lq": gt * 0.2, "lq_path": f"/data/{folder}/low{index}.png"}
    return low | ({"gt": gt, "gt_path": f"/data/{folder}/high{index}.png"} if with_gt else {})


def brighten(batch):
    return (batch["lq"] * 3).clamp(0, 1)


METRICS = {"psnr": {"type": "psnr"}, "ssim": {"type": "calculate_ssim", "crop_border": 0}}


def test_figures_of_each_image_and_their_means():
    dataset = [item(index) for index in range(4)]
    report = evaluate(brighten, dataset, METRICS, ["rgb8"])
    assert [row["name"] for row in report.rows] == ["low0", "low1", "low2", "low3"]
    assert report.columns == ["psnr/rgb8", "psnr/rgb8-gtmean", "ssim/rgb8", "ssim/rgb8-gtmean"]
    for row, sample in zip(report.rows, dataset, strict=True):
        assert row["psnr/rgb8"] == psnr(brighten(sample), sample["gt"])
        assert row["ssim/rgb8-gtmean"] == ssim(brighten(sample), sample["gt"], "rgb8-gtmean")
    assert report.means["psnr/rgb8"] == pytest.approx(np.mean([row["psnr/rgb8"] for row in report.rows]))


def test_the_unprocessed_input_is_measured_when_asked():
    dataset = [item(0)]
    report = evaluate(brighten, dataset, {"psnr": {}}, ["rgb8"], include_input=True)
    assert report.means["input/psnr/rgb8"] == psnr(dataset[0]["lq"], dataset[0]["gt"])
    table = report.table().splitlines()
    assert table[1].split() == ["metric", "protocol", "input", "enhanced", "better"]
    assert [line.split()[:2] for line in table[2:]] == [["psnr", "rgb8"], ["psnr", "rgb8-gtmean"]]
    assert f"{report.means['psnr/rgb8']:.4f}" in table[2]


def test_files(tmp_path):
    dataset = [item(index) for index in range(3)]
    report = evaluate(
        brighten, dataset, METRICS, ["rgb8"], name="LOL", save_folder=tmp_path / "png", results_folder=tmp_path
    )
    with (tmp_path / "LOL.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["low0", "low1", "low2"]
    assert [float(row["psnr/rgb8"]) for row in rows] == [row["psnr/rgb8"] for row in report.rows]
    facts = json.loads((tmp_path / "LOL.json").read_text(encoding="utf-8"))
    assert facts["images"] == 3 and facts["counts"]["ssim/rgb8-gtmean"] == 3
    assert facts["means"] == report.means
    assert facts["protocols"]["rgb8-gtmean"] == ["clip", "round8", "match_gray8"]
    assert facts["versions"]["torch"] == torch.__version__
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["low0.png", "low1.png", "low2.png"]
    saved = cv2.imread(str(tmp_path / "png" / "low1.png"))[..., ::-1]
    assert psnr(saved.copy(), dataset[1]["gt"]) == report.rows[1]["psnr/rgb8"]


def test_without_references(tmp_path):
    dataset = [item(index, with_gt=False, size=(200, 210)) for index in range(2)]
    report = evaluate(brighten, dataset, METRICS | {"niqe": {}}, ["rgb8", "rgb8-gtmean"])
    assert report.columns == ["niqe/rgb8"]
    assert any("psnr needs references" in note for note in report.notes)
    assert "note: psnr needs references" in report.table()


def test_a_metric_whose_weights_are_missing_is_left_out_with_one_note(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("LLIE_WEIGHTS", raising=False)
    report = evaluate(brighten, [item(0), item(1)], {"lpips": {"net": "vgg"}, "psnr": {}}, ["rgb8"])
    assert report.columns == ["psnr/rgb8", "psnr/rgb8-gtmean"]
    assert len(report.notes) == 1 and "vgg16-397923af.pth" in report.notes[0]


def test_an_identical_image_is_left_out_of_the_mean_and_mentioned(tmp_path):
    dataset = [item(0), item(1), item(2)]
    report = evaluate(
        lambda batch: dataset[1]["gt"][None] if "low1" in batch["lq_path"][0] else brighten(batch),
        dataset,
        {"psnr": {}},
        results_folder=tmp_path,
    )
    others = [report.rows[index]["psnr/rgb8"] for index in (0, 2)]
    assert math.isinf(report.rows[1]["psnr/rgb8"])
    assert report.means["psnr/rgb8"] == pytest.approx(np.mean(others))
    assert "psnr/rgb8: 1 of 3 images infinite" in report.table()
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["counts"]["psnr/rgb8"] == 2


def test_a_perfect_network_has_an_infinite_psnr():
    report = evaluate(lambda batch: batch["gt"], [item(0), item(1)], {"psnr": {}, "ssim": {}})
    assert report.means["psnr/rgb8"] == math.inf and report.means["ssim/rgb8"] == 1


def test_a_users_metric():
    def brightness(pred, gt, protocol):
        return float(pred.mean() / gt.mean())

    report = evaluate(lambda batch: batch["lq"], [item(0)], {"brightness": Metric("brightness", brightness)})
    assert report.means["brightness/rgb8"] == pytest.approx(0.2)


def test_niqe_of_a_small_image_warns_with_its_name(tmp_path):
    with pytest.warns(RuntimeWarning, match=r"low0\.png: NIQE is NaN"):
        report = evaluate(brighten, [item(0)], {"niqe": {}}, results_folder=tmp_path)
    assert math.isnan(report.means["niqe/rgb8"])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["means"]["niqe/rgb8"] is None


def broken_at(index, error=None):
    def predict(batch):
        if f"low{index}.png" in batch["lq_path"][0]:
            if error:
                raise error
            return batch["lq"] * float("nan")
        return brighten(batch)

    return predict


def test_a_broken_output_is_an_error_that_names_the_image_and_loses_nothing(tmp_path):
    dataset = [item(index) for index in range(4)]
    with pytest.raises(UserError, match=r"low2\.png: the network's output is broken: 1440 of its 1440 .*2 of 4"):
        evaluate(broken_at(2), dataset, METRICS, results_folder=tmp_path)
    assert len((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2


def test_other_failures_lose_nothing_either(tmp_path):
    with pytest.raises(MemoryError):
        evaluate(broken_at(1, MemoryError()), [item(0), item(1)], METRICS, results_folder=tmp_path)
    assert len((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()) == 1 + 1


def test_outputs_out_of_range_are_clipped():
    dataset = [item(0)]
    report = evaluate(lambda batch: batch["lq"] * 1000, dataset, {"psnr": {}}, ["rgb-float"])
    assert report.rows[0]["psnr/rgb-float"] == psnr(
        (dataset[0]["lq"] * 1000).clamp(0, 1), dataset[0]["gt"], "rgb-float"
    )


def test_mistakes():
    with pytest.raises(UserError, match="no images"):
        evaluate(brighten, [], METRICS)
    with pytest.raises(UserError, match="Did you mean 'rgb8'"):
        evaluate(broken_at(0), [item(0)], METRICS, ["rgb_8"])
    with pytest.raises(UserError, match="Did you mean 'psnr'"):
        evaluate(brighten, [item(0)], {"pnsr": {}})
    with pytest.raises(UserError, match=r"low0\.png: the prediction is 20x12 .* reference is 20x24"):
        evaluate(lambda batch: batch["lq"][:, :, ::2], [item(0)], METRICS)
    with pytest.raises(UserError, match=r"low0\.png: expected one result"):
        evaluate(lambda batch: batch["lq"][0], [item(0)], METRICS)


def test_mean_over_folders():
    dataset = [item(0, folder="a"), item(1, folder="b"), item(2, folder="b")]
    by_image = evaluate(brighten, dataset, {"psnr": {}}).means["psnr/rgb8"]
    by_folder = evaluate(brighten, dataset, {"psnr": {}}, average="folder")
    a, b, c = (row["psnr/rgb8"] for row in by_folder.rows)
    assert by_image == pytest.approx((a + b + c) / 3)
    assert by_folder.means["psnr/rgb8"] == pytest.approx((a + (b + c) / 2) / 2)
    assert "mean over folder means" in by_folder.table()


class Named(list):
    """Items of a data set with paths."""

    @property
    def pairs(self):
        return [(Path(sample["lq_path"]), None) for sample in self]


def test_frames_of_clips_keep_their_folder(tmp_path):
    dataset = Named(item(0, folder=folder) for folder in ("clip/0001", "clip/0002"))
    evaluate(brighten, dataset, {"psnr": {}}, save_folder=tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == [
        "0001/low0.png",
        "0002/low0.png",
    ]


def test_names_are_unique():
    paths = ["/d/a.png", "/d/a.jpg", "/d/b/a.png"]
    assert image_names(Named({"lq_path": path} for path in paths)) == ["a.png", "a.jpg", "b/a.png"]
    assert image_names([item(0)]) is None


def test_report_of_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        Report("x", [{"index": 0, "name": "a", "path": "a", "psnr/rgb8": 1.0}]).write(tmp_path / "file")


def evaluate_in_a_group(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    dataset = [item(index) for index in range(5)]
    report = evaluate(brighten, dataset, METRICS, save_folder=folder / "png")
    torch.save([report.rows, report.means], folder / f"report{rank}.pt")
    try:
        evaluate(broken_at(3), dataset, METRICS, results_folder=folder)
    except UserError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
    disconnect()


def test_two_processes_share_the_work_agree_and_fail_together(tmp_path):
    together(evaluate_in_a_group, tmp_path)
    alone = evaluate(brighten, [item(index) for index in range(5)], METRICS)
    for rank in range(2):
        assert torch.load(tmp_path / f"report{rank}.pt", weights_only=True) == [alone.rows, alone.means]
        assert "low3.png" in (tmp_path / f"error{rank}.txt").read_text()
    assert len(list((tmp_path / "png").iterdir())) == 5
    names = [line.split(",")[0] for line in (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert names == ["low0", "low1", "low2", "low4"]
