"""Networks on images of any size in bounded memory, with the result of the whole image.

The network is traced into a graph of its operations. The image streams through it in strips of rows; what an operation
needs of the rows around it follows from its kind. What depends on the whole image is added up over the strips, in as
many passes as there are such places one after the other. Networks mark the maps worth keeping between passes
(`llie.ops.parts`). Inference, tests and training's validation call it.
"""

from llie.strips.network import InMemory
from llie.strips.run import Strips

__all__ = ["InMemory", "Strips"]
