"""The training loop and what it stands on; nothing in it knows about low light."""
