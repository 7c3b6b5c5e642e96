"""One file per method: what learns."""
