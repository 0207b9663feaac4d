"""Records a network with `torch.export`, as one graph for all batch sizes, heights and widths."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from llie.errors import UserError
from llie.export.graph import Graph
from llie.export.quiet import quiet
from llie.export.sizes import WholeSizes
from llie.ops.exporting import for_export


def capture(graph: Graph) -> ExportedProgram:
    """Record the graph; the network itself is not changed.

    Raises:
        UserError: the network's code depends on the values of pixels, or does something that a graph cannot contain.
    """
    # Record on the CPU in the plain memory layout: a network prepared for inference may be in channels-last layout.
    plain: nn.Module = copy.deepcopy(graph).cpu().eval().to(memory_format=torch.contiguous_format)
    example = graph.example()
    sizes: list[object] = [{0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}]
    if len(example) > 1:
        sizes.append((None,) * (len(example) - 1))
    try:
        with for_export(), WholeSizes(), torch.no_grad(), quiet():
            return torch.export.export(plain, example, dynamic_shapes=tuple(sizes), strict=False)
    except UserError:
        raise
    except Exception as error:  # torch.export passes on errors of all kinds from the network's code
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{type(graph.network).__name__} cannot be exported: its graph cannot be recorded ({reason.strip()})"
        ) from error
