"""In strips of rows, every network gives the result of the whole image, and holds little of it at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import llie
from llie.archs import create_network
from llie.inference import Enhancer
from llie.ops.fusion import fuse
from llie.ops.parts import apart, in_one_piece, keep, new_map, offered, rolling
from llie.strips import InMemory, Strips, neighbours
from llie.strips.plan import Plan
from llie.strips.schedule import Schedule, _reach, schedule_within
from llie.strips.waiting import in_file

TINY = {
    "DRBN": {"width": 4, "growth": 4, "convs": 2, "recursions": 2},
    "DRBN of whole vectors": {"width": 8, "growth": 8, "convs": 3, "recursions": 2},
    "DRBNRecompose": {"width": 4, "growth": 4, "convs": 1, "recursions": 1},
    "HVICIDNet": {"channels": [8, 8, 8, 8], "norm": True},
    "HVISMM": {"channels": [8, 8, 8, 8]},
    "HDM": {"width": 8, "blocks": 1, "groups": 1, "gamma": 0.25},
    "HDM with guide": {"width": 8, "blocks": 1, "groups": 2, "variant": "mask+guide", "normalise": True},
    "SNRAware": {"nf": 8, "layers": 1, "snr_quantile": 0.5},
    "MambaLLIE": {"nf": 16, "depths": (1, 1, 1, 1, 1, 1), "d_state": 4, "scan_backend": "torch"},
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    built = create_network(name.split()[0], **TINY[name]).eval()
    for parameter in built.parameters():  # networks begin near the identity: nothing global would show
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return fuse(built)


def in_strips(function, x, memory=2**30, working=2**16):
    """The result, the store, and how often rows were written."""
    result, writes = torch.full_like(x, float("nan")), []

    def write(first, stop, rows):
        writes.append((first, stop))
        result[:, :, first:stop] = rows

    with torch.inference_mode():
        store = Strips(function, tuple(x.shape))(lambda first, stop: x[:, :, first:stop], write, memory, working)
    assert [first for first, _ in writes] == [0, *[stop for _, stop in writes][:-1]]
    return result, store, len(writes)


@pytest.mark.parametrize("name", TINY)
def test_strips_give_the_result_of_the_whole_image(name):
    net = network(name)
    x = 0.6 * torch.rand(1, 3, 75, 37)
    with torch.inference_mode():
        expected = net(x)
    result, _, strips = in_strips(net, x)
    assert strips > 1
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["HVICIDNet", "HVISMM"])
def test_strips_without_a_compiler(monkeypatch, name):
    for kernel in ("lighten", "resizing_kernel"):
        monkeypatch.setattr(f"llie.ops.{kernel}.works", lambda x: False)
    test_strips_give_the_result_of_the_whole_image(name)


def test_scans_run_through_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("llie.archs.mamballie.ROWS", 16)
    net = network("MambaLLIE")
    peaks = []
    for height in (150, 300):
        x = 0.6 * torch.rand(1, 3, height, 37)
        with torch.inference_mode():
            expected = net(x)
        result, store, strips = in_strips(net, x, memory=0)  # what waits for another pass is in the file
        assert strips > -(-height // 16)  # lower than the blocks
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)
        peaks.append(store.peak)
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("name", ["HVICIDNet", "MambaLLIE"])
def test_what_does_not_fit_goes_to_a_file(name):
    net = network(name)
    x = torch.rand(1, 3, 64, 40)
    expected, held, _ = in_strips(net, x)
    result, spilled, _ = in_strips(net, x, memory=held.peak // 3)
    assert not held.written and spilled.written > 0
    assert torch.equal(result, expected)


class Skips(nn.Module):
    """The first map is read last; those in between, soon."""

    def forward(self, x):
        first = keep(torch.cat([x, x, x], 1))
        y = x
        for _ in range(3):
            y = keep(y - y.mean((2, 3), keepdim=True)) * 1.1
        return y + first[:, 3:6]


def test_what_is_read_latest_goes_to_the_file():
    x = torch.rand(1, 3, 64, 40)
    with torch.inference_mode():
        expected = Skips()(x)
    plan = Strips(Skips(), tuple(x.shape)).plan
    size = x.numel() * 4
    first = plan.steps[[step.stored for step in plan.steps].index(True)]
    assert in_file(plan, 10 * size) == set()
    assert in_file(plan, 3 * size) == {first}
    result, store, _ = in_strips(Skips(), x, memory=3 * size)
    torch.testing.assert_close(result, expected)
    assert store.written == 3 * size
    result, store, _ = in_strips(Skips(), x, memory=10 * size)
    assert not store.written


def test_a_local_network_holds_a_window_of_rows_however_tall_the_image():
    net = network("DRBN")
    peaks = [in_strips(net, torch.rand(1, 3, height, 16), working=2**14)[1].peak for height in (200, 600)]
    assert peaks[1] < 1.2 * peaks[0]


class Unusual(nn.Module):
    """Operations that no network here has: with rules, without, and such as mix rows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2, padding=2, padding_mode="reflect")
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.norm, self.batch = nn.GroupNorm(2, 8), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1)
        self.head = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x):
        y = keep(self.batch(self.dilated(self.conv(x)).relu()))
        y = y * torch.sigmoid(F.adaptive_avg_pool2d(y, (3, 2)).mean((2, 3), keepdim=True))
        y = self.norm(y) + y.amax((2, 3), keepdim=True) + F.max_pool2d(y, 3, 1, 1) + y.flip(2)
        y = self.up(F.interpolate(y, scale_factor=0.5, mode="bilinear"))
        y = y + in_one_piece(lambda t: t.sort(2).values, y, shape=y.shape)
        y = F.pixel_shuffle(self.head(F.pad(y, (0, 0, 3, 1), value=0.5))[:, :, 2:-2], 2)
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True) + x.roll(1, 1)


def test_operations_of_other_networks():
    torch.manual_seed(0)
    net = Unusual().eval()
    x = torch.rand(1, 3, 52, 24)
    with torch.inference_mode():
        expected = net(x)
    torch.testing.assert_close(in_strips(net, x, working=2**12)[0], expected, atol=1e-5, rtol=0)


class Reused(nn.Module):
    """Maps that others still need when an operation has the same shape."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        a = self.conv(x)
        b = a.relu() + a  # a after a.relu()
        c, d = (b * 2).split(4, 1)
        e = torch.cat([c + d, d.sigmoid() * c], 1)  # two parts of one map
        f = e[..., 1:] - e[..., :-1]  # the same memory, shifted
        f = F.pad(f, (0, 1)) + e.mean(1, keepdim=True).expand_as(e).abs()
        kept = keep(f * 0.5)
        g = F.leaky_relu(kept * kept, 0.1) + kept
        return self.head(g).tanh() + x.lerp(x, 0.5) + g.mean()


def test_maps_that_others_need_do_not_change():
    torch.manual_seed(0)
    net, x = Reused().eval(), torch.rand(1, 3, 60, 16)
    with torch.inference_mode():
        expected = net(x)
    result, _, strips = in_strips(net, x, working=2**14)
    assert strips > 3
    torch.testing.assert_close(result, expected)


def test_results_take_the_place_of_inputs_that_nobody_needs(monkeypatch):
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.Conv2d(8, 3, 1)
    net, x = nn.Sequential(*layers).eval(), torch.rand(1, 3, 60, 16)
    given = []
    original = Plan.part_of

    def part_of(self, step, cut, of, out=None):
        given.append((step.node.target.overloadpacket, out is not None))
        return original(self, step, cut, of, out)

    monkeypatch.setattr(Plan, "part_of", part_of)
    result = in_strips(net, x, working=2**13)[0]
    ops = torch.ops.aten
    assert set(given) == {(ops.convolution, False), *((op, True) for op in (ops.tanh, ops.sigmoid, ops.silu, ops.gelu))}
    with torch.inference_mode():
        torch.testing.assert_close(result, net(x))


def test_work_on_a_map_that_is_set_apart_waits_until_it_is_complete():
    torch.manual_seed(0)
    first, second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    x = torch.rand(1, 3, 60, 16)

    def function(x):
        return second(apart(first(x)).relu())

    plan = Strips(function, tuple(x.shape)).plan
    assert [[step.node.name.split("_")[0] for step in each.targets] for each in plan.passes] == [
        ["part"],
        ["convolution"],
    ]
    with torch.inference_mode():
        torch.testing.assert_close(in_strips(function, x, working=2**12)[0], function(x))


class Pooled(nn.Module):
    """Ends in operations that need whole maps, one of which has two results."""

    def forward(self, x):
        y, index = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y * 2, index, 2) + 0.5


def test_results_of_operations_that_need_whole_maps():
    x = torch.rand(1, 3, 20, 16)
    assert torch.equal(in_strips(Pooled(), x)[0], Pooled()(x))


def test_batch_norm_is_local_in_evaluation():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    net(torch.rand(2, 3, 8, 8))  # statistics of its own
    net.eval()
    x = torch.rand(1, 3, 60, 16)
    with torch.inference_mode():
        expected = net(x)
    result, _, strips = in_strips(net, x, working=2**14)
    assert strips > 3
    torch.testing.assert_close(result, expected)


class Choosy(nn.Module):
    """Its code depends on the values of pixels."""

    def forward(self, x):
        return x * 2 if x.mean() > 0.9 else x


def test_a_network_whose_code_depends_on_pixels_is_evaluated_in_one_piece():
    lines = []
    x = torch.rand(1, 3, 20, 20)
    assert torch.equal(InMemory(Choosy(), memory=1000, tell=lines.append)(x), x)
    assert len(lines) == 1 and lines[0].startswith("Choosy cannot work in strips of rows")


def test_strips_are_used_when_the_picture_needs_them_and_one_line_says_so():
    net, lines = network("HVICIDNet"), []
    x = torch.rand(2, 3, 40, 32)
    with torch.inference_mode():
        expected = net(x, alpha_s=1.3)
        assert torch.equal(InMemory(net, memory="1GB", tell=lines.append)(x, alpha_s=1.3), expected)
        assert not lines
        bounded = InMemory(net, memory="1MB", tell=lines.append)
        torch.testing.assert_close(bounded(x, alpha_s=1.3), expected, atol=1e-5, rtol=0)
        bounded(x, alpha_s=1.3)
    assert sum(line.startswith("HVICIDNet works in strips of rows") for line in lines) == 1


def test_photographs_in_strips(capsys):
    net = network("HVICIDNet")
    image = torch.randint(0, 256, (3, 40, 32), dtype=torch.uint8)
    whole = Enhancer(net, "cpu", strength=0.7, exposure=0.5)(image)
    assert not capsys.readouterr().err
    strips = Enhancer(net, "cpu", strength=0.7, exposure=0.5, memory="1MB")(image)
    assert (whole.int() - strips.int()).abs().max() <= 1
    assert "in strips of rows" in capsys.readouterr().err


def test_the_command_takes_a_budget(tmp_path, capsys):
    from llie import cli
    from llie.data.readers import read_image, write_image

    torch.manual_seed(0)
    torch.save({"params": create_network("HVICIDNet", channels=[8, 8, 8, 8]).state_dict()}, tmp_path / "net.pth")
    write_image(tmp_path / "dark.png", torch.rand(32, 24, 3).numpy())
    words = ["enhance", str(tmp_path / "dark.png"), "--model", str(tmp_path / "net.pth"), "--device", "cpu"]
    assert cli.main([*words, "-o", str(tmp_path / "whole.png")]) == 0
    assert cli.main([*words, "-o", str(tmp_path / "strips.png"), "--memory", "800kb"]) == 0
    assert "HVICIDNet works in strips of rows" in capsys.readouterr().err
    whole, strips = (read_image(tmp_path / f"{name}.png").astype(int) for name in ("whole", "strips"))
    assert abs(whole - strips).max() <= 1
    assert llie.load(tmp_path / "net.pth", "cpu", memory="800kb").memory == 800_000


def test_a_low_and_wide_image_is_not_computed_again_and_again():
    """Its first operations are done before the last ones are half way, and yet each row of them is computed once."""
    plan = Strips(network("DRBN"), (1, 3, 96, 640)).plan
    schedule = Schedule(plan, plan.passes[0], height=8)
    computed = dict.fromkeys(schedule.steps, 0)
    for _, ranges in schedule.strips_of_all():
        for step, (first, stop) in ranges.items():
            computed[step] += stop - first
    convolutions = [step for step in schedule.steps if "convolution" in str(step.node.target)]
    assert len(convolutions) > 20
    assert all(computed[step] < 1.6 * step.along.size for step in convolutions)


def test_only_rows_that_later_strips_read_wait():
    """What is stored, or summed, in the strip that computes it is not copied; a convolution needs rows of before."""

    def summed(x):
        stored = keep(x + 1)
        return stored * stored.mean()

    def convolved(x):
        stored = keep(x + 1)
        return stored * F.conv2d(stored, torch.ones(3, 3, 3, 3), padding=1).mean()

    for function, waiting in ((summed, 0), (convolved, 1)):
        plan = Strips(function, (1, 3, 60, 16)).plan
        schedule = Schedule(plan, plan.passes[0], 8)
        assert len(schedule.held) == 1 and len(schedule.held & schedule.read) == waiting
        x = torch.rand(1, 3, 60, 16)
        torch.testing.assert_close(in_strips(function, x, working=2**12)[0], function(x))


def test_convolutions_of_few_channels_are_computed_again_rather_than_copied():
    torch.manual_seed(0)
    few, many = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    plan = Strips(lambda x: keep(many(many(few(x)))).mean((2, 3), keepdim=True) + x[:, :1], (1, 3, 120, 16)).plan
    schedule = Schedule(plan, plan.passes[0], 12)
    convolutions = [step for step in schedule.steps if "convolution" in str(step.node.target)]
    assert [step in schedule.held for step in convolutions] == [False, True, False]  # the last is stored at once


def test_results_are_written_where_they_wait_or_are_stored():
    """What makes a map asks for memory; a map of another shape or type, or a second one, lies elsewhere."""
    place = torch.zeros(1, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    with offered(place):
        assert new_map((1, 4, 5, 7), torch.float32).shape == (1, 4, 5, 7)
        assert new_map((1, 4, 5, 6), torch.float64).dtype == torch.float64
        assert new_map((1, 4, 5, 6), torch.float32).data_ptr() == place.data_ptr()
        other = new_map((1, 4, 5, 6), torch.float32)
    assert other.data_ptr() != place.data_ptr() and other.is_contiguous(memory_format=torch.channels_last)
    assert new_map((1, 4, 5, 6), torch.float32).data_ptr() != place.data_ptr()
    with offered(place.contiguous()):  # kernels write channels last
        assert new_map((1, 4, 5, 6), torch.float32).is_contiguous(memory_format=torch.channels_last)


def test_operations_advance_in_whole_rows():
    """As far as the rows of an input allow; of merged rows and columns, only whole rows count."""
    plan = Strips(network("SNRAware"), (1, 3, 48, 32)).plan
    units = set()
    for step in plan.steps:
        if step.kind == "local" and step.local.grain == 1 and step.part is None:
            source, rows = step.inputs[0], step.rows
            units.add(rows.unit)
            for available in range(0, source.along.size, max(1, source.along.size // 7)):
                multiples = range(rows.unit, rows.size + 1, rows.unit)
                possible = (position for position in multiples if step.local.need(0, position)[1] <= available)
                expected = max(possible, default=0)
                assert _reach(step, source, available) == expected, step.node
    assert len(units) > 1


def test_wide_convolutions_take_winograds_form(monkeypatch):
    torch.manual_seed(0)
    sizes, used = ((3, 32), (32, 32), (32, 3)), []
    net = nn.Sequential(*(nn.Conv2d(*channels, 3, padding=1) for channels in sizes)).eval()
    x = torch.rand(1, 3, 120, 48)
    with torch.inference_mode():
        expected = net(x)
    original = neighbours.winograd_of_rows
    monkeypatch.setattr(neighbours, "pays", lambda x, weight: min(weight.shape[:2]) > 3)
    monkeypatch.setattr(neighbours, "winograd_of_rows", lambda *args: used.append(args) or original(*args))
    result, _, strips = in_strips(net, x, working=2**18)
    assert strips > 3 and len(used) >= strips
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


class Remembering:
    """Sums of three rows, of a map whose rows come in turn."""

    def __init__(self, size):
        self.size, self.got = size, []

    def __call__(self, x, rows):
        self.got.append(x.shape[2])
        above = torch.zeros_like(x[:, :, :1]) if len(self.got) == 1 else self.before
        below = torch.zeros_like(above[:, :, :1]) if rows.stop == self.size else x[:, :, :0]
        near = torch.cat([above, x, below], 2)
        self.before = near[:, :, -2:]
        return near.unfold(2, 3, 1).sum(-1)


def test_a_function_that_remembers_rows_gets_each_once():
    made, x = [], torch.rand(1, 3, 60, 16)

    def begin():
        made.append(Remembering(60))
        return made[-1]

    def sums(x):
        return F.pad(x, (0, 0, 1, 1)).unfold(2, 3, 1).sum(-1)

    def stored(x):
        once = keep(rolling(sums, x + 1, like=sums, halo=1, begin=begin))
        return rolling(sums, once * 2, like=sums, halo=1, begin=begin) + once.mean()

    def not_stored(x):
        once = rolling(sums, x + 1, like=sums, halo=1, begin=begin)
        return rolling(sums, once * 2, like=sums, halo=1, begin=begin) + once.mean()

    for function, times in ((stored, 2), (not_stored, 3)):  # what is not stored is computed for the mean, and once more
        made.clear()
        result, _, _ = in_strips(function, x, working=2**12)
        torch.testing.assert_close(result, function(x))
        assert len(made) == times and all(sum(each.got) == 60 and len(each.got) > 5 for each in made)


def test_marked_functions_read_rows_that_came_in_patches():
    # Whole patches, whose rows come in fours; small results of whole maps are not read in rows.
    net, x = network("SNRAware"), 0.6 * torch.rand(1, 3, 400, 336)
    steps = Strips(net, tuple(x.shape)).plan.steps
    marked = [step for step in steps if step.part is not None]
    assert [step.part.kind for step in marked if step.kind == "whole"] == ["whole"]  # the transformer
    with torch.inference_mode():
        expected = net(x)
    torch.testing.assert_close(in_strips(net, x)[0], expected, atol=2e-5, rtol=0)


def test_strips_are_as_high_as_the_tiles_of_convolutions():
    plan = Strips(network("SNRAware"), (1, 3, 320, 64)).plan
    decoder = plan.passes[-1]
    bytes_of_tiles = Schedule(plan, decoder, 16).peak()  # four rows at a quarter of the size
    for share, height in ((1, 16), (0.6, 16), (0.4, 8)):
        assert schedule_within(plan, decoder, int(share * bytes_of_tiles)).height == height
