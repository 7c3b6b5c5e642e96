"""Reads LoRA files back after they were written and holds them against what they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from fusain.errors import StorageError
from fusain.models.adapters import files, merging
from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.bases.stored import read_header

EXACT: Final = 1e-6
TOLERANCE: Final = {
    "F64": EXACT,
    "F32": EXACT,
    "F16": torch.finfo(torch.float16).eps,
    "BF16": torch.finfo(torch.bfloat16).eps,
}
"""How far a change may be from the one meant, as a share of its largest number, by the type in the file; the widest
of a file's types counts, for lengths are exact in every file."""

WeightOf = Callable[[str], torch.Tensor | None]
"""The weight that a layer belongs to, by the layer's name; None where the model has none."""


@dataclass(frozen=True)
class Verified:
    """What was compared."""

    layers: int
    matched: int
    """Layers that were found in each file and, where weights are known, that fit the one that they belong to."""
    styles: tuple[str, ...]
    largest: float
    """The largest difference from what was meant, as a share of the layer's largest change."""

    def as_json(self) -> dict[str, object]:
        return {"layers": self.layers, "matched": self.matched, "styles": list(self.styles), "largest": self.largest}


def verify(adapter: Adapter, *paths: Path, weight_of: WeightOf | None = None) -> Verified:
    """Each file holds every layer of `adapter`, as strong; with weights, each layer has its place among them.

    What a DoRA adds hangs on the weight: only beside it the two are compared by what they add.
    """
    return _compared(adapter, paths, weight_of)


def verify_styles(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> Verified:
    """As `verify`, of files that are written only for that, in each style that can hold the adapter."""
    styles = files.styles_for(adapter)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{style}.safetensors" for style in styles]
        for path, style in zip(paths, styles, strict=True):
            files.write(adapter, path, style)
        return _compared(adapter, paths, weights.get)


def _compared(adapter: Adapter, paths: Sequence[Path], weight_of: WeightOf | None) -> Verified:
    largest, matched, styles = 0.0, len(adapter.layers), []
    for path in paths:
        found = files.read(path)
        styles.append(found.style)
        matched = min(matched, _count_matched(adapter, found, weight_of, path))
        dtypes = {at.dtype for name, at in read_header(path).tensors.items() if not name.endswith(".alpha")}
        allowed = max(TOLERANCE.get(dtype, EXACT) for dtype in dtypes)
        for name, layer in adapter.layers.items():
            weight = weight_of(name) if weight_of is not None and layer.magnitude is not None else None
            share = _apart(layer, found.layers[name], weight)
            if not share <= allowed:
                raise StorageError("E-LORA-016", where=str(path), layer=name, share=share, allowed=allowed)
            largest = max(largest, share)
    return Verified(len(adapter.layers), matched, tuple(styles), largest)


def _count_matched(adapter: Adapter, found: Adapter, weight_of: WeightOf | None, path: Path) -> int:
    """The layers of a file that are those of the adapter and have their place; one more or fewer is an error."""
    matched = {
        name
        for name, layer in found.layers.items()
        if name in adapter.layers and (weight_of is None or merging.fits(layer, weight_of(name)))
    }
    others = sorted((found.layers.keys() | adapter.layers.keys()) - matched)
    if others:
        facts = {"matched": len(matched), "total": len(adapter.layers), "first": others[0]}
        raise StorageError("E-LORA-015", where=str(path), **facts)
    return len(matched)


def _apart(wanted: Layer, found: Layer, weight: torch.Tensor | None) -> float:
    """The largest difference as a share of the largest number; of DoRA without a weight, of the change alone.

    Its lengths must then be exact: they count as much as the weight, of which the change is a small part.
    """
    if _is_same(wanted, found):
        return 0.0
    if weight is not None:
        return _share(wanted.delta(weight), found.delta(weight))
    if wanted.magnitude is not None and (found.magnitude is None or _share(wanted.magnitude, found.magnitude) > EXACT):
        return float("inf")
    return _share(wanted.change(), found.change())


def _is_same(wanted: Layer, found: Layer) -> bool:
    """Equal matrices with the factor in them make equal changes, which are then not worth working out."""
    if not isinstance(wanted, LowRank) or not isinstance(found, LowRank) or wanted.mid is not None:
        return False
    pairs = [(wanted.down.float(), found.down), (wanted.up.float() * wanted.scale, found.up.float() * found.scale)]
    if wanted.magnitude is not None and found.magnitude is not None:
        pairs.append((wanted.magnitude.float(), found.magnitude))
    elif wanted.magnitude is not found.magnitude:
        return False
    return all(one.shape == two.shape and torch.equal(one.detach().cpu(), two.float().cpu()) for one, two in pairs)


def _share(wanted: torch.Tensor, found: torch.Tensor) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    wanted = wanted.detach().cpu().float()
    size = float(wanted.abs().max())
    apart = float((found.detach().cpu().float() - wanted).abs().max())
    return apart / size if size else apart
