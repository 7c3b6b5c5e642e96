"""One run: what was asked, where it lives, and what can be done with it."""
