"""Reading and writing LoRA files: diffusers' style and kohya's, of equal strength."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from fusain.data.lock import some
from fusain.errors import SettingsError, StorageError
from fusain.models.adapters import header, names, parsing
from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.bases import detection, layouts
from fusain.models.bases.pickles import beside
from fusain.models.bases.stored import Shapes, read_header, read_tensors
from fusain.settings.notice import Notice

Style = Literal["diffusers", "kohya"]
STYLES: Final[tuple[Style, ...]] = ("diffusers", "kohya")
SHOWN: Final = 5
OF_CHECKPOINTS: Final = ("MANIFEST.json", "state.json")
"""What lies beside the tensors of a run that is going on."""


def read(path: Path, *, allow_partial: bool = False) -> Adapter:
    """The LoRA in `path`, of any style; what is no LoRA, is broken or is for another model is an error.

    `allow_partial` leaves out tensors that belong to no layer, as long as others do, and notes it.
    """
    if not path.is_file():
        raise StorageError("E-LORA-001", where=str(path))
    _refuse_parts_of_checkpoints(path)
    found = read_header(path)
    refuse_others(found.shapes, where=str(path))
    tensors = read_tensors(found.tensors)
    _refuse_non_finite(tensors, where=str(path))
    groups, unknown = parsing.grouped(tensors)
    left_out = _left_out(found.shapes, unknown, where=str(path), allow_partial=allow_partial)
    alphas = parsing.Alphas(parsing.style_of(list(tensors)), found.metadata, str(path))
    layers = {name: parsing.layer_of(name, group, alphas) for name, group in sorted(groups.items())}
    notes = (*left_out, *alphas.notes(len(layers)), *_zeros(tensors, where=str(path)))
    known = header.for_model(names.XL) if names.are_of_xl(tensors) else {}
    return Adapter(layers, {**known, **found.metadata}, alphas.style, notes)


def write(
    adapter: Adapter,
    path: Path,
    style: Style,
    *,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """`adapter` as a safetensors file, whole or not at all; an older file at `path` is replaced."""
    tensors: dict[str, torch.Tensor] = {}
    kind = header.architecture(replace(adapter, metadata={**adapter.metadata, **(metadata or {})}))
    for name, layer in adapter.layers.items():
        plain = _writable(name, layer, style)
        made = (
            _kohya(names.to_kohya(name, kind), plain, dtype)
            if style == "kohya"
            else _diffusers(name, plain, dtype, adapter)
        )
        tensors |= {key: tensor.detach().to("cpu").contiguous() for key, tensor in made.items()}
    own = {"modelspec.title": path.stem} | ({parsing.FACTOR_WITHIN: "in lora_B"} if style == "diffusers" else {})
    with beside(path) as waiting:
        waiting.write_bytes(header.whole(tensors, header.composed(adapter, {**own, **(metadata or {})})))
        os.replace(waiting, path)


def styles_for(adapter: Adapter) -> tuple[Style, ...]:
    """The styles that can hold every layer; for LoHa and LoKr, which are only read, none."""
    layers = [layer for layer in adapter.layers.values() if isinstance(layer, LowRank)]
    if len(layers) < len(adapter.layers):
        return ()
    measures_inputs = any(layer.magnitude is not None and layer.magnitude.ndim > 1 for layer in layers)
    has_names = not names.nameless(adapter.layers, header.architecture(adapter))
    holds = {"diffusers": not measures_inputs, "kohya": has_names}
    return tuple(style for style in STYLES if holds[style])


def _refuse_parts_of_checkpoints(path: Path) -> None:
    """What learns is called as in diffusers' style there, without the factor that it counts by."""
    folder = path.absolute().parent
    if all((folder / name).is_file() for name in OF_CHECKPOINTS):
        run, step = folder.parent.parent, folder.name.removeprefix("step-").lstrip("0")
        raise SettingsError("E-LORA-022", where=str(path), name=path.name, run=run, step=step)


def refuse_others(shapes: Shapes, *, where: str) -> None:
    """What is no LoRA at all, told by its names and shapes."""
    found = detection.look(shapes)
    if found is None:
        raise SettingsError("E-LORA-002", where=where, found="none of its names is known")
    if found.holds != ("lora",):
        raise SettingsError("E-LORA-002", where=where, found=f"this is {found.words}")


def made_for(shapes: Shapes) -> str:
    """The model that a LoRA file seems to be made for, in words."""
    found = detection.look(shapes)
    if found is None or not found.architecture:
        return "a model of another kind"
    return layouts.in_words(found.architecture)


def _left_out(shapes: Shapes, unknown: list[str], *, where: str, allow_partial: bool) -> tuple[Notice, ...]:
    """What is said of tensors that belong to no layer; where none belongs, or no word was given, it is an error."""
    if not unknown:
        return ()
    matched = len(shapes) - len(unknown)
    facts: dict[str, Any] = {"count": len(unknown), "total": len(shapes), "matched": matched}
    facts["first"] = some(unknown, SHOWN)
    if not matched:
        raise SettingsError("E-LORA-006", where=where, model=made_for(shapes), **facts)
    if not allow_partial:
        raise SettingsError("E-LORA-024", where=where, model=made_for(shapes), **facts)
    return (Notice("W-LORA-004", where=where, **facts),)


def _refuse_non_finite(tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise StorageError("E-LORA-003", where=where, name=name)


def _zeros(tensors: Mapping[str, torch.Tensor], *, where: str) -> tuple[Notice, ...]:
    empty = [name for name, tensor in tensors.items() if tensor.ndim > 1 and not bool(tensor.any())]
    return (Notice("W-LORA-003", where=where, count=len(empty), first=empty[0]),) if empty else ()


def _writable(name: str, layer: Layer, style: Style) -> LowRank:
    """A layer that both styles can hold; of the others, one that says why not."""
    if not isinstance(layer, LowRank):
        raise SettingsError("E-LORA-007", where=name, kind="LoHa" if hasattr(layer, "a1") else "LoKr")
    if layer.magnitude is not None and layer.magnitude.ndim > 1 and style == "diffusers":
        raise SettingsError("E-LORA-008", where=name)
    return layer.plain()


def _kohya(key: str, layer: LowRank, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """alpha is such that alpha / rank is the whole factor, also of rsLoRA; it stays in fp32, being one number."""
    made = {
        f"{key}.alpha": torch.tensor(layer.scale * layer.rank, dtype=torch.float32),
        f"{key}.lora_down.weight": layer.down.to(dtype),
        f"{key}.lora_up.weight": layer.up.to(dtype),
    }
    if layer.magnitude is not None:
        # One column: readers tell by the first number that each output has a length, not each input.
        per_output = layer.magnitude.ndim == 1
        shape = (-1, *[1] * (layer.down.ndim - 1)) if per_output else tuple(layer.magnitude.shape)
        made[f"{key}.dora_scale"] = _exact(layer.magnitude).reshape(shape)
    return made


def _diffusers(name: str, layer: LowRank, dtype: torch.dtype, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The factor is multiplied into the second matrix: whatever a reader does about alpha, the strength is right."""
    a, b = ("lora_linear_layer.down", "lora_linear_layer.up") if _needs_older(name, adapter) else ("lora_A", "lora_B")
    made = {
        f"{name}.{a}.weight": layer.down.to(dtype),
        f"{name}.{b}.weight": (layer.up.float() * layer.scale).to(dtype),
    }
    if layer.magnitude is not None:
        shape = (1, -1, 1, 1) if layer.down.ndim == 4 else (-1,)
        # transformers looks for the whole name of the parameter, PEFT for the name of the vector.
        end = ".weight" if name.startswith(names.TEXT) else ""
        made[f"{name}.lora_magnitude_vector{end}"] = _exact(layer.magnitude).reshape(shape)
    return made


def _exact(lengths: torch.Tensor) -> torch.Tensor:
    """In fp32 in every file: they are few, and a rounded one moves a whole row, of which the change is a small part."""
    return lengths.to(torch.float32)


def _needs_older(name: str, adapter: Adapter) -> bool:
    """diffusers knows its own style of a text encoder only by attention layers; without any it reads the older one."""
    part = name.partition(".")[0]
    is_text = part.startswith(names.TEXT)
    return is_text and not any(layer.startswith(part + ".") and ".self_attn." in layer for layer in adapter.layers)
