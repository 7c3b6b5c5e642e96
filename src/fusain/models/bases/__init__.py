"""Opening a base: a Stable Diffusion model's weights, read safely and exactly from wherever a user has them.

A hub id, a diffusers folder, a single file or a miniature enters; a `Base` leaves, its components built on demand.
"""

from fusain.models.bases.building import build
from fusain.models.bases.layouts import expect
from fusain.models.bases.opened import Base, Component, Weights
from fusain.models.bases.opening import open_base
from fusain.models.bases.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id

__all__ = [
    "Base",
    "Component",
    "Weights",
    "build",
    "expect",
    "find_tokenizer",
    "load_tokenizer",
    "open_base",
    "tokenizer_id",
]
