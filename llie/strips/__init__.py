"""Runs networks on images of any size in bounded memory, with the result of the whole image.

`trace` records the network as a graph of operations. `plan` divides the graph into passes over the image; `schedule`
divides a pass into strips of rows. `rules` and `neighbours` say which rows of its input an operation needs. `sums` adds
up over the strips what depends on the whole image; each such sum ends a pass. `store` holds maps for later passes, in
places of `space`, and `waiting` says which of them not to hold in memory; networks mark them with `llie.ops.parts`.
`run` carries the plan out, and `network` decides when strips are needed. Inference, tests and the validation during
training call the package.
"""

from llie.strips.network import InMemory
from llie.strips.run import Strips

__all__ = ["InMemory", "Strips"]
