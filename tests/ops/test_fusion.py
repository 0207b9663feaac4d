import copy
import pickle

import pytest
import torch
from torch import nn

from llie.errors import UserError
from llie.ops.fusion import ConvChain, Fusable, fuse
from llie.ops.parts import Ends


class Doubled(Fusable):
    """A toy: adds its weight twice, or once twice as much."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.ran = []

    def plain(self, x):
        self.ran.append("plain")
        return x + self.weight + self.weight

    def fused(self):
        twice = 2 * self.weight

        def run(x):
            self.ran.append("fused")
            return x + twice

        return run


@pytest.fixture
def network():
    return nn.Sequential(nn.Identity(), Doubled())


def which(network, x=None):
    """The form that the toy took."""
    torch.testing.assert_close(network(torch.zeros(1)), 2 * network[1].weight)
    return network[1].ran[-1]


def test_only_a_fused_network_in_evaluation_without_gradients_takes_the_faster_form(network):
    with torch.no_grad():
        assert which(network.eval()) == "plain"
        assert fuse(network) is network
        assert which(network) == "fused"
        assert which(network.train()) == "plain"
        assert which(network.eval()) == "fused"
    assert which(network) == "plain"
    network(torch.zeros(1)).sum().backward()
    assert network[1].weight.grad == 2


def test_the_state_dict_is_left_alone(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parts = [name for name, _ in network.named_modules()]
    fuse(network)
    torch.testing.assert_close(dict(network.state_dict()), before)
    assert [name for name, _ in network.named_modules()] == parts and not list(network.buffers())


@torch.no_grad()
def change_in_place(network):
    network[1].weight += 1


def load(network):
    network.load_state_dict({"1.weight": torch.full((1,), 5.0)})


def move(network):
    network.double().float()


def train(network):
    network(torch.zeros(1)).sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()


@pytest.mark.parametrize("change", [change_in_place, load, move, train])
def test_a_fused_form_of_old_values_is_not_used(network, change):
    fuse(network.eval())
    change(network)
    with torch.no_grad():
        assert which(network) == "plain"
        assert which(fuse(network)) == "fused"


def test_copies_and_pickles_work_and_are_not_fused(network):
    fuse(network.eval())
    with torch.no_grad():
        assert which(copy.deepcopy(network)) == "plain"
    chain = nn.Sequential(ConvChain(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3)))
    again = pickle.loads(pickle.dumps(fuse(chain.eval())))
    torch.testing.assert_close(again(torch.ones(1, 2, 9, 9)), chain(torch.ones(1, 2, 9, 9)))


CHAINS = {
    "three to few outputs": [(6, 6, 5, 1, 2), (6, 6, 5, 1, 2), (6, 1, 5, 1, 2)],
    "down": [(3, 4, 3, 1, 1), (4, 5, 3, 2, 1)],
    "down first": [(3, 4, 3, 2, 1), (4, 5, 3, 1, 1)],
    "twice down": [(3, 4, 4, 2, 1), (4, 5, 5, 2, 2), (5, 2, 1, 1, 0)],
    "no padding": [(3, 4, 3, 1, 0), (4, 4, 3, 1, 0)],
    "more padding than half": [(3, 4, 3, 1, 2), (4, 4, 3, 1, 3)],
    "one": [(3, 4, 3, 1, 1)],
}


@pytest.mark.parametrize("size", [(40, 33), (21, 40), (13, 14), (5, 5)])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_equals_its_layers_everywhere(chain, size):
    torch.manual_seed(0)
    network = ConvChain(*(nn.Conv2d(*shape) for shape in CHAINS[chain])).double().eval()
    x = torch.rand(2, CHAINS[chain][0][0], *size, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(fuse(network)(x), expected, atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last)), expected)


def test_a_chain_in_half_precision():
    torch.manual_seed(0)
    network, x = ConvChain(nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 2, 1)).eval(), torch.rand(1, 16, 32, 32)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(fuse(network)(x).float(), expected, atol=2e-2, rtol=0)


def test_a_chain_without_bias():
    network = ConvChain(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)).eval()
    x = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(fuse(network)(x), expected)


@pytest.mark.parametrize("settings", [{"groups": 3}, {"dilation": 2}, {"padding_mode": "reflect"}, {"padding": (1, 0)}])
def test_layers_that_a_chain_cannot_contain(settings):
    with pytest.raises(UserError, match="ConvChain"):
        ConvChain(nn.Conv2d(3, 3, 3, **settings))


@pytest.mark.parametrize("outputs", [3, 16])
@pytest.mark.parametrize("rows", [(0, 2), (0, 30), (2, 28), (12, 13), (27, 30), (29, 30)])
def test_some_rows_of_a_chain(outputs, rows):
    """Also fewer than the last layers read beyond an edge."""
    torch.manual_seed(0)
    chain = ConvChain(*(nn.Conv2d(40, c, 5, padding=2) for c in (40, 40, outputs))).eval()
    fuse(chain)
    x, (first, stop), halo = torch.rand(1, 40, 30, 20), rows, chain.halo()
    low, high = max(0, first - halo), min(30, stop + halo)
    ends = Ends(low == 0, high == 30, low)
    # Rows whose halo reaches beyond an end of the map lie at this end: what is computed goes as far as it.
    first, stop = 0 if ends.top else first, 30 if ends.bottom else stop
    with torch.inference_mode():
        result = chain.__dict__["_fast"][0](x[:, :, low:high], ends=ends)
        torch.testing.assert_close(result, chain(x)[:, :, first:stop], atol=2e-6, rtol=1e-5)
