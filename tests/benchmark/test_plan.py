"""Plans from words and files, and their mistakes."""

import pytest

from llie.benchmark import read_plan
from llie.benchmark.plan import ModelSpec, known_datasets, plan_of
from llie.errors import UserError


def test_words(pairs, tmp_path):
    (tmp_path / "photos").mkdir()
    plan = read_plan(models=["dawn", "mine=runs/best.pth"], datasets=[f"set={pairs}", f"{tmp_path}/photos"])
    assert plan.models == [ModelSpec("dawn", "dawn"), ModelSpec("mine", "runs/best.pth")]
    assert plan.datasets["set"]["type"] == "PairedImageDataset"
    assert plan.datasets["set"]["dataroot_gt"] == str(pairs / "high")
    assert plan.datasets["photos"] == {"type": "UnpairedImageDataset", "dataroot_lq": str(tmp_path / "photos")}
    assert plan.protocols == ["rgb8", "rgb8-gtmean"]


def test_known_data_sets():
    known = known_datasets()
    assert {"LOLv1", "LOLv2_real", "SMID", "DICM"} <= known.keys()
    assert known["LOLv1"]["type"] == "PairedImageDataset"
    assert read_plan(models=["clahe"], datasets=["LOLv1"]).datasets["LOLv1"] == known["LOLv1"]


def test_a_file_and_words_that_add_to_it(pairs, tmp_path):
    file = tmp_path / "plan.yml"
    file.write_text(
        f"models: [dawn, {{name: soft, model: gamma, controls: {{gamma: 0.7}}}}]\n"
        f"datasets: {{a: {pairs}, LOLv1: {{type: PairedImageDataset, dataroot: x}}}}\n"
        "protocols: [rgb-float]\ncost: {size: [64, 48], repeats: 3}\nseed: 4\n"
    )
    plan = read_plan(file, models=["clahe"], metrics=["mae"])
    assert [model.name for model in plan.models] == ["dawn", "soft", "clahe"]
    assert plan.models[1].controls == {"gamma": 0.7}
    assert plan.protocols == ["rgb-float", "rgb-float-gtmean"] and plan.seed == 4
    assert plan.cost.size == (64, 48) and plan.metrics == {"mae": {"type": "mae"}}
    assert plan_of(plan.as_dict(), "stored") == plan


@pytest.mark.parametrize(
    "text, message",
    [
        ("modles: [dawn]", "did you mean 'models'"),
        ("models: [dawn]", "no data sets"),
        ("models: [dawn, dawn]\ndatasets: [LOLv1]", "two models are called 'dawn'"),
        ("models: [{modle: dawn}]\ndatasets: [LOLv1]", "with the key 'model'"),
        ("models: [{model: dawn, wieghts: x}]\ndatasets: [LOLv1]", "no 'wieghts'"),
        ("models: [dawn]\ndatasets: [LOLv7]", "did you mean 'lolv1'"),
        ("models: [input=dawn]\ndatasets: [LOLv1]", "cannot be the name of a file"),
        ("models: [dawn]\ndatasets: [LOLv1]\ncost: {sizes: 3}", "did you mean 'size'"),
        ("models: [dawn]\ndatasets: [LOLv1]\naverage: clip", "image or folder"),
    ],
)
def test_mistakes(text, message, tmp_path):
    file = tmp_path / "plan.yml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_plan(file)
    assert message in str(caught.value).replace("Did", "did").replace("'LOLv1'", "'lolv1'") and "plan.yml" in str(
        caught.value
    ) + ("plan.yml" if "LOLv7" in text else "")
