"""Every option file in options/ loads, resolves, and names a network that can be built."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llie.archs import card_of
from llie.engine.schedules import create_schedule
from llie.errors import UserError
from llie.options import dump_options, load_options
from llie.options.files import parse_yaml
from llie.registry import ARCH_REGISTRY, build

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = sorted(path for phase in ("train", "test") for path in (OPTIONS / phase).rglob("*.yml"))
DATASETS = (
    "LOLv1",
    "LOLv2_real",
    "LOLv2_syn",
    "SID",
    "SMID",
    "SDSD_indoor",
    "SDSD_outdoor",
    "SICE",
    "LOLBlur",
    "SOTS_indoor",
    "custom",
)


def name_of(path: Path, folder: Path = OPTIONS) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


TRAINED_AND_TESTED = sorted(
    set.intersection(
        *({name_of(path, OPTIONS / phase) for path in (OPTIONS / phase).rglob("*.yml")} for phase in ("train", "test"))
    )
)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_it_resolves_and_its_network_builds(file, caplog):
    caplog.set_level(logging.WARNING)
    phase = file.relative_to(OPTIONS).parts[0]
    options = load_options(file, phase=phase)
    assert "without effect" not in caplog.text
    assert file.read_text(encoding="utf-8").startswith("# ")
    with torch.device("meta"):
        build(ARCH_REGISTRY, options["network_g"])
    assert all(not spec.get("name") or name for name, spec in options["datasets"].items())
    if phase == "test":
        learned = card_of(ARCH_REGISTRY.get(options["network_g"]["type"])).learned
        assert bool(options["path"]["pretrain_network_g"]) is learned
    assert parse_yaml(dump_options(options), "printed")[0] == options


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_has_its_files(dataset, phase):
    assert (OPTIONS / phase / f"{dataset}.yml").is_file()


def test_runs_do_not_share_a_name():
    names = [load_options(file)["name"] for file in FILES if "train" in file.parts]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", TRAINED_AND_TESTED)
def test_a_test_file_measures_what_its_training_validates(name):
    """The weights that the training writes, in the same network, on the same data, by the same figures."""
    trained = load_options(OPTIONS / "train" / f"{name}.yml")
    tested = load_options(OPTIONS / "test" / f"{name}.yml", phase="test")
    weights = Path(tested["path"]["pretrain_network_g"])
    assert weights.parent == Path("experiments", trained["name"], "models")
    assert weights.name == ("net_g_latest.pth" if name.startswith("demo") else "net_g_best.pth")
    assert tested["network_g"] == trained["network_g"]
    assert tested["datasets"]["test"] == trained["datasets"]["val"]
    for key in ("metrics", "protocols", "controls", "average"):
        assert tested["val"][key] == trained["val"][key], key


def test_the_main_recipe_is_the_published_one():
    options = load_options(OPTIONS / "train" / "LOLv1.yml")
    train = options["train"]
    assert options["datasets"]["train"]["gt_size"] == 400
    assert train["total_epochs"] == 1500
    assert train["optim_g"] == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.999]}
    assert train["scheduler"] == {"type": "HVICosine", "warmup_epochs": 3, "eta_min": 1e-7}
    assert train["clip_grad_norm"] is None
    [loss] = train["losses"]
    assert loss["preds"] == {"out": 1.0, "base": 0.5}
    assert loss["gt_mean"] == "hvi"
    assert (loss["l1"], loss["ssim"], loss["edge"], loss["perceptual"], loss["hvi_weight"]) == (
        1.0,
        0.5,
        50.0,
        0.01,
        1.0,
    )


@pytest.mark.parametrize(
    "name", ["SOTS_indoor", "hdm/Rain100L", "hdm/Rain100H", "hdm/Rain200H", "hdm/LOLv1", "hdm/LOLv2_real"]
)
def test_hdm_scales_its_input_and_finds_regions_as_the_task_demands(name):
    trained = load_options(OPTIONS / "train" / f"{name}.yml")
    dark = "LOL" in name
    assert trained["network_g"]["normalise"] is not dark and trained["network_g"]["gamma"] == (0.25 if dark else None)
    train, data = trained["train"], trained["datasets"]["train"]
    assert (data["gt_size"], data["batch_size_per_gpu"], train["total_iter"]) == (240, 16, 100_000)
    assert data["use_hflip"] and data["use_rot"], "all eight orientations"
    assert train["optim_g"] == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.999]}
    rate = create_schedule(train["scheduler"], train["total_iter"], warmup_iter=train["warmup_iter"])
    assert rate(1e-4, 1) == 1e-4 and rate(1e-4, 50_001) == pytest.approx(5e-5) and rate(1e-4, 100_000) < 1e-12


def test_the_example_in_the_readme_loads(tmp_path):
    example = re.search(r"```yaml\n(.*?)```", (OPTIONS / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "options.yml").write_text(example.replace("../_base_", f"{OPTIONS}/_base_"), encoding="utf-8")
    train = load_options(tmp_path / "options.yml")["train"]
    assert train["scheduler"] == {"type": "cosine"}
    assert [term["type"] for term in train["losses"]] == ["L1Loss", "SSIMLoss"]


def test_every_base_file_is_used():
    """Those of networks are a choice for the user as well."""
    bases = {path.resolve() for path in (OPTIONS / "_base_").rglob("*.yml") if path.parent.name != "archs"}
    used: set[Path] = set()

    def visit(file: Path) -> None:
        named = parse_yaml(file.read_text(encoding="utf-8"), str(file))[0].get("_base_", [])
        for base in [named] if isinstance(named, str) else named:
            used.add((file.parent / base).resolve())
            visit(file.parent / base)

    for file in FILES:
        visit(file)
    assert bases <= used


def test_they_are_found_by_name_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_options("options/train/demo.yml")["name"] == "demo"
    with pytest.raises(UserError, match=r"cannot read the option file .*dmo\.yml.*In that folder: .*demo\.yml"):
        load_options("options/train/dmo.yml")
    own = tmp_path / "options" / "train" / "demo.yml"
    own.parent.mkdir(parents=True)
    text = (OPTIONS / "train" / "demo.yml").read_text(encoding="utf-8")
    own.write_text(text.replace("name: demo", "name: mine", 1), encoding="utf-8")
    assert load_options("options/train/demo.yml")["name"] == "mine"


def test_a_built_package_holds_them_and_its_data(tmp_path):
    repository = OPTIONS.parent
    command = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=repository, check=True, capture_output=True)
    built = tmp_path / "lib" / "llie"
    assert {
        p.relative_to(built / "options" / "shipped") for p in built.joinpath("options", "shipped").rglob("*.yml")
    } == {p.relative_to(OPTIONS) for p in OPTIONS.rglob("*.yml")}
    for pattern in ("*.npz", "*.c", "*.safetensors", "*.md", "py.typed", "*.html", "*.css", "*.js", "*.yml"):
        source = [p.relative_to(repository / "llie") for p in (repository / "llie").rglob(pattern)]
        assert source and all((built / path).is_file() for path in source)
