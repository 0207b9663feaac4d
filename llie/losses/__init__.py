"""Losses: a prediction and a target go in, a scalar comes out; terms apply them to the outputs of a network.

Models build them from option files; metrics share the backbones.
"""

from llie.losses.terms import LossSum, LossTerm, build_losses, create_loss, needs_reference

__all__ = ["LossSum", "LossTerm", "build_losses", "create_loss", "needs_reference"]
