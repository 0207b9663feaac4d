import torch
from torch import nn

from llie.engine.ema import Ema


def test_parameters_are_averaged_and_buffers_copied():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    ema = Ema(network, 0.75)
    expected = [p.detach().clone() for p in network.parameters()]
    for _ in range(3):
        network(torch.rand(2, 3, 8, 8))  # moves the batch-norm statistics
        with torch.no_grad():
            for p in network.parameters():
                p += torch.randn_like(p)
        ema.update(network)
        expected = [0.75 * e + 0.25 * p.detach() for e, p in zip(expected, network.parameters(), strict=True)]
    for mine, theirs in zip(ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert not mine.requires_grad
    torch.testing.assert_close(ema.network[1].running_mean, network[1].running_mean)
    assert ema.network[1].num_batches_tracked == 3


def test_state_round_trip():
    network = nn.Conv2d(3, 3, 1)
    ema = Ema(network, 0.5)
    other = Ema(nn.Conv2d(3, 3, 1), 0.5)
    other.load_state_dict(ema.state_dict())
    torch.testing.assert_close(other.network.weight, network.weight)
