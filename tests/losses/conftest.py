"""Backbones filled with known numbers, in files as torchvision would write them."""

import pytest
import torch

from llie.losses.vgg import layer_names
from tests.golden import fill


@pytest.fixture
def vgg_file(tmp_path):
    """Writes VGG19 weights from golden names (conv1_1.weight ...), shapes and seed; returns the path."""

    def write(shapes, seed):
        names = layer_names("vgg19")
        state = {}
        for key, value in fill.fill(shapes, seed).items():
            layer, kind = key.split(".")
            state[f"features.{names.index(layer)}.{kind}"] = torch.from_numpy(value)
        path = tmp_path / "vgg19.pth"
        torch.save(state, path)
        return str(path)

    return write
