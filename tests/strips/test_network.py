"""When strips are used: a given limit, little free memory, or a GPU that was too small."""

import pytest
import torch
from torch import nn

from llie.errors import UserError
from llie.inference import Enhancer
from llie.ops.fusion import fuse
from llie.ops.parts import recording
from llie.strips import InMemory
from tests.strips.test_strips import TINY, network


class Small(nn.Module):
    """Fails on more than ten rows, as a GPU does whose memory is full."""

    def __init__(self, traceable: bool = True):
        super().__init__()
        self.conv, self.traceable = nn.Conv2d(3, 3, 3, padding=1), traceable

    def forward(self, x):
        if not self.traceable:
            x = x + float(x.sum())
        if x.shape[2] > 10 and not recording():
            raise torch.OutOfMemoryError
        return self.conv(x).sigmoid()


def test_a_limit_counts_on_every_device_and_free_memory_on_the_cpu_alone(monkeypatch):
    monkeypatch.setattr("llie.strips.memory.free_memory", lambda device: 10**6)
    shape = torch.Size([1, 3, 40, 30])
    for device in map(torch.device, ("cpu", "cuda")):
        assert InMemory(nn.Identity(), memory="1MB").too_large(shape, device)
        assert not InMemory(nn.Identity(), memory="4MB").too_large(shape, device)
        assert InMemory(nn.Identity()).too_large(shape, device) == (device.type == "cpu")


def test_what_does_not_fit_into_a_gpu_is_evaluated_in_strips(monkeypatch):
    net, x, lines = Small().eval(), torch.rand(2, 3, 40, 30), []
    with torch.inference_mode():
        result = InMemory(net, tell=lines.append)(x)
        torch.testing.assert_close(result, net.conv(x).sigmoid())
        picture = Enhancer(net, "cpu")(x[:1])
    torch.testing.assert_close(picture, result[:1])
    assert len(lines) == 1 and lines[0].startswith("Small works in strips of rows")


def test_what_cannot_work_in_strips_either_is_reported():
    with pytest.raises(UserError, match=r"0\.0 megapixels do not fit.*Small, which cannot work in pieces"):
        Enhancer(Small(traceable=False).eval(), "cpu")(torch.rand(1, 3, 40, 30))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch finds")
@pytest.mark.parametrize("name", TINY)
def test_on_the_gpu(name):
    net = fuse(network(name).cuda())
    x = 0.6 * torch.rand(1, 3, 75, 37, device="cuda")
    with torch.inference_mode():
        result, expected = InMemory(net, memory="4MB")(x), net(x)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
