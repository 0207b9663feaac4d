"""Export a network to a file: record, translate, write, verify; the file appears only when it is right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from llie.errors import UserError
from llie.export import onnx_file
from llie.export.capture import capture
from llie.export.extra import require
from llie.export.facts import facts_of
from llie.export.graph import Graph, check_result
from llie.export.runtime import OnnxNetwork
from llie.export.verify import Difference, verify

Report = Callable[[str], None]
TOLERANCE = 1 / 510  # half a level of 8 bits
SUFFIXES = (".onnx",)


def export(
    network: nn.Module,
    path: str | Path,
    controls: Mapping[str, Any] | None = None,
    licence: str = "",
    tolerance: float = TOLERANCE,
    report: Report = print,
) -> list[Difference]:
    """Write a network to a file that runs without llie.

    Args:
        network: in evaluation mode, on any device.
        path: ends in .onnx.
        controls: defaults of the network's controls, instead of its own.
        licence: of the weights; written into the file.
        tolerance: largest difference allowed between the file's result and the network's, in [0, 1].
        report: is told each step, and the differences found.

    Returns:
        The differences between file and network, for several sizes.

    Raises:
        UserError: the network cannot be exported, or the file is wrong; no file is left then, and one that was there
            before stays.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end in {' or '.join(SUFFIXES)}")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package)
    network = network.cpu().eval()
    graph = Graph(network, controls)
    check_result(graph)
    name = type(network).__name__
    with _step(report, f"recording {name}"):
        recorded = capture(graph)
    with _step(report, f"translating to ONNX, opset {onnx_file.OPSET}"):
        model = onnx_file.to_onnx(graph, recorded)
    facts = facts_of(graph, licence) | {"opset": str(onnx_file.OPSET), "precision": "float32"}
    with _appears_when_right(path) as temporary:
        onnx_file.save(model, temporary, facts)
        report("verifying with onnxruntime against PyTorch")
        found = verify(graph, OnnxNetwork(temporary, "cpu"), tolerance, None, report)
    return found


@contextmanager
def _step(report: Report, what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    report(f"{what} ...")
    start = time.monotonic()
    yield
    report(f"  {time.monotonic() - start:.0f} s")


@contextmanager
def _appears_when_right(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or is removed when something went wrong."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
