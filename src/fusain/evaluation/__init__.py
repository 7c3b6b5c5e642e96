"""Judging what a model draws: image sets and callables come in, measurements and one report come out."""
