"""A base as it was opened: its networks with their configurations, and where their weights lie."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import torch

from fusain.models import noise
from fusain.models.bases import content
from fusain.models.bases.stored import Stored, read_tensors
from fusain.settings.notice import Notice

Weights = Literal["ema", "raw"]

VOLATILE: Final = ("transformers_version", "dtype", "torch_dtype", "architectures", "auto_map")
"""Entries of a configuration that change no number; neither do those that begin with an underscore."""


@dataclass(frozen=True)
class Component:
    """One network of a base; its tensors are named as diffusers and transformers save them."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    stored: Mapping[str, Stored] = field(repr=False)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All weights, memory-mapped; text encoders in the layout with `text_model.`."""
        return read_tensors(self.stored)

    @property
    def parameters(self) -> int:
        return sum(prod(place.shape) for place in self.stored.values())

    @property
    def dtype(self) -> str:
        """The type of most of its numbers, as safetensors spells it: F32, F16, BF16."""
        counts: Counter[str] = Counter()
        for place in self.stored.values():
            counts[place.dtype] += prod(place.shape)
        return counts.most_common(1)[0][0] if counts else ""

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration without notes of the library that wrote it."""
        return {key: value for key, value in self.config.items() if key not in VOLATILE and not key.startswith("_")}


@dataclass(frozen=True)
class Base:
    """A model to start from, opened but not loaded."""

    source: str
    """As the user gave it."""
    architecture: str
    """A key of `layouts.ARCHITECTURES`; only what `components` holds can be read."""
    components: Mapping[str, Component]
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration; without `prediction_type` where the base cannot say."""
    tokenizer: Path | None = None
    """Folder of tokenizer files, where it brings one."""
    tokenizer_2: Path | None = None
    """That of the second text encoder."""
    tokenizer_3: Path | None = None
    """That of the third."""
    hides_by_zeros: bool = False
    """Whether a hidden caption is zeros, rather than what the encoders make of an empty one."""
    revision: str | None = None
    """Commit of a hub id."""
    folder: Path | None = None
    """Where the files lie; None for a single file."""
    evidence: str = ""
    """What told the architecture: a key of the weights with its shape, or an entry of a configuration."""
    notes: tuple[Notice, ...] = ()
    """What to tell the user though nothing is wrong."""

    @property
    def prediction(self) -> noise.Prediction | None:
        """What the UNet predicts; None where the base cannot say, and where it matches a flow."""
        said = self.scheduler.get("prediction_type")
        return next((ours for ours, theirs in noise.PREDICTIONS.items() if theirs == said), None)

    @property
    def predicts(self) -> noise.Asked | None:
        """As `prediction`, with what is no diffusion."""
        return "flow" if self.architecture == "sd3" else self.prediction

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files that are read."""
        return tuple(sorted({place.file for part in self.components.values() for place in part.stored.values()}))

    @cached_property
    def id(self) -> str:
        """SHA-256 of every weight that is read and of every configuration; long the first time, then kept."""
        return self.id_of(self.components)

    def id_of(self, names: Iterable[str]) -> str:
        """The same of some components; it stays what it was where only others were trained."""
        lines = []
        for name, part in sorted((name, self.components[name]) for name in names):
            hashes = {path: content.sha256(path) for path in {at.file for at in part.stored.values()}}
            lines.append(json.dumps([name, part.class_name, part.settings], sort_keys=True, default=list))
            places = sorted((key, hashes[at.file], at.key, at.part) for key, at in part.stored.items())
            lines.append(json.dumps(places))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
