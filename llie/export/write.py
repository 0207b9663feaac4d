"""Exports a network: records, translates and writes it, and compares the file with the network.

The file gets its name only after the comparison.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.export import ExportedProgram

from llie.archs import card_of
from llie.errors import UserError
from llie.export import compiled, onnx_file, program, quantise
from llie.export.capture import capture
from llie.export.extra import require, require_torch
from llie.export.facts import facts_of
from llie.export.graph import Graph, check_network
from llie.export.runtime import OnnxNetwork
from llie.export.verify import Difference, verify

if TYPE_CHECKING:
    import onnx

Report = Callable[[str], None]
TOLERANCE = 1 / 510  # half a level of 8 bits
SUFFIXES = (".onnx", ".pt2")
REMINDER = 30.0  # seconds between lines that say that a step goes on
LEAST_PSNR = {"float16": 40.0, "int8": 20.0}  # dB; below, the export fails


def export(
    network: nn.Module,
    path: str | Path,
    controls: Mapping[str, Any] | None = None,
    licence: str = "",
    tolerance: float = TOLERANCE,
    precision: str = "float32",
    calibrate: str | Path | None = None,
    compile: bool = False,
    report: Report = print,
) -> list[Difference]:
    """Write a network to a file that runs without llie.

    Args:
        network: the network.
        path: file to write, ending in .onnx, or in .pt2 for a file of `torch.export`.
        controls: defaults for the network's controls, instead of its own.
        licence: licence of the weights, for the metadata.
        tolerance: largest absolute difference allowed between the results of file and network, for values in [0, 1];
            used for float32 only.
        precision: "float32"; for ONNX also "float16" and "int8", whose loss is measured in dB.
        calibrate: for int8, folder of dark photographs; None: those of scikit-image, darkened.
        compile: for .pt2, compile the graph for processors of this kind, with AOTInductor and a C++ compiler.
        report: called with a line about each step and each difference.

    Returns:
        The differences between file and network, for several sizes.

    Raises:
        UserError: the network cannot be exported, or the file differs from it. Then no file is written; an older one of
            this name stays.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end in {' or '.join(SUFFIXES)}")
    if precision not in ("float32", *LEAST_PSNR) or (precision != "float32" and path.suffix == ".pt2"):
        raise UserError(f"precision {precision}: an .onnx file has float32, float16 or int8, a .pt2 file float32")
    if compile:
        if path.suffix != ".pt2":
            raise UserError(f"only a .pt2 file can be compiled (--compile), not {path}")
        compiled.check_compiler()
    for package in ("onnx", "onnxscript", "onnxruntime") if path.suffix == ".onnx" else ():
        require(package)
    graph = Graph(network.cpu().eval(), controls)
    check_network(graph)
    require_torch()
    facts = facts_of(graph, licence) | {"precision": precision}
    with _step(report, f"recording {type(network).__name__}"):
        recorded = capture(graph)
    with _appears_when_right(path) as temporary:
        if path.suffix == ".pt2":
            if compile:
                operations = sum(node.op == "call_function" for node in recorded.graph.nodes)
                with _step(report, f"compiling {operations} operations"):
                    compiled.save(recorded, temporary, facts)
            else:
                program.save(recorded, temporary, facts)
            written: nn.Module = program.ProgramNetwork(temporary)
        else:
            model = _translated(graph, recorded, precision, calibrate, report)
            onnx_file.save(model, temporary, facts | {"opset": str(onnx_file.OPSET)})
            written = OnnxNetwork(temporary, "cpu")
        report(f"comparing the file with {type(network).__name__}")
        least = LEAST_PSNR.get(precision)
        found = verify(graph, written, None if least else tolerance, least, report)
    if least:
        report(f"{precision}: at least {min(difference.psnr for difference in found):.1f} dB from the network's result")
    return found


def _translated(
    graph: Graph, recorded: ExportedProgram, precision: str, calibrate: str | Path | None, report: Report
) -> onnx.ModelProto:
    """The graph in ONNX, in the requested precision."""
    with _step(report, f"translating to ONNX, opset {onnx_file.OPSET}"):
        model = onnx_file.to_onnx(graph, recorded)
    precise = card_of(graph.network).precise
    if precision == "float16":
        return quantise.to_float16(model, precise)
    if precision == "int8":
        images = quantise.calibration_images(calibrate)
        with _step(report, f"calibrating with {len(images)} images"):
            return quantise.to_int8(model, images, precise)
    return model


@contextmanager
def _step(report: Report, what: str) -> Iterator[None]:
    """Context of one step: reports its beginning, from time to time that it goes on, and its seconds."""
    report(f"{what} ...")
    start = time.monotonic()
    ended = threading.Event()

    def goes_on() -> None:
        while not ended.wait(REMINDER):
            report(f"  {time.monotonic() - start:.0f} s so far")

    reminder = threading.Thread(target=goes_on, name="reminder", daemon=True)
    reminder.start()
    try:
        yield
    finally:
        ended.set()
        reminder.join()
    report(f"  {time.monotonic() - start:.0f} s")


@contextmanager
def _appears_when_right(path: Path) -> Iterator[Path]:
    """Context that gives a temporary file beside `path`; it is renamed to `path` at the end, or removed on error."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
