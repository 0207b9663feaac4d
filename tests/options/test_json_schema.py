"""The JSON Schema of option files: current, true of the shipped files, and strict about mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from llie.options.files import parse_yaml
from llie.options.json_schema import json_schema

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = sorted(OPTIONS.rglob("*.yml"))


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft7Validator(json.loads(json.dumps(json_schema())))


def test_the_committed_schema_is_current(tmp_path):
    # In a process of its own: plug-ins that other tests load would be in it, too.
    command = [sys.executable, "-m", "llie", "options", "schema", "-o", str(tmp_path / "schema.json")]
    subprocess.run(command, cwd=OPTIONS.parent, check=True)
    current = (tmp_path / "schema.json").read_text(encoding="utf-8")
    committed = (OPTIONS / "schema.json").read_text(encoding="utf-8")
    assert committed == current, "run: llie options schema -o options/schema.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(OPTIONS).as_posix())
def test_shipped_files_are_valid(file, validator):
    validator.validate(parse_yaml(file.read_text(encoding="utf-8"), file.name)[0])


def test_it_is_a_schema_whose_defaults_are_valid(validator):
    validator.check_schema(validator.schema)
    checked = 0
    rest = [validator.schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            if "default" in part and "$ref" not in part and isinstance(part.get("description", ""), str):
                assert validator.evolve(schema=part).is_valid(part["default"]), part
                checked += 1
            rest += part.values()
        elif isinstance(part, list):
            rest += part
    assert checked > 150


@pytest.mark.parametrize(
    "text",
    [
        "network_g: {type: HVISMM, gamma: 0.4}",
        "network_g: {width: 8}",  # the type may be inherited
        "network_g: {type: MyOwn, anything: [1, 2]}",
        "network_g: {type: mamballie_48, d_state: 16}",
        "network_g: {type: LFPV, host: {type: HVISMM, gamma: 0.3}, at: trunk}",
        "network_G: {which_model_G: low_light}",
        "train: {total_iter: 1e3, losses: [{type: L1Loss, loss_weight: 2}], pixel_opt: {type: MSELoss}}",
        "train: {losses: {colour: {type: L1Loss, pred: base}}, scheduler: {_delete_: true, type: cosine, T_max: 9}}",
        "datasets: {train: {type: Dataset_PairedImage, scale: 1, gt_size: 128}, val_2: {name: x}}",
        "val: {metrics: {psnr: , mine: {type: niqe, crop_border: 2}}, protocols: [y8]}",
        "num_gpu: auto\npath:\n",
    ],
)
def test_valid(text, validator):
    validator.validate(parse_yaml(text, "text")[0])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("network: {type: HVISMM}", ""),
        ("network_g: {type: HVISMM, gama: 0.4}", "network_g"),
        ("network_g: {type: HVISMM, gamma: high}", "network_g.gamma"),
        ("network_g: {type: LFPV, host: {type: HVISMM, gama: 0.3}}", "network_g.host"),
        ("train: {total_iter: 1.5}", "train.total_iter"),
        ("train: {total_iter: 0}", "train.total_iter"),
        ("train: {losses: [{type: L1Loss, wieght: 1}]}", "train.losses.0"),
        ("train: {scheduler: {type: cosine, Tmax: 9}}", "train.scheduler"),
        ("train: {amp: half}", "train.amp"),
        ("datasets: {training: {type: PairedImageDataset}}", "datasets"),
        ("datasets: {train: {type: PairedImageDataset, dataroot_gtt: x}}", "datasets.train"),
        ("val: {protocols: [rgb9]}", "val.protocols.0"),
        ("val: {metrics: {mine: {type: psnr, crop: 2}}}", "val.metrics.mine"),
    ],
)
def test_mistakes(text, place, validator):
    errors = list(validator.iter_errors(parse_yaml(text, "text")[0]))
    assert [".".join(map(str, error.absolute_path)) for error in errors] == [place]


def test_texts_come_with_the_keys(validator):
    definitions = validator.schema["definitions"]
    assert (
        "range of random exponents"
        in validator.schema["properties"]["train"]["properties"]["random_gamma"]["description"]
    )
    assert "null: whole images" in definitions["dataset.SICEDataset"]["properties"]["gt_size"]["description"]
    assert definitions["network.SNRAware"]["properties"]["nf"] | {"description": ""} == {
        "description": "",
        "type": "integer",
        "default": 64,
    }
