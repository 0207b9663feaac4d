"""What one training step is."""
