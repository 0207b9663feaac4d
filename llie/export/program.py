"""Writes a recorded graph as a `.pt2` file of PyTorch, and runs such files as networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from llie.errors import UserError
from llie.export import compiled
from llie.export.extra import require_torch
from llie.export.facts import controls_in
from llie.export.quiet import quiet
from llie.ops.selective_scan import steps as steps  # registers the operator that files of MambaLLIE contain

_FACTS = "llie.json"  # name of the metadata in the archive


def save(recorded: ExportedProgram, path: Path, facts: Mapping[str, str]) -> None:
    """Write the graph, with facts as its metadata.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with path.open("wb") as file, quiet():
            torch.export.save(recorded, file, extra_files={_FACTS: json.dumps(dict(facts))})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


class ProgramNetwork(nn.Module):
    """A `.pt2` file as a module: (B, 3, H, W) in [0, 1] and controls -> the enhanced image.

    Args:
        path: a file of `llie export`, compiled or not. Reading such a file can run code from it: take only those that
            you trust.

    Attributes:
        facts: the metadata of the file.
        control_names: the numbers that it takes besides the image.

    Raises:
        UserError: the file is damaged, not one of `llie export`, or compiled for another kind of processor.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        path = Path(path)
        require_torch()
        try:
            self.graph, self.facts = compiled.load(path) if compiled.is_compiled(path) else _recorded(path)
        except UserError:
            raise
        except Exception as error:  # the reader passes on errors of all kinds
            raise UserError(
                f"{path} is damaged, or no file of llie export for this version of PyTorch ({torch.__version__})"
            ) from error
        self.defaults = controls_in(self.facts, str(path))
        self.control_names = list(self.defaults)

    def forward(self, x: Tensor, **controls: Any) -> Tensor:
        """Run the graph."""
        numbers = [x.new_tensor(value) for value in (self.defaults | controls).values()]
        return self.graph(x, *numbers)

    def train(self, mode: bool = True) -> ProgramNetwork:
        """A recorded graph has no training mode."""
        return self


def _recorded(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The graph in a file of `save`, and the facts about it."""
    extra: dict[str, Any] = {_FACTS: ""}
    with path.open("rb") as file, quiet():
        recorded = torch.export.load(file, extra_files=extra)
        graph: Any = recorded.module(check_guards=False)
    # Recording assumes that no size within the network is 1, which its operators do not: small images work.
    graph.validate_inputs = False
    return graph, json.loads(extra[_FACTS])
