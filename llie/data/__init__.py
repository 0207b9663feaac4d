"""Data set layouts, readers, pairing, transforms and samplers."""
