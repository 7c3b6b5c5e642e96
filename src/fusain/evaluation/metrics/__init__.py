"""One metric per file; each is found by its `kind`."""
