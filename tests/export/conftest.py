"""One exported network that the tests share: a record takes seconds."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import llie
from llie import cli
from tests.needs import OLD_TORCH, OLDEST_TORCH


class Exported(NamedTuple):
    """What `llie export` made."""

    network: nn.Module
    checkpoint: Path
    file: Path
    said: str


class Brighten(nn.Module):
    """A network with a number, a switch that is none, and its own padding."""

    def forward(self, x, gain: float = 2.0, size: tuple[int, int] | None = None):
        return x * gain


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    if torch.__version__ < OLDEST_TORCH:
        pytest.skip(OLD_TORCH)
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = llie.create_network("DRBN", width=2, growth=1, convs=1, recursions=1).eval()
    torch.save({"params": network.state_dict()}, folder / "net.pth")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        code = cli.main(["export", str(folder / "net.pth"), "-o", str(folder / "net.onnx"), "--licence", "CC0-1.0"])
    assert code == 0, said
    return Exported(network, folder / "net.pth", folder / "net.onnx", "\n".join(said))
