"""What the command line does with LoRA files and bases; nothing is ever written over."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import torch

from fusain.errors import FusainError, UsageError
from fusain.models.adapters import files, merging, verification
from fusain.models.adapters.adapter import Adapter
from fusain.models.bases import layouts, writing
from fusain.models.bases.opened import Base
from fusain.models.bases.opening import open_base
from fusain.models.bases.pickles import refuse_existing
from fusain.models.bases.single_file import READABLE


def with_strength(text: str) -> tuple[Path, float]:
    """FILE, or FILE=STRENGTH; a file may have an equals sign in its name."""
    name, _, number = text.rpartition("=")
    if not name or Path(text).exists():
        return Path(text), 1.0
    try:
        strength = float(number)
    except ValueError:
        strength = float("nan")
    if not isfinite(strength):
        raise UsageError("E-LORA-017", text=number)
    return Path(name), strength


def write_new(
    adapter: Adapter, out: Path, style: files.Style, *, dtype: torch.dtype | None = None
) -> verification.Verified:
    """A file where none is, read back and compared; one that is not as it should be does not stay."""
    check_name(out)
    files.write(adapter, out, style, dtype=dtype or torch.float32)
    try:
        return verification.verify(adapter, out)
    except FusainError:
        out.unlink()
        raise


def check_name(out: Path) -> None:
    """A LoRA can be written there, and nothing is there."""
    if out.suffix != ".safetensors":
        raise UsageError("E-LORA-018", path=out, stem=out.with_suffix("").name)
    refuse_existing(out)


def weights_of(base: Base, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The weight of each layer of `adapter` in `base`; a layer that fits nothing is an error."""
    if not base.components:
        raise _unread(base)
    return merging.fit(adapter, merging.finder_in(base, adapter))


def write_merged(
    source: str,
    adapters: Sequence[tuple[Adapter, float]],
    out: Path,
    *,
    allow_partial: bool = False,
    tokenizer: str | None = None,
) -> list[int]:
    """The base at `source` with the adapters in its weights, as a diffusers folder; how many layers of each fitted."""
    refuse_existing(out)
    base = open_base(source)
    if layouts.plain(base.architecture) not in READABLE:
        raise _unread(base)
    merged, counts = merging.merge_into(base, adapters, allow_partial=allow_partial)
    writing.write_folder(merged, out, tokenizer, prediction=base.prediction)
    return counts


def _unread(base: Base) -> FusainError:
    wanted = " or ".join(map(layouts.in_words, READABLE))
    return layouts.wrong(base.source, layouts.in_words(base.architecture), wanted, base.evidence)
