import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.errors import UserError
from llie.ops.selective_scan import backends, selective_scan
from tests.golden.compare import assert_near
from tests.ops.first_scan import first_scan
from tests.processes import answers

BACKENDS = backends.available("cpu")
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
CASES = [("mamballie_scan", case) for case in ("typical", "odd", "single")]
CASES += [("mamballie_scan_hard", case) for case in ("extreme", "long")]


def naive(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The recurrence as it is written, one position at a time, in float64."""
    u, delta, A, B, C = (t.double() for t in (u, delta, A, B, C))
    if B.dim() == 3:
        B, C = B[:, None], C[:, None]
    if delta_bias is not None:
        delta = delta + delta_bias.double()[:, None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], 1) for t in (B, C))
    state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        state = (delta[:, :, t, None] * A).exp() * state + (delta[:, :, t] * u[:, :, t])[..., None] * B[..., t]
        outputs.append((state * C[..., t]).sum(-1))
    y = torch.stack(outputs, -1)
    y = y if D is None else y + D.double()[:, None] * u
    return (y if z is None else y * torch.nn.functional.silu(z.double())), state


def example(batch=1, groups=2, channels=3, states=4, length=10, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    width = groups * channels
    return {
        "u": draw(batch, width, length),
        "delta": draw(batch, width, length),
        "A": -draw(width, states).exp(),
        "B": draw(batch, groups, states, length),
        "C": draw(batch, groups, states, length),
        "D": draw(width),
        "delta_bias": draw(width),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("file", "case"), CASES)
def test_golden(golden, file, case, backend):
    vector = golden(file)
    inputs = {name: vector[f"{case}_{name}"].requires_grad_() for name in NAMES}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    assert_near(y, vector[f"{case}_y"], 5e-6)
    assert_near(last, vector[f"{case}_last_state"], 5e-6)
    (y * vector[f"{case}_weight"]).sum().backward()
    for name in NAMES:
        assert_near(inputs[name].grad, vector[f"{case}_grad_{name}"], of=name)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.integers(1, 20),
    states=st.integers(1, 9),
    length=st.integers(1, 100),
    gated=st.booleans(),
)
def test_equals_the_naive_recurrence(backend, batch, groups, channels, states, length, gated):
    inputs = example(batch, groups, channels, states, length)
    inputs["z"] = inputs["u"].flip(-1) if gated else None
    inputs = {name: None if t is None else t.requires_grad_() for name, t in inputs.items()}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    expected, expected_last = naive(**inputs, delta_softplus=True)
    assert_near(y, expected, 5e-6)
    assert_near(last, expected_last, 5e-6)
    leaves = [t for t in inputs.values() if t is not None]
    ours = torch.autograd.grad(y.sin().sum() + last.sum(), leaves)
    for mine, theirs in zip(ours, torch.autograd.grad(expected.sin().sum() + expected_last.sum(), leaves), strict=True):
        assert_near(mine, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["batch", "length"])
def test_empty(backend, empty):
    inputs = {name: t.requires_grad_() for name, t in example(**{empty: 0}).items()}
    y, last = selective_scan(**inputs, return_last_state=True, backend=backend)
    assert y.shape == inputs["u"].shape and not last.any()
    y.sum().backward()
    assert not inputs["A"].grad.any()


def test_gradcheck():
    inputs = [t.requires_grad_() for t in example(length=35, channels=1, states=3, dtype=torch.float64).values()]

    def function(u, delta, A, B, C, D, bias):
        return selective_scan(u, delta, A, B, C, D, None, bias, True, return_last_state=True)

    torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend):
    inputs = example(length=40)
    inputs["delta"][0, 0, 20] = torch.nan
    y = selective_scan(**inputs, backend=backend, delta_softplus=True)
    assert y[0, 0, 20:].isnan().all() and not y[0, 0, :20].isnan().any() and not y[0, 1:].isnan().any()


def test_ungrouped_projections_and_no_softplus():
    inputs = example(groups=1)
    inputs["delta"] = inputs["delta"].abs()
    inputs["B"], inputs["C"] = inputs["B"][:, 0], inputs["C"][:, 0]
    del inputs["delta_bias"]
    assert_near(selective_scan(**inputs), naive(**inputs)[0], 5e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_computes_in_float32_under_autocast(backend):
    inputs = example(length=200)
    expected = selective_scan(**inputs, delta_softplus=True, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(**inputs, delta_softplus=True, backend=backend), expected)
    halves = {name: t if name == "A" else t.bfloat16() for name, t in inputs.items()}
    y = selective_scan(**halves, delta_softplus=True, backend=backend)
    assert y.dtype == torch.bfloat16
    assert_near(y, naive(**halves, delta_softplus=True)[0], 4e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_change_the_result(backend):
    inputs = {name: t.requires_grad_() for name, t in example(batch=2, channels=40, length=70).items()}
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))])
    torch.set_num_threads(1)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_near(a, b, 1e-6)


def test_memory_does_not_grow_with_length_times_states():
    def saved(states):
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        inputs = {name: t.requires_grad_() for name, t in example(length=512, channels=16, states=states).items()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            selective_scan(**inputs, delta_softplus=True)
        return kept

    materialised = 512 * 32 * (32 - 1)
    assert saved(32) - saved(1) < materialised / 4


def test_compiles():
    inputs = {name: t.requires_grad_() for name, t in example(length=50).items()}
    compiled = torch.compile(
        lambda **t: selective_scan(**t, delta_softplus=True).sin(),
        fullgraph=torch.__version__ >= "2.6",  # older versions begin another graph where LLIE_SCAN is read
        backend="aot_eager",
    )
    y, expected = compiled(**inputs), selective_scan(**inputs, delta_softplus=True).sin()
    assert torch.equal(y, expected)
    leaves = list(inputs.values())
    for a, b in zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(
    torch.__version__ < "2.6",
    reason="needs PyTorch 2.6, whose torch.func knows operators of others: pip install --upgrade torch torchvision",
)
def test_functional_gradient():
    inputs = example()
    expected = inputs["u"].clone().requires_grad_()
    selective_scan(**{**inputs, "u": expected}, delta_softplus=True).sum().backward()

    def loss(u):
        return selective_scan(**{**inputs, "u": u}, delta_softplus=True).sum()

    assert torch.equal(torch.func.grad(loss)(inputs["u"]), expected.grad)


def test_double_backward_is_an_error():
    inputs = {name: t.requires_grad_() for name, t in example().items()}
    (gradient,) = torch.autograd.grad(selective_scan(**inputs).square().sum(), inputs["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.ones(6, 4)}, "negative"),
        ({"A": torch.zeros(6, 4)}, "negative"),
        ({"A": torch.full((6, 4), torch.nan)}, "negative"),
        ({"A": -torch.ones(6, 4).half()}, "float32"),
        ({"A": -torch.ones(5, 4)}, "A must have shape"),
        ({"delta": torch.ones(1, 6, 9)}, "delta must have shape"),
        ({"B": torch.ones(1, 4, 4, 10)}, "divide the 6 channels"),
        ({"C": torch.ones(1, 2, 5, 10)}, "C must have shape"),
        ({"D": torch.ones(1)}, "D must have shape"),
        ({"u": torch.ones(6, 10)}, "batch, channels, length"),
        ({"delta": torch.ones(1, 6, 10, device="meta")}, "is on meta"),
        ({"u": torch.ones(1, 6, 10, dtype=torch.int64)}, "floating point"),
        ({"backend": "tritn"}, "Did you mean 'triton'"),
        ({"backend": "triton"}, "cannot run"),
        ({"backend": "mamba_ssm"}, "mamba_ssm"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(UserError, match=message):
        selective_scan(**{**example(), **change})


def test_environment_forces_a_backend(monkeypatch):
    monkeypatch.setenv("LLIE_SCAN", "torch")
    assert backends.choose("auto", torch.ones(1)).__name__.endswith("blocked")
    monkeypatch.setenv("LLIE_SCAN", "turch")
    with pytest.raises(UserError, match="Did you mean 'torch'"):
        selective_scan(**example())


def test_choice_is_announced_once(caplog):
    backends._best.cache_clear()
    with caplog.at_level("INFO", "llie"):
        selective_scan(**example())
        selective_scan(**example())
    assert [record.message for record in caplog.records if "selective scan on cpu" in record.message] != []
    assert len([record for record in caplog.records if "selective scan on cpu" in record.message]) == 1


@pytest.mark.skipif("c" not in BACKENDS, reason="needs a C compiler on the path, such as gcc")
def test_processes_that_start_together_all_get_the_kernel_and_nothing_else(tmp_path):
    found = answers(first_scan, processes=2, XDG_CACHE_HOME=str(tmp_path))
    assert found == [("c", False)] * 2
    assert len(list((tmp_path / "llie").iterdir())) == 1


def test_without_a_compiler_the_scan_still_runs(tmp_path):
    expected = next(name for name in BACKENDS if name != "c")
    found = answers(first_scan, CC="false", XDG_CACHE_HOME=str(tmp_path))
    assert found == [(expected, expected == "numba")]


@pytest.mark.skipif("c" not in BACKENDS, reason="needs a C compiler on the path, such as gcc")
def test_kernel_leaves_denormals_alone():
    selective_scan(**example(), backend="c")
    assert torch.tensor(1e-40).mul(0.5).item() > 0
