"""Dawn: the whole in parts, training on crops with the thumbnail of the whole, and its controls."""

import pytest
import torch

import llie
from llie.archs import card_of, controls_of
from llie.inference import Enhancer
from llie.ops.bilateral_grid import make_thumbnail


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = llie.create_network("Dawn", tone_width=16, luma=4, detail_widths=(8, 16, 24)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def images(*size):
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


def test_an_untrained_network_leaves_photographs_nearly_alone():
    torch.manual_seed(0)
    x = images(1, 3, 40, 56)
    with torch.no_grad():
        assert (llie.create_network("Dawn").eval()(x) - x).abs().max() < 0.1


def test_parts_with_the_margin_of_its_card_give_the_whole(network):
    x = images(1, 3, 320, 333)
    halo = card_of(network).halo
    with torch.no_grad():
        whole = network(x)
        decision = network.decide(make_thumbnail(x))
        rows = slice(160 - halo, 240 + halo)
        region = torch.tensor([[rows.start / 320, rows.stop / 320, 0, 1]])
        part, _ = network.render(x[..., rows, :], decision, region)
    torch.testing.assert_close(part[..., halo:-halo, :], whole[..., 160:240, :], atol=1e-5, rtol=0)


def test_in_little_memory_the_enhancer_gives_the_same(network):
    x = images(2, 3, 250, 301)
    small = Enhancer(network, "cpu", memory=2 * 400 * 210 * 210)
    torch.testing.assert_close(small(x), Enhancer(network, "cpu")(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(Enhancer(network, "cpu")(x), network(x).clamp(0, 1).detach(), atol=1e-5, rtol=0)
    grey = (x * 255).round().to(torch.uint8)
    assert (small(grey).int() - Enhancer(network, "cpu")(grey).int()).abs().max() <= 1


def test_a_crop_with_the_thumbnail_of_its_photograph_gives_the_crop_of_the_result(network):
    x = images(1, 3, 240, 240)
    region = torch.tensor([[0.0, 160 / 240, 80 / 240, 1.0]])
    with torch.no_grad():
        crop = network(x[..., :160, 80:], thumbnail=make_thumbnail(x), region=region)
        torch.testing.assert_close(crop[..., :88, 72:], network(x)[..., :88, 152:], atol=1e-5, rtol=0)


def test_while_training_both_parts_are_outputs(network):
    outputs = network.train()(images(2, 3, 16, 16))
    network.eval()
    assert outputs.keys() == {"out", "toned"}
    assert outputs["out"].shape == outputs["toned"].shape == (2, 3, 16, 16)


def test_denoise_is_how_much_of_the_correction_is_applied(network):
    x = images(1, 3, 24, 32)
    with torch.no_grad():
        none, half, all_ = (network(x, denoise=amount) for amount in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + all_) / 2)
    assert not torch.equal(none, all_)
    assert controls_of(network) == ["denoise"]
