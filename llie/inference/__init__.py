"""Inference: images, files or folders go in, enhanced ones come out.

Called by the commands and by users' programs.
"""

from llie.inference.enhancer import Enhancer
from llie.inference.loading import load

__all__ = ["Enhancer", "load"]
