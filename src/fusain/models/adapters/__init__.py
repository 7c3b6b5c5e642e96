"""LoRA files: read in any style, written in two of equal strength, put into weights, merged, extracted, verified."""

from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.adapters.extraction import Extracted, extract
from fusain.models.adapters.files import Style, read, styles_for, write
from fusain.models.adapters.header import for_model
from fusain.models.adapters.lycoris import Hadamard, Kronecker
from fusain.models.adapters.merging import apply, combine, merge_into
from fusain.models.adapters.names import nameless
from fusain.models.adapters.verification import Verified, verify, verify_styles

__all__ = [
    "Adapter",
    "Extracted",
    "Hadamard",
    "Kronecker",
    "Layer",
    "LowRank",
    "Style",
    "Verified",
    "apply",
    "combine",
    "extract",
    "for_model",
    "merge_into",
    "nameless",
    "read",
    "styles_for",
    "verify",
    "verify_styles",
    "write",
]
