"""Reads LoRA files back after they were written and holds them against what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from fusain.errors import StorageError
from fusain.models.adapters import files, merging
from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.bases.stored import read_header

TOLERANCE: Final = {
    "F64": 1e-6,
    "F32": 1e-6,
    "F16": torch.finfo(torch.float16).eps,
    "BF16": torch.finfo(torch.bfloat16).eps,
}
"""How far a change may be from the one meant, as a share of its largest number, by the type in the file."""


@dataclass(frozen=True)
class Verified:
    """What was compared."""

    layers: int
    matched: int
    """Layers of the model that a layer of the adapter belongs to; 0 where no model was given."""
    styles: tuple[str, ...]
    largest: float
    """The largest difference from what was meant, as a share of the layer's largest change."""

    def as_json(self) -> dict[str, object]:
        return {"layers": self.layers, "matched": self.matched, "styles": list(self.styles), "largest": self.largest}


def verify(adapter: Adapter, *paths: Path, modules: Mapping[str, torch.nn.Module] | None = None) -> Verified:
    """Each file holds every layer of `adapter`, as strong, and every layer has its place in `modules`."""
    weights = {} if modules is None else merging.fit(adapter, merging.finder(modules))
    return _compared(adapter, paths, weights, matched=len(weights))


def verify_styles(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> Verified:
    """As `verify`, of files that are written only for that, in each style that can hold the adapter."""
    styles = files.styles_for(adapter)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{style}.safetensors" for style in styles]
        for path, style in zip(paths, styles, strict=True):
            files.write(adapter, path, style)
        return _compared(adapter, paths, weights, matched=len(weights))


def _compared(
    adapter: Adapter, paths: tuple[Path, ...] | list[Path], weights: Mapping[str, torch.Tensor], *, matched: int
) -> Verified:
    largest, styles = 0.0, []
    for path in paths:
        found = files.read(path)
        styles.append(found.style)
        dtypes = {at.dtype for name, at in read_header(path).tensors.items() if not name.endswith(".alpha")}
        allowed = max(TOLERANCE.get(dtype, 1e-6) for dtype in dtypes)
        unlike = sorted(found.layers.keys() ^ adapter.layers.keys())
        if unlike:
            facts = {"matched": len(found.layers.keys() & adapter.layers.keys()), "total": len(adapter.layers)}
            raise StorageError("E-LORA-015", where=str(path), first=unlike[0], **facts)
        for name, layer in adapter.layers.items():
            share = _apart(layer, found.layers[name], weights.get(name))
            if not share <= allowed:
                raise StorageError("E-LORA-016", where=str(path), layer=name, share=share, allowed=allowed)
            largest = max(largest, share)
    return Verified(len(adapter.layers), matched, tuple(styles), largest)


def _apart(wanted: Layer, found: Layer, weight: torch.Tensor | None) -> float:
    """The largest difference as a share of the largest number; of DoRA without a weight, of change and lengths."""
    if _is_same(wanted, found):
        return 0.0
    if weight is not None:
        return _share(wanted.delta(weight), found.delta(weight))
    if isinstance(wanted, LowRank) and wanted.magnitude is not None:
        lengths = found.magnitude
        if lengths is None:
            return float("inf")
        return max(_share(wanted.change(), found.change()), _share(wanted.magnitude, lengths))
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
