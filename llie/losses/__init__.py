"""Losses as terms: pure functions, thin registered classes, and what applies them to named outputs."""
