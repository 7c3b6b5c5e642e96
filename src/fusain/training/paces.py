"""How fast each parameter learns beside the others: factors of the learning rate, and weight decay, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from pydantic import model_validator

from fusain.errors import SettingsError
from fusain.settings.section import Section, advanced

Paces = dict[str, dict[str, float]]
"""`factor` and `weight_decay` by parameter."""


class PartSettings(Section):
    """Parameters that learn at a pace of their own."""

    names: str = advanced(min_length=1, examples=["text_encoder", "*.bias", "up_blocks.*.attn2"])
    """Which parameters, by a stretch of their names between dots; `*` stands for anything. The first part that covers
    a parameter counts."""
    learning_rate: float | None = advanced(None, gt=0, le=1)
    """Their learning rate in place of `train.learning_rate`; it follows the schedule, and a method's factors count."""
    weight_decay: float | None = advanced(None, ge=0, le=1)
    """Their weight decay in place of `train.weight_decay`."""

    @model_validator(mode="after")
    def _says_something(self) -> PartSettings:
        if self.learning_rate is None and self.weight_decay is None:
            raise ValueError("give learning_rate, weight_decay or both")
        return self


def paces(
    names: Collection[str],
    factors: Mapping[str, float],
    parts: Sequence[PartSettings] = (),
    *,
    learning_rate: float,
    weight_decay: float,
) -> Paces:
    """The pace of each parameter; a part that covers none is a mistake."""
    found: Paces = {name: {"factor": factors.get(name, 1.0), "weight_decay": weight_decay} for name in names}
    left = dict.fromkeys(names)
    for number, part in enumerate(parts):
        covered = [name for name in names if covers(part.names, name)]
        if not covered:
            raise _covers_nothing(part, number, names)
        for name in covered:
            if name in left:
                del left[name]
                found[name] |= _own(part, found[name]["factor"], learning_rate)
    return found


def covers(pattern: str, name: str) -> bool:
    """Whether a pattern is a name, or any stretch of it between dots."""
    return any(fnmatchcase(name, around) for around in (pattern, f"*.{pattern}", f"{pattern}.*", f"*.{pattern}.*"))


def _own(part: PartSettings, factor: float, learning_rate: float) -> dict[str, float]:
    own: dict[str, float] = {}
    if part.learning_rate is not None:
        own["factor"] = factor * part.learning_rate / learning_rate
    if part.weight_decay is not None:
        own["weight_decay"] = part.weight_decay
    return own


def _covers_nothing(part: PartSettings, number: int, names: Collection[str]) -> SettingsError:
    words: dict[str, Any] = dict.fromkeys(word for name in names for word in name.split(".") if not word.isdecimal())
    near = get_close_matches(part.names.strip("*."), words, cutoff=0.5) or list(words)[:3]
    where = f"train.parts[{number}].names"
    return SettingsError("E-TRAIN-004", where=where, pattern=part.names, nearest="', '".join(near))
