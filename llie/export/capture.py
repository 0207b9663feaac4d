"""Record a network with `torch.export`: one graph for every batch, height and width."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from llie.errors import UserError
from llie.export.graph import Graph
from llie.export.quiet import quiet
from llie.ops.exporting import for_export


def capture(graph: Graph) -> ExportedProgram:
    """The recorded graph; the network itself is left as it is.

    Raises:
        UserError: the network decides by values, or does something that no graph can hold; the message says where.
    """
    # Recorded on the CPU in plain layout: a network prepared for inference may hold faster forms and other layouts.
    plain: nn.Module = copy.deepcopy(graph).cpu().eval().to(memory_format=torch.contiguous_format)
    example = graph.example()
    sizes: list[object] = [{0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}]
    if len(example) > 1:
        sizes.append((None,) * (len(example) - 1))
    try:
        with for_export(), torch.no_grad(), quiet():
            return torch.export.export(plain, example, dynamic_shapes=tuple(sizes), strict=False)
    except UserError:
        raise
    except Exception as error:  # torch.export raises whatever the network's code runs into
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{type(graph.network).__name__} cannot be exported: its graph cannot be recorded ({reason.strip()})"
        ) from error
