"""Lays the sources of settings over each other: the later wins, and a switched `kind` clears what the other set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticUndefined

from fusain.settings import schema
from fusain.settings.layers import Layer, Origin
from fusain.settings.section import Section

Path = tuple[str, ...]


@dataclass
class Merged:
    """What came of it: nested values, where each leaf came from, and what was set aside with a switched kind."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)
    set_aside: dict[Path, tuple[Origin, Origin]] = field(default_factory=dict)
    """The user's own settings that a later source made void: where it was set, and what made it void."""
    rivals: list[tuple[Path, Path]] = field(default_factory=list)
    """Settings of which one source gives both though each stands in place of the other."""


def merge(root: type[Section], layers: Iterable[Layer]) -> Merged:
    """All `layers` as one, in their order."""
    merged = Merged()
    for layer in layers:
        _merge_section(root, merged.values, layer.values, layer, (), merged)
    _name_kinds(root, merged.values)
    return merged


def _merge_section(
    section: type[Section] | None,
    into: dict[str, Any],
    new: Mapping[str, Any],
    layer: Layer,
    path: Path,
    merged: Merged,
) -> None:
    for name, value in new.items():
        here = (*path, name)
        field_info = section.model_fields.get(name) if section else None
        kinds = schema.variants(field_info.annotation) if field_info else {}
        if not isinstance(value, dict) or (field_info is not None and not kinds):
            _forget(merged.origins, here)
            into[name] = _read(value, field_info, layer.raw.get(here))
            if into[name] is not None:
                _replace_rival(field_info, into, new, layer, here, merged)
            merged.origins[here] = layer.origin(here)
            continue
        inner = into.get(name)
        if not isinstance(inner, dict):
            inner = into[name] = _set_in_default(field_info)
        if field_info is not None and any(kinds):
            _switch_kind(inner, value, schema.default_kind(field_info), layer, here, merged)
        variant = kinds.get(str(inner.get("kind", ""))) if kinds else None
        if variant is None and len(kinds) == 1:
            variant = next(iter(kinds.values()))
        _merge_section(variant, inner, value, layer, here, merged)


def _switch_kind(
    inner: dict[str, Any], value: Mapping[str, Any], default_kind: str, layer: Layer, here: Path, merged: Merged
) -> None:
    """When `value` names another kind than the one that holds, what was set for that one does not apply any more."""
    holds = inner.get("kind", default_kind)
    kind = value.get("kind", holds)
    if kind == holds:
        return
    switch = layer.origin((*here, "kind"))
    for path in [path for path in merged.origins if path[: len(here)] == here]:
        origin = merged.origins.pop(path)
        if origin.is_users and path[len(here) :] != ("kind",):
            merged.set_aside[path] = (origin, switch)
    inner.clear()
    inner["kind"] = kind


def _replace_rival(
    field_info: Any, into: dict[str, Any], new: Mapping[str, Any], layer: Layer, here: Path, merged: Merged
) -> None:
    """Of two settings that stand in place of each other (`epochs`, `steps`) the one from the later source holds."""
    rival = schema.notes(field_info).get("instead_of") if field_info else None
    if rival is None or into.get(rival) is None:
        return
    path = (*here[:-1], rival)
    if new.get(rival, "none") != "none":
        merged.rivals.append((path, here))
        return
    origin = merged.origins.pop(path, None)
    del into[rival]
    if origin is not None and origin.is_users:
        merged.set_aside[path] = (origin, layer.origin(here))


def _set_in_default(field_info: Any) -> dict[str, Any]:
    """What the default of a section sets beside the section's own defaults, and its kind."""
    if field_info is None:
        return {}
    default = schema.default_of(field_info)
    dumped: Any = default.model_dump(mode="json", exclude_unset=True) if isinstance(default, Section) else default
    values = dict(dumped) if isinstance(dumped, dict) else {}
    if len(schema.variants(field_info.annotation)) > 1:
        values.setdefault("kind", schema.default_kind(field_info))
    return values


def _read(value: Any, field_info: Any, raw: str | None) -> Any:
    """The value as its setting takes it: TOML has no `none`, and a word of the command line may be meant as text."""
    if field_info is None:
        return value
    annotation = field_info.annotation
    if value == "none" and schema.allows(annotation, type(None)) and "none" not in schema.choices_of(annotation):
        return None
    if raw is not None and not isinstance(value, str | list | dict) and schema.takes_text_only(annotation):
        return raw
    return value


def _name_kinds(section: type[Section], values: dict[str, Any]) -> None:
    """Writes down the kinds and the sections that validation needs but no source names."""
    for name, field_info in section.model_fields.items():
        kinds = schema.variants(field_info.annotation)
        if kinds and name not in values and schema.default_of(field_info) is PydanticUndefined:
            values[name] = {}
        inner = values.get(name)
        if not kinds or not isinstance(inner, dict):
            continue
        if len(kinds) > 1:
            inner.setdefault("kind", schema.default_kind(field_info))
        variant = kinds.get(str(inner.get("kind", ""))) or (next(iter(kinds.values())) if len(kinds) == 1 else None)
        if variant is not None:
            _name_kinds(variant, inner)


def _forget(origins: dict[Path, Origin], here: Path) -> None:
    for path in [path for path in origins if path[: len(here)] == here]:
        del origins[path]
