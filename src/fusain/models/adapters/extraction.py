"""The LoRA that leads from one model to another: of each weight's difference, what a low rank can hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fusain.errors import SettingsError, UsageError
from fusain.models.adapters import header, names
from fusain.models.adapters.adapter import Adapter, LowRank
from fusain.models.bases.opened import Base
from fusain.settings.notice import Notice


@dataclass(frozen=True)
class Extracted:
    """What came out, and how much of the difference it holds."""

    adapter: Adapter
    kept: float
    """Share of the squared difference of all weights that a LoRA can change."""
    notes: tuple[Notice, ...] = ()


def extract(base: Base, tuned: Base, *, rank: int) -> Extracted:
    """The best LoRA of `rank` from `base` to `tuned`, by singular values; weights that are equal get no layer."""
    if rank < 1:
        raise UsageError("E-LORA-014", rank=rank)
    layers: dict[str, LowRank] = {}
    kept = whole = 0.0
    others: list[str] = []
    for name, difference in _differences(base, tuned):
        layer = names.from_diffusers(name.removesuffix(".weight"))
        if layer is None or difference.ndim not in (2, 4):
            others.append(name)
            continue
        layers[layer], held = _lowered(difference, rank)
        kept += held
        whole += float(difference.square().sum())
    if not layers:
        raise SettingsError("E-LORA-012", where=tuned.source, base=base.source, others=len(others))
    notes = (Notice("W-LORA-002", where=tuned.source, count=len(others), first=others[0]),) if others else ()
    model = header.for_model(base.architecture, base.prediction)
    return Extracted(Adapter(layers, model), kept / whole, notes)


def _differences(base: Base, tuned: Base) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight that is not equal in both, in fp64."""
    if base.architecture != tuned.architecture:
        found = f"{base.source} is {base.architecture}, {tuned.source} is {tuned.architecture}"
        raise SettingsError("E-LORA-013", where=tuned.source, found=found)
    for part in (part for part in names.PARTS if part in base.components):
        ours, theirs = base.components[part].tensors(), tuned.components[part].tensors()
        unlike = [key for key in ours if key not in theirs or theirs[key].shape != ours[key].shape]
        if unlike:
            raise SettingsError("E-LORA-013", where=tuned.source, found=f"{part}.{unlike[0]} is not alike in both")
        for key, before in ours.items():
            difference = theirs[key].double() - before.double()
            if bool(difference.any()):
                yield f"{part}.{key}", difference


def _lowered(difference: torch.Tensor, rank: int) -> tuple[LowRank, float]:
    """The nearest change of a rank, both matrices of equal size, and its squared length."""
    flat = difference.flatten(1)
    rank = min(rank, *flat.shape)
    # Directions of the outputs by the eigenvectors of D Dᵀ: as exact as needed in fp64, and much quicker than an SVD.
    strengths, directions = torch.linalg.eigh(flat @ flat.T)
    strengths, up = strengths[-rank:].clamp_min(0).flip(0), directions[:, -rank:].flip(1)
    down = up.T @ flat
    size = strengths.sqrt().sqrt()
    size = torch.where(size > 0, size, 1.0)
    is_convolution = difference.ndim == 4
    shapes = ((rank, *difference.shape[1:]), (-1, rank, 1, 1) if is_convolution else (-1, rank))
    layer = LowRank((down / size[:, None]).reshape(shapes[0]).float(), (up * size).reshape(shapes[1]).float(), 1.0)
    return layer, float(down.square().sum())
