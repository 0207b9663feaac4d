"""Losses: registered classes, and terms that apply them to what a network returns."""

from llie.losses.terms import LossSum, LossTerm, build_losses, create_loss

__all__ = ["LossSum", "LossTerm", "build_losses", "create_loss"]
