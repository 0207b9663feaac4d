"""Inference: images, files or folders go in, enhanced ones come out.

The commands and users' programs call it.
"""

from llie.inference.enhancer import Enhancer, load

__all__ = ["Enhancer", "load"]
