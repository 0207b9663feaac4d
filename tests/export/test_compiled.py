"""Files of `llie export --compile`: machine code that computes what the network does, where it was made."""

import shutil

import numpy as np
import pytest
import torch

import llie
from llie import cli
from llie.data.readers import read_image, write_image
from llie.errors import UserError
from llie.export import compiled
from llie.export.program import ProgramNetwork
from llie.export.write import export
from tests.export.conftest import Brighten
from tests.needs import OLD_TORCH, OLDEST_TORCH, record_only


@pytest.fixture(scope="module")
def compiled_file(tmp_path_factory):
    """A file that brightens three times unless `gain` says otherwise; compiling takes 20 seconds of one core."""
    if torch.__version__ < OLDEST_TORCH:
        pytest.skip(OLD_TORCH)
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler on the path: g++")
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache"))
        said: list[str] = []
        found = export(Brighten().eval(), folder / "net.pt2", {"gain": 3.0}, compile=True, report=said.append)
    assert [difference.controls for difference in found] == [{"gain": 2.25}, {}, {}]
    assert max(difference.largest for difference in found) < 1e-6
    assert "compiling 2 operations ..." in said  # times, clip
    assert not list(folder.glob(".*"))
    return folder / "net.pt2"


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 16, 12), (1, 3, 2, 1), (2, 3, 31, 40)])
def test_any_size_and_batch(compiled_file, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.3
    network = ProgramNetwork(compiled_file)
    assert torch.allclose(network(x), x * 3, atol=1e-6)
    assert torch.allclose(network(x, gain=0.5), x / 2, atol=1e-6)
    assert network.facts["network"] == "Brighten" and network.control_names == ["gain"]


def test_the_command_takes_it_as_model(compiled_file, tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 60, (21, 34, 3), np.uint8)
    write_image(tmp_path / "a.png", picture)
    words = ["enhance", str(tmp_path / "a.png"), "--model", str(compiled_file), "-o", str(tmp_path / "b.png")]
    assert cli.main(words) == 0
    assert np.array_equal(read_image(tmp_path / "b.png"), picture * 3)
    assert np.array_equal(llie.load(compiled_file, gain=2.0)(picture), picture * 2)
    assert cli.main([*words, "--overwrite", "--device", "cuda"]) == 2
    assert "net.pt2 was made for the CPU" in capsys.readouterr().err


def test_another_kind_of_processor(compiled_file, monkeypatch):
    monkeypatch.setattr(compiled, "_machine", lambda: "Linux aarch64, DEFAULT")
    with pytest.raises(UserError, match=r"net\.pt2 was compiled for .*, and this is Linux aarch64.*export it again"):
        llie.load(compiled_file)


def test_a_file_that_was_cut_short(compiled_file, tmp_path):
    (tmp_path / "short.pt2").write_bytes(compiled_file.read_bytes()[:-3000])
    with pytest.raises(UserError, match=r"short\.pt2 is damaged, or no file of llie export"):
        llie.load(tmp_path / "short.pt2")


@record_only
def test_without_a_compiler(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    assert cli.main(["export", "dawn", "-o", str(tmp_path / "net.pt2"), "--compile"]) == 2
    said, errors = capsys.readouterr()
    assert errors.startswith("error: --compile needs a C++ compiler") and len(errors.splitlines()) == 1
    assert said == "" and not list(tmp_path.iterdir())


@record_only
def test_what_is_not_compiled(tmp_path):
    with pytest.raises(UserError, match=r"only a \.pt2 file can be compiled \(--compile\), not .*net\.onnx"):
        export(Brighten().eval(), tmp_path / "net.onnx", compile=True)
    with pytest.raises(SystemExit):
        cli.main(["export", "dawn", "-o", str(tmp_path / "net.pt2"), "--compile", "--int8"])
