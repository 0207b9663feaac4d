"""Tensor in, tensor out: colour transforms, scans, padding; no options."""
