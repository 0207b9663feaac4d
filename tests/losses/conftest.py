"""Backbones filled with known numbers, in files as torchvision would write them."""

import pytest
import torch

from llie.losses.vgg import layer_names
from tests.golden import fill


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory):
    """Writes VGG19 weights from golden names (conv1_1.weight ...), shapes and seed, once; returns the path."""
    folder, written = tmp_path_factory.mktemp("vgg"), {}

    def write(shapes, seed):
        key = str((seed, shapes))
        if key not in written:
            names = layer_names("vgg19")
            state = {}
            for name, value in fill.fill(shapes, seed).items():
                layer, kind = name.split(".")
                state[f"features.{names.index(layer)}.{kind}"] = torch.from_numpy(value)
            written[key] = str(folder / f"vgg19_{len(written)}.pth")
            torch.save(state, written[key])
        return written[key]

    return write
