"""Rows: figures, resuming, failures, tables, comparing with stored results, several processes."""

import csv
import json

import cv2
import pytest
import torch.distributed as dist

from llie import cli
from llie.benchmark import measure, read_plan, runs
from llie.benchmark.check import differences, read_results, read_tolerances
from llie.benchmark.published import entries, published
from llie.benchmark.runs import Row
from llie.benchmark.tables import as_markdown, as_text, write_tables
from llie.data.readers import read_image
from llie.engine.distributed import disconnect
from llie.errors import UserError
from llie.inference import load
from llie.metrics import PROTOCOLS, psnr, ssim
from llie.registry import ARCH_REGISTRY, METRIC_REGISTRY
from tests.benchmark.conftest import COST, write_pairs
from tests.processes import together

BROKEN = """
import torch
from llie.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class Breaks(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("it fell apart")
"""


def plan_for(pairs, models=("gamma", "clahe"), **changes):
    return read_plan(models=list(models), datasets=[f"set={pairs}"], metrics=["psnr", "ssim"], **changes)


def test_figures_are_those_of_the_metrics(pairs, tmp_path, cheap):
    rows = measure(plan_for(pairs), tmp_path / "out")
    assert [(row.model, row.error) for row in rows] == [("input", None), ("gamma", None), ("clahe", None)]
    untouched, gamma = rows[:2]
    assert untouched.images[1]["ssim/rgb8"] == ssim(read_image(pairs / "low/1.png"), read_image(pairs / "high/1.png"))
    assert untouched.cost is None
    result = load("gamma", "cpu")(read_image(pairs / "low/1.png") / 255.0)
    expected = psnr(result, read_image(pairs / "high/1.png"), "rgb8-gtmean")
    assert gamma.images[1]["name"] == "1"
    assert gamma.images[1]["psnr/rgb8-gtmean"] == pytest.approx(expected, abs=1e-3)
    assert gamma.means["psnr/rgb8"] == pytest.approx(sum(image["psnr/rgb8"] for image in gamma.images) / 4)
    assert gamma.network == "Gamma" and gamma.cost["parameters"] == 1000
    assert len(gamma.identity["weights"]) == len(gamma.identity["data"]) == 64 and gamma.identity["seed"] == 0
    pictures = tmp_path / "out/pictures/set"
    assert sorted(path.name for path in pictures.iterdir()) == ["clahe", "gamma", "input", "reference"]
    assert cv2.imread(str(pictures / "clahe/00003.jpg")).shape == (32, 40, 3)


def test_it_resumes_and_grows_by_rows(pairs, tmp_path, cheap):
    said = []
    first = measure(plan_for(pairs, ["gamma"]), tmp_path / "out", tell=said.append)
    again = measure(plan_for(pairs, ["gamma", "clahe"]), tmp_path / "out", tell=said.append)
    assert again[:2] == first and cheap == ["gamma", "clahe"]
    assert said[-3:] == ["gamma on set: measured before", "clahe: cost", "clahe on set: 4 images"]
    (pairs / "low/0.png").write_bytes((pairs / "low/1.png").read_bytes())
    changed = measure(plan_for(pairs, ["gamma"]), tmp_path / "out", tell=said.append)
    assert changed[1].means != first[1].means and said[-1] == "gamma on set: 4 images"
    measure(plan_for(pairs, ["gamma"]), tmp_path / "out", again=True, tell=said.append)
    assert said[-2:] == ["gamma: cost", "gamma on set: 4 images"]


def test_failures_are_rows_that_say_why(pairs, tmp_path, cheap, monkeypatch):
    monkeypatch.setattr(ARCH_REGISTRY, "_entries", dict(iter(ARCH_REGISTRY)))
    (tmp_path / "broken.py").write_text(BROKEN)
    plan = plan_for(pairs, ["Breaks", "absent.pth", "gamma"], plugins=[str(tmp_path / "broken.py")])
    plan.datasets["gone"] = {"type": "PairedImageDataset", "dataroot": str(tmp_path / "gone")}
    rows = {(row.model, row.dataset): row for row in measure(plan, tmp_path / "out")}
    assert len(rows) == 8
    assert rows["Breaks", "set"].error == "RuntimeError: it fell apart"
    assert "no checkpoint 'absent.pth'" in rows["absent", "set"].error
    assert "there is no folder" in rows["gamma", "gone"].error
    assert rows["gamma", "set"].error is None
    table = as_text(plan, list(rows.values()))
    assert "Breaks failed: RuntimeError: it fell apart" in table and "gamma" in table
    (tmp_path / "broken.py").write_text(BROKEN)
    said = []
    measure(plan, tmp_path / "out", tell=said.append)
    assert "Breaks on set: 4 images" in said  # what failed is tried again


def test_metrics_that_are_not_finite_are_left_empty(pairs, tmp_path, cheap):
    (pairs / "low/0.png").write_bytes((pairs / "high/0.png").read_bytes())
    plan = plan_for(pairs, ["same=gamma"])
    plan.models[0].controls["gamma"] = 1.0
    _, row = measure(plan, tmp_path / "out")
    assert row.images[0]["psnr/rgb8"] is None and row.means["psnr/rgb8"] is not None
    assert any("1 of 4 images infinite" in note for note in row.notes)


def test_notes_stand_once_below_the_table(pairs):
    rows = [row_of("DRBN", notes=["lpips is left out"]), row_of("other", notes=["lpips is left out", "niqe: 1 of 15"])]
    lines = as_text(plan_for(pairs), rows).splitlines()
    assert lines[-2:] == ["note: lpips is left out", "note on other: niqe: 1 of 15"]


def row_of(model="DRBN", dataset="LOLv1", images=15, psnr=19.0, **changes):
    figures = {"psnr/rgb8": psnr, "psnr/rgb8-gtmean": 22.5}
    facts = {"identity": {"data": "d"}, "network": "DRBN", "better": {"psnr": "higher"}, "cost": COST, "means": figures}
    facts["images"] = [{"name": str(number), **figures} for number in range(images)]
    return Row(model, dataset, **facts | changes)


def test_published_figures_stand_beside_those_of_the_same_protocol():
    known = published(row_of())
    assert [figure.value for figure in known["psnr/rgb8"]] == [20.13, 19.86]
    assert "psnr/rgb8-gtmean" not in known
    assert (
        published(row_of(dataset="mine")) == published(row_of(network=None)) == {}
        and published(row_of(), "Retinexformer")["psnr/rgb8"][0].value == 25.16
    )
    plan = read_plan(models=["DRBN"], datasets=["LOLv1"])
    lines = as_markdown(plan, [row_of(), row_of("other", images=5, network="x")]).splitlines()
    header = [cell.strip() for cell in lines[4].split("|")]
    row = dict(zip(header, (cell.strip() for cell in lines[6].split("|")), strict=True))
    assert row["published psnr/rgb8"] == "20.13" and row["difference"] == "-1.13"
    assert "20.13 (15 images)" in as_markdown(plan, [row_of(images=5)]) and "-1.13*" in as_markdown(
        plan, [row_of(images=5)]
    )


def test_every_published_figure_names_metric_protocol_network_and_source():
    assert len(entries()) >= 10
    for entry in entries():
        assert entry["source"] and entry["images"] > 0
        assert "network" not in entry or entry["network"] in dict(iter(ARCH_REGISTRY))
        for column, value in entry["figures"].items():
            metric, protocol = column.rsplit("/", 1)
            assert protocol in PROTOCOLS and METRIC_REGISTRY.get(metric) and value > 0


def test_tables_hold_every_row(tmp_path):
    plan = read_plan(models=["DRBN"], datasets=["LOLv1"])
    rows = [row_of(), row_of("bad", error="out of memory", means={}, images=0)]
    write_tables(plan, rows, tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (
        first["psnr/rgb8"] == "19.0" and first["published psnr/rgb8"] == "20.13" and first["latency_median"] == "0.02"
    )
    assert second["error"] == "out of memory" and second["psnr/rgb8"] == ""
    stored = read_results(tmp_path)
    assert [Row(**row) for row in stored["rows"]] == rows


def test_differences_and_their_tolerances():
    stored = {"rows": [json.loads(json.dumps(vars(row_of())))]}
    tolerances = read_tolerances(["ssim=0.1"])
    assert differences(stored, [row_of(psnr=19.009)], tolerances) == []
    (moved,) = differences(stored, [row_of(psnr=19.02)], tolerances)
    assert moved == "DRBN on LOLv1: psnr/rgb8 was 19 and is 19.02; 0.01 is allowed"
    assert differences(stored, [row_of(psnr=19.02)], read_tolerances(["psnr=0.05"])) == []
    assert "fails now: no memory" in differences(stored, [row_of(error="no memory")], tolerances)[0]
    assert "not measured any more" in differences(stored, [], tolerances)[0]
    assert "data differ" in differences(stored, [row_of(identity={"data": "e"})], tolerances)[0]
    (retrained,) = differences(stored, [row_of(psnr=18.0, identity={"data": "d", "weights": "w"})], tolerances)
    assert retrained.endswith("(with other weights)")
    larger = row_of(cost=COST | {"parameters": 7})
    assert differences(stored, [larger], tolerances) == ["DRBN on LOLv1: parameters were 0 and are 7"]
    with pytest.raises(UserError, match="write it like"):
        read_tolerances(["psnr"])


def test_the_command_and_its_check(pairs, tmp_path, cheap, capsys, monkeypatch):
    monkeypatch.setattr(runs, "measure_cost", lambda *_: COST)
    out = str(tmp_path / "out")
    words = ["--models", "gamma", "--data", f"set={pairs}", "--metrics", "psnr", "--device", "cpu"]
    assert cli.main(["benchmark", *words, "-o", out]) == 0
    assert {"index.html", "results.csv", "results.json", "results.md"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert "gamma" in capsys.readouterr().out
    assert cli.main(["benchmark", "--check", out, "--device", "cpu"]) == 0
    assert "nothing moved" in capsys.readouterr().out
    file = tmp_path / "out/results.json"
    stored = json.loads(file.read_text())
    stored["rows"][1]["means"]["psnr/rgb8"] += 0.5
    file.write_text(json.dumps(stored))
    assert cli.main(["benchmark", "--check", out, "--device", "cpu"]) == 1
    assert "gamma on set: psnr/rgb8 was" in capsys.readouterr().out
    assert cli.main(["benchmark", "--check", out, "--device", "cpu", "--tolerance", "psnr=1"]) == 0
    assert cli.main(["benchmark", "--check", str(tmp_path / "nothing")]) == 2
    assert cli.main(["benchmark", *words[:3], str(pairs), "absent", "-o", out, "--models", "absent"]) == 2


def measure_in_a_group(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    runs.measure_cost = lambda *_: COST
    said = []
    rows = measure(plan_for(folder / "pairs"), folder / "out", tell=said.append)
    (folder / f"{rank}.json").write_text(json.dumps([[row.means, row.images, row.cost] for row in rows]))
    assert bool(said) == (rank == 0)
    disconnect()


def test_two_processes_share_the_images(tmp_path, cheap):
    write_pairs(tmp_path / "pairs")
    together(measure_in_a_group, tmp_path)
    alone = measure(plan_for(tmp_path / "pairs"), tmp_path / "alone")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [means for means, _, _ in first] == [row.means for row in alone]
    assert sorted(path.name for path in (tmp_path / "out/pictures/set/gamma").iterdir()) == [
        f"0000{number}.jpg" for number in range(4)
    ]
