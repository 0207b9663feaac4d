"""What is written is what the network computes, and says so; what is wrong leaves no file."""

import json
import re
import threading

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.torch_version import TorchVersion

import llie
from llie import cli
from llie.data.readers import write_image
from llie.errors import UserError
from llie.export import quantise, write
from llie.export.graph import Graph, numeric_controls
from llie.export.runtime import OnnxNetwork
from llie.export.verify import compare
from llie.export.write import export
from llie.ops.exporting import exporting
from tests.export.conftest import Brighten
from tests.needs import record_only


def silent(line: str) -> None:
    """For those who do not want to hear."""


def test_the_command_says_what_it_does_and_how_far_file_and_network_differ(exported):
    assert "recording DRBN" in exported.said and "opset 18" in exported.said
    found = re.findall(r"largest difference (\S+), mean (\S+) \(\S+ dB\)", exported.said)
    assert len(found) == 3 and all(float(mean) <= float(largest) < 1e-5 for largest, mean in found)
    assert re.search(r"net\.onnx: \d+\.\d\d MB", exported.said)
    assert not list(exported.file.parent.glob(".*"))  # nothing temporary stays


def test_a_long_step_says_that_it_goes_on(monkeypatch):
    monkeypatch.setattr(write, "REMINDER", 0.01)
    said, reminded = [], threading.Event()

    def report(line):
        said.append(line)
        if line.endswith("so far"):
            reminded.set()

    with write._step(report, "compiling"):
        assert reminded.wait(60)
    assert (
        said[0] == "compiling ..." and re.fullmatch(r"  \d+ s so far", said[1]) and re.fullmatch(r"  \d+ s", said[-1])
    )
    with pytest.raises(UserError), write._step(report, "compiling"):
        raise UserError("it cannot be compiled")
    assert not [thread for thread in threading.enumerate() if thread.name == "reminder"]


def test_the_file_says_what_it_holds(exported):
    model = onnx.load(exported.file)
    onnx.checker.check_model(model)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["network"] == "DRBN" and facts["licence"] == "CC0-1.0"
    assert json.loads(facts["arguments"]) == {"width": 2, "growth": 1, "convs": 1, "recursions": 1}
    assert facts["size_multiple"] == "4" and "[0, 1]" in facts["input_range"] and json.loads(facts["controls"]) == {}
    assert re.fullmatch("[0-9a-f]{64}", facts["weights_sha256"])
    assert facts["opset"] == "18" and {entry.version for entry in model.opset_import if not entry.domain} == {18}
    image = model.graph.input[0]
    assert image.name == "image" and model.graph.output[0].name == "enhanced"
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (3, 3, 16, 12), (1, 3, 2, 1), (2, 3, 31, 40)])
def test_any_size_and_batch(exported, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = exported.network(x).clamp(0, 1)
    assert torch.allclose(OnnxNetwork(exported.file)(x), expected, atol=1e-5)


@record_only
def test_controls_are_optional_inputs_with_their_defaults(tmp_path):
    found = export(Brighten().eval(), tmp_path / "brighten.onnx", {"gain": 3.0}, report=silent)
    assert found[0].controls == {"gain": 2.25} and found[1].controls == {}  # both the given value and the default
    model = onnx.load(tmp_path / "brighten.onnx")
    assert [given.name for given in model.graph.input] == ["image", "gain"]
    defaults = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert defaults["gain"] == 3
    x = np.full((1, 3, 4, 5), 0.1, np.float32)
    (result,) = ReferenceEvaluator(model).run(None, {"image": x, "gain": np.array(5, np.float32)})
    assert np.allclose(result, 0.5)


@record_only
def test_a_graph_that_computes_something_else_is_found_and_leaves_no_file(tmp_path):
    class Wrong(nn.Module):
        """Stands for a translation with an error."""

        def forward(self, x):
            return x * 0.9 if exporting() else x

    place = tmp_path / "wrong.onnx"
    with pytest.raises(UserError, match=r"differs from Wrong by 0\.0\d+ on an image of 67x91, more than 0\.00196"):
        export(Wrong().eval(), place, report=silent)
    assert not list(tmp_path.iterdir())
    place.write_bytes(b"an older file")
    with pytest.raises(UserError, match="differs"):
        export(Wrong().eval(), place, report=silent)
    assert place.read_bytes() == b"an older file" and len(list(tmp_path.iterdir())) == 1


@record_only
def test_what_cannot_be_exported_is_said_in_one_message(tmp_path):
    class ByValue(nn.Module):
        """Its graph depends on the image."""

        def forward(self, x):
            return x * 2 if x.mean() > 0.5 else x

    class Twice(nn.Module):
        """Its result has another size."""

        def forward(self, x):
            return x.repeat(1, 1, 2, 2)

    for network, message in ((ByValue(), "ByValue cannot be exported: .*data-dependent"), (Twice(), "same size")):
        with pytest.raises(UserError, match=message):
            export(network.eval(), tmp_path / "net.onnx", report=silent)
    with pytest.raises(UserError, match=r"net\.pt must end in \.onnx or \.pt2"):
        export(Brighten(), tmp_path / "net.pt", report=silent)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, exported, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert cli.main(["export", str(exported.checkpoint), "-o", str(tmp_path / "net.onnx")]) == 2
    assert "package onnxruntime: pip install 'llie[export]'" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'llie\[export\]'"):
        OnnxNetwork(exported.file)


def test_only_numbers_become_inputs():
    class Rule(nn.Module):
        """As the classical methods have it: None stands for the constructor's value."""

        gamma, regions = 0.5, 5

        def forward(self, x, gamma: float | None = None, regions: torch.Tensor | None = None, sharp: bool = False):
            return x

    assert numeric_controls(Rule()) == {"gamma": 0.5}
    graph = Graph(Brighten(), {"gain": 3, "size": (4, 5)})
    assert graph.numbers == {"gain": 3.0} and graph.fixed == {"size": (4, 5)}


@pytest.mark.parametrize("name", ["HistogramEqualisation", "CLAHE", "LIME"])
def test_networks_that_no_graph_can_hold_say_why(name, tmp_path, capsys):
    assert cli.main(["export", name, "-o", str(tmp_path / "net.onnx")]) == 2
    assert re.search(f"error: {name} cannot be exported: it (computes with OpenCV|iterates)", capsys.readouterr().err)


def test_float16_and_int8_lose_little(exported):
    model, graph = onnx.load(exported.file), Graph(exported.network)
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    for smaller in (quantise.to_float16(model), quantise.to_int8(model, [image])):
        onnx.save(smaller, exported.file.with_name("smaller.onnx"))
        difference = compare(graph, OnnxNetwork(exported.file.with_name("smaller.onnx")), image, {})
        assert difference.largest > 0 and 30 < difference.psnr < 110
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in smaller.graph.node}


def test_calibration_images_are_small_and_dark(tmp_path):
    shipped = quantise.calibration_images(None)
    assert len(shipped) == 7 and all(min(image.shape[-2:]) == quantise.SIDE for image in shipped)
    assert all(image.mean() < 0.25 and image.amax() <= 1 for image in shipped)
    write_image(tmp_path / "night.png", np.full((8, 9, 3), 20, np.uint8))
    (own,) = quantise.calibration_images(tmp_path)
    assert own.shape == (1, 3, 8, 9)
    with pytest.raises(UserError, match="there is no folder"):
        quantise.calibration_images(tmp_path / "absent")


def test_an_old_torch_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.4.1+cu121"))
    message = r"need PyTorch 2\.\d or newer, and this is 2\.4\.1\+cu121: pip install --upgrade torch torchvision"
    for act in (lambda: export(Brighten().eval(), tmp_path / "net.onnx"), lambda: llie.load(tmp_path / "net.pt2")):
        (tmp_path / "net.pt2").write_bytes(b"whatever")
        with pytest.raises(UserError, match=message):
            act()


def test_precisions_that_do_not_exist(tmp_path):
    for name, precision in (("net.onnx", "float8"), ("net.pt2", "int8")):
        with pytest.raises(UserError, match=r"an \.onnx file has float32, float16 or int8, a \.pt2 file float32"):
            export(Brighten().eval(), tmp_path / name, precision=precision, report=silent)


@record_only
def test_a_file_of_torch_export(tmp_path):
    path = tmp_path / "brighten.pt2"
    found = export(Brighten().eval(), path, {"gain": 3.0}, report=silent)
    assert len(found) == 3 and max(difference.largest for difference in found) < 1e-6
    dark = np.full((5, 7, 3), 20, np.uint8)
    assert llie.load(path)(dark).max() == 60 and llie.load(path, gain=2.0)(dark[:1, :1]).max() == 40
    with pytest.raises(UserError, match="made for the CPU"):
        llie.load(path, "cuda")
    (tmp_path / "text.pt2").write_text("no archive")
    with pytest.raises(UserError, match=r"text\.pt2 is damaged, or no file of llie export"):
        llie.load(tmp_path / "text.pt2")
