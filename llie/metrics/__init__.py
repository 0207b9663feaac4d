"""Metrics as pure functions of (prediction, reference, protocol); protocols.py names every protocol once."""
