"""Checkpoints of every layout load; everything else is one message that names the file and the mend."""

import argparse
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llie.archs import Card
from llie.errors import UserError
from llie.registry import ARCH_REGISTRY
from llie.weights import find_weights, identify, load_weights, read_checkpoint, resolve_checkpoint, state_dict_of


class Toy(nn.Module):
    """A network whose official checkpoints call its layer `conv_first`."""

    card = Card(
        official_keys=lambda state: {key.replace("conv_first.", "stem."): value for key, value in state.items()},
        detect=lambda state: {"width": len(state["stem.bias"])} if set(state) == {"stem.weight", "stem.bias"} else None,
    )

    def __init__(self, width: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._entries, "AToy", Toy)


def reference() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.weight": torch.randn(4, 3, 1, 1, generator=generator),
        "stem.bias": torch.randn(4, generator=generator),
    }


def assert_loaded(network: nn.Module) -> None:
    for key, value in reference().items():
        assert torch.equal(network.state_dict()[key], value)


WRAPPINGS = {
    "bare": lambda s: s,
    "basicsr": lambda s: {"params": s},
    "ema preferred": lambda s: {"params": {k: v * 0 for k, v in s.items()}, "params_ema": s},
    "hvi-smm training": lambda s: {"model_state_dict": s, "epoch": 3, "optimizer_state_dict": {"state": {}}},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "data parallel": lambda s: {"module." + k: v for k, v in s.items()},
    "compiled": lambda s: {"_orig_mod." + k: v for k, v in s.items()},
    "compiled, then parallel": lambda s: {"params": {"module._orig_mod." + k: v for k, v in s.items()}},
    "swa": lambda s: {"n_averaged": torch.tensor(7), **{"module." + k: v for k, v in s.items()}},
    "lightning": lambda s: {"state_dict": {"model." + k: v for k, v in s.items()}, "pytorch-lightning_version": "2.5"},
    "lightning beside a loss": lambda s: {
        "state_dict": {**{"net_g." + k: v for k, v in s.items()}, "loss.vgg.weight": torch.zeros(2)}
    },
    "lightning, compiled, official names": lambda s: {
        "state_dict": {"model._orig_mod." + k.replace("stem.", "conv_first."): v for k, v in s.items()}
    },
    "ema preferred to model": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s},
    "netG": lambda s: {"netG": s, "netD": {"a": torch.zeros(1)}},
    "net_g": lambda s: {"net_g": s, "net_d": {"a": torch.zeros(1)}},
    "generator": lambda s: {"generator": {"state_dict": s}, "discriminator": {"state_dict": {"a": torch.zeros(1)}}},
    "an average without names": lambda s: {"ema": {"decay": 0.9, "shadow_params": [torch.zeros(1)]}, "model": s},
    "counted by thop": lambda s: s | {k: torch.zeros(1) for k in ("total_ops", "stem.total_ops", "stem.total_params")},
    "official names": lambda s: {k.replace("stem.", "conv_first."): v for k, v in s.items()},
    "official names, parallel": lambda s: {k.replace("stem.", "module.conv_first."): v for k, v in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_layout_loads(wrapping, tmp_path):
    torch.save(WRAPPINGS[wrapping](reference()), tmp_path / "net.pth")
    assert_loaded(load_weights(Toy(), tmp_path / "net.pth"))
    assert_loaded(load_weights(Toy(), WRAPPINGS[wrapping](reference())))


def test_safetensors_and_old_pickle_format(tmp_path):
    save_file(reference(), tmp_path / "net.safetensors")
    torch.save(reference(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_loaded(load_weights(Toy(), tmp_path / "net.safetensors"))
    assert_loaded(load_weights(Toy(), tmp_path / "old.pt"))


def test_prefer_chooses_between_plain_and_averaged_weights():
    both = {"params": {"a": torch.zeros(1)}, "params_ema": {"a": torch.ones(1)}}
    assert state_dict_of(both)["a"].item() == 1
    assert state_dict_of(both, prefer="params")["a"].item() == 0
    both = {"ema": both["params_ema"], "net_g": both["params"]}
    assert state_dict_of(both)["a"].item() == 1
    assert state_dict_of(both, prefer="params")["a"].item() == 0


def test_misfit_counts_and_names_what_is_wrong(registered):
    state = reference()
    del state["stem.bias"]
    state["head.weight"] = torch.zeros(1)
    state["stem.weight"] = torch.zeros(8, 3, 1, 1)
    with pytest.raises(UserError) as caught:
        load_weights(Toy(), state)
    message = str(caught.value)
    assert "does not fit Toy" in message
    assert "1 of 2 tensors missing: stem.bias" in message
    assert "1 of 2 tensors unexpected: head.weight" in message
    assert "stem.weight ((8, 3, 1, 1) in the checkpoint, (4, 3, 1, 1) in the network)" in message
    assert "not look like any registered network" in message


def test_misfit_says_which_network_it_looks_like(registered):
    with pytest.raises(UserError, match=r"looks like AToy\(width=4\)"):
        load_weights(Toy(width=8), reference())


def test_not_strict_loads_what_fits_but_not_nothing():
    network = Toy()
    load_weights(network, {"stem.bias": reference()["stem.bias"], "other": torch.zeros(1)}, strict=False)
    assert torch.equal(network.stem.bias, reference()["stem.bias"])
    with pytest.raises(UserError, match="2 of 2 tensors missing"):
        load_weights(network, {"other": torch.zeros(1)}, strict=False)


def test_identify(registered):
    assert identify(WRAPPINGS["official names"](reference())) == ("AToy", {"width": 4})
    assert identify({"nobody.knows": torch.zeros(1)}) is None


def test_training_state_is_told_from_weights():
    with pytest.raises(UserError, match=r"training state.*net_g"):
        state_dict_of({"optimizers": [], "iter": 3})
    with pytest.raises(UserError, match="without weights of a network; it contains epoch"):
        state_dict_of({"epoch": 3})


BAD_FILES = {
    "a web page": (b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "web page"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "empty": (b"", "is empty"),
    "TorchScript": (None, r"is a TorchScript archive.*torch\.jit\.load"),
    "noise": (
        bytes(range(256)) * 4,
        "damaged.*; copy or download it again",
    ),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_that_are_not_checkpoints_are_named(kind, suffix, tmp_path):
    content, message = BAD_FILES[kind]
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content) if content is not None else torch.jit.script(nn.Conv2d(3, 4, 1)).save(path)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_file(suffix, keep, tmp_path):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(reference(), whole)
    else:
        save_file(reference(), whole)
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


def test_code_in_a_pickle_is_refused_and_its_class_named(tmp_path):
    torch.save({"state_dict": reference(), "args": argparse.Namespace(lr=1)}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"argparse\.Namespace.*weights_only=False"):
        read_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize("new", [True, False], ids=["new format", "old format"])
@pytest.mark.parametrize("kind", ["whole network", "beside arguments", "bare beside arguments", "TorchScript"])
def test_the_advice_for_a_refused_file_works(tmp_path, kind, new, monkeypatch):
    path, network = tmp_path / "net.pth", nn.Sequential()
    network.stem = Toy().stem
    network.load_state_dict(reference())
    if kind == "TorchScript":
        torch.jit.script(network).save(path)
    else:
        strange = {"args": argparse.Namespace(lr=1)}
        content = {"state_dict": reference(), "optimizer": {"param_groups": [{}]}, **strange}
        kinds = {"whole network": network, "beside arguments": content, "bare beside arguments": reference() | strange}
        torch.save(kinds[kind], path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match="extract its tensors") as caught:
        read_checkpoint(path)
    assert ("torch.nn.modules.container.Sequential" in str(caught.value)) == (kind == "whole network")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value)[str(caught.value).index("import torch;") :], {})
    assert_loaded(load_weights(Toy(), tmp_path / "clean.pth"))


def test_the_content_counts_not_the_ending(tmp_path):
    save_file(reference(), tmp_path / "net.pth")
    torch.save(reference(), tmp_path / "net.safetensors")
    assert_loaded(load_weights(Toy(), tmp_path / "net.pth"))
    assert_loaded(load_weights(Toy(), tmp_path / "net.safetensors"))


def test_a_network_that_calls_its_layers_as_others_call_wrappers():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Toy()

    network = load_weights(Wrapped(), {f"model.{key}": value for key, value in reference().items()})
    assert_loaded(network.model)
    assert_loaded(load_weights(Toy(), network.state_dict()))


def test_prefixes_of_lightning_are_seen_through(registered):
    wrapped = {f"model.{key}": value for key, value in reference().items()}
    assert identify(wrapped) == ("AToy", {"width": 4})
    with pytest.raises(UserError, match=r"looks like AToy\(width=4\)"):
        load_weights(Toy(width=8), wrapped)


def test_missing_file_and_folder_suggest_what_is_there(tmp_path):
    torch.save(reference(), tmp_path / "net_g_latest.pth")
    with pytest.raises(UserError, match=r"net_g_latest\.pth"):
        read_checkpoint(tmp_path / "net_g_lates.pth")
    with pytest.raises(UserError, match=r"is a folder.*net_g_latest\.pth"):
        read_checkpoint(tmp_path)


def test_not_a_dictionary(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="contains a list"):
        read_checkpoint(tmp_path / "list.pth")


def test_run_folder_gives_best_then_latest_then_newest(tmp_path, monkeypatch):
    models = tmp_path / "experiments" / "run" / "models"
    models.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("net_g_900", "net_g_1000", "net_g_latest", "net_g_best"):
        torch.save(reference(), models / f"{name}.pth")
        expected = models / f"{name}.pth"
        assert resolve_checkpoint("run") == expected
        assert resolve_checkpoint("experiments/run").resolve() == expected
        assert resolve_checkpoint(str(expected)) == expected
    with pytest.raises(UserError, match="or a run under experiments"):
        resolve_checkpoint("rum")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no networks"):
        resolve_checkpoint("empty")


def fake_hub(monkeypatch, files: dict[str, Path]) -> list[tuple[str, str]]:
    """A stand-in for huggingface_hub that holds `files`; returns the list of what was asked for."""
    asked: list[tuple[str, str]] = []
    hub, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError,), {})

    def download(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        if filename not in files:
            raise errors.EntryNotFoundError(filename)
        return str(files[filename])

    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_hub_is_asked_only_for_hf_names(tmp_path, monkeypatch):
    asked = fake_hub(monkeypatch, {"pytorch_model.bin": tmp_path / "w.bin", "a/b.pth": tmp_path / "b.pth"})
    assert resolve_checkpoint("hf:owner/repo") == tmp_path / "w.bin"
    assert asked == [("owner/repo", "model.safetensors"), ("owner/repo", "pytorch_model.bin")]
    assert resolve_checkpoint("hf:owner/repo/a/b.pth") == tmp_path / "b.pth"
    with pytest.raises(UserError, match=r"contains no c\.pth"):
        resolve_checkpoint("hf:owner/repo/c.pth")
    with pytest.raises(UserError, match="OWNER/REPO"):
        resolve_checkpoint("hf:owner")
    count = len(asked)
    with pytest.raises(UserError):
        resolve_checkpoint("owner/repo")
    assert len(asked) == count


def test_hub_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'llie\[hub\]'"):
        resolve_checkpoint("hf:owner/repo")


def test_find_weights_looks_in_option_then_folder_then_hub(tmp_path, monkeypatch):
    hub, mine = tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "mine"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("LLIE_WEIGHTS", str(mine))
    assert find_weights("vgg.pth") is None
    for folder in (hub, mine):
        folder.mkdir(parents=True)
        (folder / "vgg.pth").touch()
        assert find_weights("vgg.pth") == folder / "vgg.pth"
    (tmp_path / "own.pth").touch()
    assert find_weights("vgg.pth", tmp_path / "own.pth") == tmp_path / "own.pth"
    assert find_weights("vgg.pth", hub) == hub / "vgg.pth"
    with pytest.raises(UserError, match="set the option to"):
        find_weights("vgg.pth", tmp_path / "nowhere.pth")


def test_paths_count_from_the_repository_too(tmp_path, monkeypatch):
    monkeypatch.setattr("llie.weights.find.__file__", str(tmp_path / "llie" / "weights" / "find.py"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = tmp_path / "experiments" / "run" / "models" / "net_g_best.pth"
    file.parent.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, file)
    for text in ("run", "experiments/run", "experiments/run/models/net_g_best.pth"):
        assert resolve_checkpoint(text) == file


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_beside_the_weights_are_read_as_numbers(tmp_path, module):
    facts = {"psnr": np.float64(30.5), "step": np.int64(7), "ssims": [np.float32(0.5)], "best": np.bool_(True)}
    torch.save({"model": {"w": torch.ones(2)}, **facts}, tmp_path / "a.pk", _use_new_zipfile_serialization=False)
    saved = (tmp_path / "a.pk").read_bytes()
    (tmp_path / "a.pk").write_bytes(re.sub(rb"numpy\.(_core|core)\.multiarray", module, saved))
    checkpoint = read_checkpoint(tmp_path / "a.pk")
    assert torch.equal(state_dict_of(checkpoint)["w"], torch.ones(2))
    assert {key: checkpoint[key] for key in facts} == {"psnr": 30.5, "step": 7, "ssims": [0.5], "best": True}
