"""From all sources to one frozen settings object: default < the user's settings < recipe < file < overrides."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fusain.errors import FusainError, SettingsError
from fusain.settings import explain, layers, recipes, schema, user_file
from fusain.settings.layers import DEFAULT, Layer, Origin
from fusain.settings.merge import Merged, merge
from fusain.settings.notice import Notice
from fusain.settings.section import SCHEMA_VERSION, Section

S = TypeVar("S", bound=Section)

_UNUSUAL: Final = 5.0
"""How many times above or below the usual range a number must be to be worth a warning."""


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """Checked settings, where each came from, and what to tell the user before the run starts."""

    settings: S
    origins: Mapping[str, Origin] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    recipe: str = ""

    def origin(self, key: str) -> Origin:
        """Where the value of `key` ("train.steps") came from."""
        return self.origins.get(key, DEFAULT)


def resolve_source(schema_class: type[S], source: Path | str, overrides: layers.Overrides = ()) -> Resolved[S]:
    """The settings of a TOML file, or of a recipe by its name where no such file exists, over the user's own."""
    if not Path(source).is_file() and str(source) in recipes.names():
        return resolve(schema_class, recipe=str(source), overrides=overrides, over_users=True)
    return resolve(schema_class, path=Path(source), overrides=overrides, over_users=True)


def resolve(
    schema_class: type[S],
    *,
    path: Path | None = None,
    text: str | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    overrides: layers.Overrides = (),
    over_users: bool = False,
) -> Resolved[S]:
    """One merge and one validation of all sources; every fault is told at once."""
    written = [layers.from_file(path)] if path is not None else []
    if text is not None:
        written.append(layers.from_text(text))
    stack = [*written, layers.from_overrides(overrides)]
    where = ""
    for layer in stack:
        if "recipe" in layer.values:
            recipe, where = layer.values["recipe"], str(layer.origin(("recipe",)))
        _check_version(layer)
    if recipe is not None and not isinstance(recipe, str | Mapping):
        raise SettingsError("E-CFG-016", where=where, name=str(recipe), known=", ".join(recipes.names()))
    if recipe is not None:
        stack.insert(0, layers.from_recipe(recipe, where))
    stack = [_without_file_keys(schema_class, layer) for layer in stack]
    merged = merge(schema_class, stack)
    users = user_file.layer(_kinds(merged)) if over_users else None
    if users is not None:
        merged = merge(schema_class, [users, *stack])
    settings = _validate(schema_class, merged)
    if found := faults(settings):
        raise SettingsError.together(found)
    origins = {".".join(key): origin for key, origin in merged.origins.items()}
    notices = tuple(_notices(settings, merged, origins))
    return Resolved(settings, origins, notices, recipe if isinstance(recipe, str) else "")


def _kinds(merged: Merged) -> dict[str, str]:
    """The kinds that hold, which no user's settings choose."""
    return {
        f"{name}.kind": str(value["kind"])
        for name, value in merged.values.items()
        if isinstance(value, dict) and "kind" in value
    }


def _check_version(layer: Layer) -> None:
    version = layer.values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        code = "E-CFG-018" if isinstance(version, int) and version < SCHEMA_VERSION else "E-CFG-019"
        where = str(layer.origin(("schema_version",)))
        raise SettingsError(code, where=where, found=version, known=SCHEMA_VERSION)


def _without_file_keys(schema_class: type[Section], layer: Layer) -> Layer:
    """A layer without the keys that speak of the file itself and are no settings."""
    about_file = {"recipe", "schema_version"} - set(schema_class.model_fields)
    values = {name: value for name, value in layer.values.items() if name not in about_file}
    return Layer(layer.source, layer.name, values, layer.lines, layer.raw)


def _validate(schema_class: type[S], merged: Merged) -> S:
    secrets = explain.secrets(merged)
    hidden = {path for path, _ in secrets} | {one[:-1] for one, _ in merged.rivals}
    found: list[FusainError] = [*(fault for _, fault in secrets), *explain.rivals(merged)]
    try:
        # As JSON, for there strict means what a TOML user expects: "500" is no number and true is no number,
        # yet a list may fill a tuple and a text may fill a path.
        settings = schema_class.model_validate_json(layers.as_json(merged.values), strict=True)
    except ValidationError as error:
        found += explain.faults(schema_class, error.errors(include_url=False), merged, hidden)
    if found:
        raise SettingsError.together(found)
    return settings


def faults(settings: Section) -> list[FusainError]:
    """What contradicts itself in settings of which each is right by itself."""
    return [fault for _, section in _sections(settings) for fault in section.faults()]


def _sections(section: Section, prefix: str = "") -> Iterator[tuple[str, Section]]:
    """A section and all below it, with the beginning of their keys."""
    yield prefix, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _sections(value, f"{prefix}{name}.")


def _notices(settings: Section, merged: Merged, origins: Mapping[str, Origin]) -> Iterator[Notice]:
    for path, (origin, switch) in merged.set_aside.items():
        yield Notice("W-CFG-003", where=str(origin), key=".".join(path), switch=str(switch))
    for prefix, section in _sections(settings):
        for name, info in type(section).model_fields.items():
            origin = origins.get(prefix + name, DEFAULT)
            if origin.is_users:
                if not _is_excused(section, info):
                    yield from _unusual(schema.Setting(prefix + name, info, ()), getattr(section, name), origin)
                yield from _without_effect(section, prefix, name, origin)
        for name, reason in section.silent_settings().items():
            origin = origins.get(prefix + name, DEFAULT)
            if origin.is_users and not _is_default(section, name):
                yield Notice("W-CFG-002", where=str(origin), key=prefix + name, reason=reason)
        yield from section.notices()


def _is_excused(section: Section, info: FieldInfo) -> bool:
    """Whether another setting has a value under which any number is usual here (`usual_unless`)."""
    excuses = schema.notes(info).get("usual_unless", {})
    return any(getattr(section, other) == value for other, value in excuses.items())


def _unusual(setting: schema.Setting, value: Any, origin: Origin) -> Iterator[Notice]:
    usual = setting.extra.get("usual")
    if not usual or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return
    low, high = usual
    times, side = (value / high, "above") if value > high else (low / value, "below")
    if times >= _UNUSUAL * (1 - 1e-9):
        span = f"{low:g} to {high:g}"
        facts = {"key": setting.key, "got": f"{value:g}", "times": f"{times:.4g}", "side": side, "usual": span}
        yield Notice("W-CFG-001", where=str(origin), **facts)


def _without_effect(section: Section, prefix: str, name: str, origin: Origin) -> Iterator[Notice]:
    """A setting that its field says to matter only under others (`only_when`), which have other values here."""
    needed = schema.notes(type(section).model_fields[name]).get("only_when", {})
    for other, value in needed.items():
        now = getattr(section, other, None)
        if now not in (value if isinstance(value, list) else [value]) and not _is_default(section, name):
            reason = f"it needs {prefix}{other} = {json.dumps(value)}, which is {json.dumps(now, default=str)}"
            yield Notice("W-CFG-002", where=str(origin), key=prefix + name, reason=reason)


def _is_default(section: Section, name: str) -> bool:
    """Whether a setting at or below `section` has its default; then that it is silent is nobody's concern."""
    value: Any = section
    for part in name.split("."):
        section, value = value, getattr(value, part)
    return bool(value == schema.default_of(type(section).model_fields[name.split(".")[-1]]))
