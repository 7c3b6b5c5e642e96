"""The one training loop and what varies in it."""
