"""What a LoRA file is, for people: style, kinds of layers, ranks, the model it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fusain.errors import SettingsError
from fusain.models.adapters import parsing
from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.adapters.files import read
from fusain.models.adapters.lycoris import Hadamard
from fusain.models.bases import detection
from fusain.models.bases.pickles import looks_pickled
from fusain.models.bases.stored import Header, read_header
from fusain.settings.notice import Notice


@dataclass(frozen=True)
class Facts:
    """What is known of a file; of a LoRA for a model that is not read, no layers."""

    style: str
    architecture: str
    """A key of `layouts.ARCHITECTURES`; empty where nothing tells."""
    tensors: int
    dtype: str
    metadata: Mapping[str, str]
    parts: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    alphas: Mapping[float, int] = field(default_factory=dict)
    """alpha as kohya counts it: the factor times the rank."""
    notes: tuple[Notice, ...] = ()

    @property
    def counts(self) -> dict[str, Mapping[Any, int]]:
        """Layers by network, kind, rank and alpha."""
        return {"layers": self.parts, "layer kind": self.kinds, "rank": self.ranks, "alpha": self.alphas}

    def as_json(self) -> dict[str, object]:
        return {
            "kind": "lora",
            "style": self.style,
            "architecture": self.architecture or None,
            "tensors": self.tensors,
            "dtype": self.dtype,
            "layers": dict(self.parts),
            "kinds": dict(self.kinds),
            "ranks": dict(self.ranks),
            "alphas": dict(self.alphas),
            "metadata": dict(self.metadata),
            "notes": [note.as_json() for note in self.notes],
        }


def is_lora(path: Path) -> bool:
    """Whether a safetensors file holds a LoRA, by its header alone; a pickle is not looked into."""
    if not path.is_file() or looks_pickled(path):
        return False
    found = detection.look(read_header(path).shapes)
    return found is not None and found.holds == ("lora",)


def inspect(path: Path) -> Facts:
    """The facts of a LoRA file; of one for another model only what its header says."""
    header = read_header(path)
    found = detection.look(header.shapes)
    told = (found.architecture if found else "", len(header.tensors), _dtype(header), header.metadata)
    try:
        adapter = read(path, allow_partial=True)
    except SettingsError as fault:
        if fault.code != "E-LORA-006":
            raise
        return Facts(parsing.style_of(list(header.tensors)), *told)
    return Facts(adapter.style, *told, adapter.parts, *_counted(adapter), adapter.notes)


def dtype_of(path: Path) -> torch.dtype:
    """The type of most tensors of a file, as far as it is one that is written here; fp32 otherwise."""
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(_dtype(read_header(path)), torch.float32)


def _dtype(header: Header) -> str:
    """The type of most tensors with more than one number, as safetensors spells it."""
    found = Counter(at.dtype for at in header.tensors.values() if at.shape)
    return found.most_common(1)[0][0] if found else ""


def _counted(adapter: Adapter) -> tuple[dict[str, int], dict[int, int], dict[float, int]]:
    layers = adapter.layers.values()
    kinds = Counter(kind_of(layer) for layer in layers)
    ranks = Counter(layer.rank for layer in layers)
    alphas = Counter(round(layer.scale * layer.rank, 4) for layer in layers)
    return (dict(kinds.most_common()), dict(ranks.most_common()), dict(alphas.most_common()))


def kind_of(layer: Layer) -> str:
    """As users know it."""
    if not isinstance(layer, LowRank):
        return "LoHa" if isinstance(layer, Hadamard) else "LoKr"
    return "DoRA" if layer.magnitude is not None else "LoCon" if layer.mid is not None else "LoRA"
