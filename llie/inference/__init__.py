"""A trained network on pictures of any size."""
