"""One file per source: a place that images come from."""
