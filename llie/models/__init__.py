"""What one training step is; the engine repeats it."""
