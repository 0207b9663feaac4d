"""The llie command: exit codes, messages without tracebacks, and each verb reaching its function."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import llie
from llie import cli
from llie.data.readers import read_image, write_image

SMALL = {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.pth"
    torch.save({"params": llie.create_network("HVISMM", **SMALL).state_dict()}, path)
    return path


def picture(path, height=20, width=30):
    write_image(path, np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8))


def test_version_and_start_without_torch():
    """Help and version must be quick: nothing heavy is imported for them."""
    program = "import sys; from llie.cli import main; print('torch' in sys.modules); main(['--version'])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["False", f"llie {llie.__version__}"]


def test_python_m_llie():
    result = subprocess.run([sys.executable, "-m", "llie", "--version"], capture_output=True, text=True)
    assert result.stdout == f"llie {llie.__version__}\n"


def test_enhance_folder_with_a_bad_file(checkpoint, tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "sub" / "b.png", 9, 33)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    words = [
        "enhance",
        str(tmp_path / "in"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(checkpoint),
        "--device",
        "cpu",
    ]
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err and "Traceback" not in captured.err
    assert "1 failed" in captured.out
    assert read_image(tmp_path / "out" / "a.png").shape == (20, 30, 3)
    assert read_image(tmp_path / "out" / "sub" / "b.png").shape == (9, 33, 3)
    (tmp_path / "in" / "broken.jpg").unlink()
    assert cli.main(words) == 0


def test_enhance_equals_the_network(checkpoint, tmp_path):
    picture(tmp_path / "a.png")
    words = ["enhance", str(tmp_path / "a.png"), "--model", str(checkpoint), "--device", "cpu"]
    assert cli.main([*words, "-o", str(tmp_path / "plain.png")]) == 0
    assert cli.main([*words, "-o", str(tmp_path / "half.png"), "--alpha-rgb", "0.5"]) == 0
    assert cli.main([*words, "-o", str(tmp_path / "set.png"), "--set", "alpha_rgb=0.5"]) == 0
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "plain.png"), llie.load(checkpoint, "cpu")(image))
    half = read_image(tmp_path / "half.png")
    assert np.array_equal(half, llie.load(checkpoint, "cpu", alpha_rgb=0.5)(image))
    assert np.array_equal(half, read_image(tmp_path / "set.png"))


def test_a_control_may_be_a_size(tmp_path):
    picture(tmp_path / "a.png")
    torch.save(llie.create_network("SNRAware", nf=8, layers=1).state_dict(), tmp_path / "net.pth")
    words = ["enhance", str(tmp_path / "a.png"), "--model", str(tmp_path / "net.pth"), "--device", "cpu"]
    assert cli.main([*words, "-o", str(tmp_path / "out.png"), "--set", "size=16,32"]) == 0
    expected = llie.load(tmp_path / "net.pth", "cpu", size=(16, 32))(read_image(tmp_path / "a.png"))
    assert np.array_equal(read_image(tmp_path / "out.png"), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png"], "no such file or folder: nowhere.png"),
        (["a.png", "--model", "nowhere.pth"], "no checkpoint 'nowhere.pth'"),
        (["a.png", "--model", "a.png"], "a.png"),
        (["a.png", "--device", "tpu9"], "no device 'tpu9'"),
        (["a.png", "--set", "alpha_s"], "write a control like alpha_s=1.3"),
        (["a.png", "--set", "size=4,x"], "write a control like alpha_s=1.3 or size=400,608"),
        (["a.png", "--set", "alpha_z=1"], "Did you mean 'alpha_s'"),
        (["a.png", "--network", "HVICIDNet"], "does not fit HVICIDNet"),
        (["a.png", "--plugin", "nowhere.py"], "nowhere.py"),
        (["a.png", "-o", "a.png"], "overwrite"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(checkpoint, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    assert cli.main(["enhance", "-o", "out", "--model", str(checkpoint), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["enhanse"], ["enhance"], ["enhance", "a.png", "--quality", "101"], ["data"]])
def test_wrong_usage_exits_with_2(words):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


def test_models_lists_networks_and_those_of_plugins(tmp_path, monkeypatch, capsys):
    from llie.registry import ARCH_REGISTRY

    monkeypatch.setattr(ARCH_REGISTRY, "_entries", dict(iter(ARCH_REGISTRY)))
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from torch import nn\nfrom llie.registry import ARCH_REGISTRY\n\n"
        "@ARCH_REGISTRY.register()\nclass Mine(nn.Conv2d):\n"
        "    def __init__(self, width: int):\n        super().__init__(3, width, 1)\n",
        encoding="utf-8",
    )
    assert cli.main(["models", "--plugin", str(plugin)]) == 0
    output = capsys.readouterr().out
    assert "HVISMM  (1,999,617 parameters)" in output
    assert "Mine  " in output


def test_train_and_test_are_handed_their_words(capsys):
    for verb in ("train", "test"):
        assert cli.main([verb, "-opt", "nowhere.yml"]) == 2
        assert "nowhere.yml" in capsys.readouterr().err


def test_data_verbs(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    assert cli.main(["data", "lmdb", str(tmp_path / "in"), str(tmp_path / "in.lmdb")]) == 0
    assert "images packed into" in capsys.readouterr().out
    assert (tmp_path / "in.lmdb" / "meta_info.txt").is_file()
    assert cli.main(["data", "lmdb", str(tmp_path / "in"), str(tmp_path / "in.lmdb")]) == 2
    assert cli.main(["data", "check", str(tmp_path / "nowhere.yml")]) == 2
    assert "nowhere.yml" in capsys.readouterr().err


@pytest.mark.parametrize("section", ["train", "test"])
def test_data_check_takes_option_files_of_either_kind(section, tmp_path, capsys):
    picture(tmp_path / "low" / "a.png")
    picture(tmp_path / "high" / "a.png")
    roots = f"dataroot_lq: {tmp_path / 'low'}, dataroot_gt: {tmp_path / 'high'}"
    text = f"name: x\ndatasets:\n  {section}: {{type: PairedImageDataset, {roots}}}\nnetwork_g: {{type: HVISMM}}\n"
    (tmp_path / "x.yml").write_text(text, encoding="utf-8")
    assert cli.main(["data", "check", str(tmp_path / "x.yml")]) == 0
    assert "1 pair" in capsys.readouterr().out
    (tmp_path / "low" / "a.png").unlink()
    assert cli.main(["data", "check", str(tmp_path / "x.yml")]) != 0


def test_compare_puts_columns_side_by_side(tmp_path, capsys):
    colours = {"low": (10, 40, 10), "high": (200, 100, 200)}
    for folder, colour in colours.items():
        for name in ("a", "b"):
            write_image(tmp_path / folder / f"{name}.png", np.full((50, 80, 3), colour, np.uint8))
    write_image(tmp_path / "high" / "alone.png", np.zeros((50, 80, 3), np.uint8))
    output = tmp_path / "sheet.png"
    assert cli.main(["compare", f"before={tmp_path / 'low'}", str(tmp_path / "high"), "-o", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    sheet = cv2.imread(str(output))
    for colour in colours.values():
        assert (sheet == colour).all(-1).sum() == 2 * 50 * 80
    assert cli.main(["compare", str(tmp_path / "low"), str(tmp_path / "nowhere"), "-o", str(output)]) == 2


def test_the_list_of_networks_fits_a_terminal(capsys):
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    addresses = [line for line in lines if "https://" in line]  # these cannot be broken
    assert addresses and max(len(line) for line in lines if line not in addresses) <= 100
