"""A trained network on pictures of any size."""

from llie.inference.enhancer import Enhancer, load

__all__ = ["Enhancer", "load"]
