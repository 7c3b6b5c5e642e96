"""Puts LoRAs into weights, and several LoRAs into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Final

import torch

from fusain.errors import SettingsError
from fusain.models.adapters import header
from fusain.models.adapters.adapter import Adapter, Layer, LowRank
from fusain.models.bases import layouts
from fusain.models.bases.opened import Base, Component
from fusain.models.text_names import PREFIX

SHOWN: Final = 5

Find = Callable[[str, str], torch.Tensor | None]
"""The weight of a network's module, by the two names."""


def apply(
    adapter: Adapter,
    modules: Mapping[str, torch.nn.Module],
    *,
    strength: float = 1.0,
    allow_partial: bool = False,
) -> int:
    """Add the adapter to the weights of `modules`, by 'unet', 'text_encoder' and so on; how many layers fitted.

    Nothing is changed unless all fit; `allow_partial` leaves out those that do not.
    """
    fitting = fit(adapter, finder(modules), allow_partial=allow_partial)
    with torch.no_grad():
        for name, weight in fitting.items():
            weight.copy_(weight.float() + adapter.layers[name].delta(weight, strength))
    return len(fitting)


def merge_into(
    base: Base, adapters: Sequence[tuple[Adapter, float]], *, allow_partial: bool = False
) -> tuple[Base, list[int]]:
    """`base` with all adapters in its weights, one after the other, and how many layers of each fitted."""
    changed: dict[str, dict[str, torch.Tensor]] = {}
    counts = []
    for adapter, strength in adapters:
        tensors = {part: changed.get(part) or base.components[part].tensors() for part in _held(adapter, base)}
        fitting = fit(adapter, partial(_tensor, tensors), allow_partial=allow_partial)
        for name, weight in fitting.items():
            part, _, path = name.partition(".")
            sum_ = weight.float() + adapter.layers[name].delta(weight, strength)
            tensors[part][f"{path}.weight"] = sum_.to(weight.dtype)
        changed |= tensors
        counts.append(len(fitting))
    components = {
        name: _Changed(part.name, part.class_name, part.config, part.stored, changed[name]) if name in changed else part
        for name, part in base.components.items()
    }
    return replace(base, components=components), counts


@dataclass(frozen=True)
class _Changed(Component):
    """A network of a base whose weights are no longer those of its files."""

    changed: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self.changed)


def combine(adapters: Sequence[tuple[Adapter, float]]) -> Adapter:
    """One adapter that adds what all of them add, each at its strength: exactly, its rank the sum of theirs."""
    parts: dict[str, list[tuple[LowRank, float]]] = {}
    for adapter, strength in adapters:
        for name, layer in adapter.layers.items():
            parts.setdefault(name, []).append((_summable(name, layer), strength))
    model = header.for_model(header.architecture(adapters[0][0]))
    return Adapter({name: _stacked(name, pairs) for name, pairs in sorted(parts.items())}, model)


def _summable(name: str, layer: Layer) -> LowRank:
    if not isinstance(layer, LowRank):
        raise SettingsError("E-LORA-010", where=name, kind="LoHa" if hasattr(layer, "a1") else "LoKr")
    if layer.magnitude is not None:
        raise SettingsError("E-LORA-010", where=name, kind="DoRA")
    return layer.plain()


def _stacked(name: str, pairs: Sequence[tuple[LowRank, float]]) -> LowRank:
    shapes = {(*layer.matrix, *layer.down.shape[2:]) for layer, _ in pairs}
    if len(shapes) > 1:
        found = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
        raise SettingsError("E-LORA-011", where=name, found=found)
    down = torch.cat([layer.down.float() for layer, _ in pairs])
    up = torch.cat([layer.up.float() * (layer.scale * strength) for layer, strength in pairs], dim=1)
    return LowRank(down, up, 1.0)


def fit(adapter: Adapter, find: Find, *, allow_partial: bool = False) -> dict[str, torch.Tensor]:
    """The weight of each layer; layers that fit nothing are an error that names the first ones."""
    fitting: dict[str, torch.Tensor] = {}
    others: list[str] = []
    for name, layer in adapter.layers.items():
        part, _, path = name.partition(".")
        weight = find(part, path)
        if weight is not None and fits(layer, weight):
            fitting[name] = weight
        else:
            has = "nothing" if weight is None else _spelt(weight.shape)
            others.append(f"{name} (LoRA: {_spelt(layer.matrix)}, model: {has})")
    if others and not (allow_partial and fitting):
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        shown = ", ".join(others[:SHOWN]) + more
        total = len(adapter.layers)
        raise SettingsError("E-LORA-009", matched=len(fitting), total=total, model=made_for(adapter), others=shown)
    return fitting


def finder(modules: Mapping[str, torch.nn.Module]) -> Find:
    """Finds weights in networks by 'unet' and 'text_encoder'."""
    return lambda part, path: _weight(modules.get(part), path)


def made_for(adapter: Adapter) -> str:
    """The model that an adapter seems to be made for, in words."""
    architecture = header.architecture(adapter)
    return layouts.in_words(architecture) if architecture else "a model of other sizes"


def fits(layer: Layer, weight: torch.Tensor | None) -> bool:
    """Whether a layer belongs to a weight, by its shape."""
    if weight is None or layer.matrix != (weight.shape[0], prod(weight.shape[1:])):
        return False
    kernel = layer.plain().down.shape[2:] if isinstance(layer, LowRank) else weight.shape[2:]
    return prod(kernel) == prod(weight.shape[2:])


def _weight(module: torch.nn.Module | None, path: str) -> torch.Tensor | None:
    """The weight of a module; text encoders have a level 'text_model' or not."""
    for name in (path, path.removeprefix(PREFIX)):
        try:
            found = module and module.get_submodule(name)
        except AttributeError:
            continue
        weight = getattr(found, "weight", None)
        return weight if isinstance(weight, torch.Tensor) and weight.ndim in (2, 4) else None
    return None


def finder_in(base: Base, adapter: Adapter) -> Find:
    """Finds weights in the files of a base."""
    return partial(_tensor, {part: base.components[part].tensors() for part in _held(adapter, base)})


def _tensor(tensors: Mapping[str, Mapping[str, torch.Tensor]], part: str, path: str) -> torch.Tensor | None:
    return tensors.get(part, {}).get(f"{path}.weight")


def _held(adapter: Adapter, base: Base) -> list[str]:
    return [part for part in adapter.parts if part in base.components]


def _spelt(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
