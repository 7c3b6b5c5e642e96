"""Turns what pydantic finds wrong into Fusain's own faults: one for each setting, in plain words, all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fusain.errors import FusainError, SettingsError
from fusain.settings import credentials, schema
from fusain.settings.merge import Merged
from fusain.settings.section import Section

_OUT_OF_RANGE: Final = {
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "finite_number",
    "multiple_of",
}
_NO_CHOICE: Final = {"literal_error", "string_pattern_mismatch"}
_VALIDATORS: Final = {"value_error", "assertion_error"}
_BAD_KIND: Final = {"union_tag_invalid", "union_tag_not_found"}


@dataclass(frozen=True)
class _Place:
    """Where in the schema an error belongs: the path of the setting, its field, and the section that holds it."""

    path: tuple[str, ...]
    field: FieldInfo | None
    section: type[Section] | None

    @property
    def key(self) -> str:
        return ".".join(self.path)


def faults(
    root: type[Section], errors: Iterable[ErrorDetails], merged: Merged, hidden: Collection[tuple[str, ...]] = ()
) -> list[FusainError]:
    """One fault for each setting that is wrong but not `hidden`, in the order in which the user wrote them."""
    grouped: dict[tuple[str, ...], tuple[_Place, list[ErrorDetails]]] = {}
    for error in errors:
        place = _place(root, error["loc"])
        if place.path in hidden:
            continue
        grouped.setdefault(place.path, (place, []))[1].append(error)
    # Under a kind that does not exist every other setting is unknown too; that says nothing.
    lost = {
        path[:-1] for path, (place, group) in grouped.items() if path[-1:] == ("kind",) and _is_bad_kind(place, group)
    }
    found = [
        (path, _fault(root, place, group, merged))
        for path, (place, group) in grouped.items()
        if path[:-1] not in lost or path[-1] == "kind"
    ]
    return [fault for path, fault in sorted(found, key=lambda entry: _written(merged, entry[0]))]


def where(merged: Merged, path: tuple[str, ...]) -> str:
    """The file and line, or the words of the command line, that set the key or the nearest thing around it."""
    for end in range(len(path), 0, -1):
        origin = merged.origins.get(path[:end])
        if origin is not None:
            return str(origin)
    # A section that was named though none of its keys is at fault: say where its first key stands.
    return next((str(origin) for key, origin in merged.origins.items() if key[: len(path)] == path), "")


def secrets(merged: Merged) -> list[tuple[tuple[str, ...], FusainError]]:
    """A fault for each value that looks like a password or an access token."""
    return [
        (path, SettingsError("E-SEC-010", where=where(merged, path), key=".".join(path), masked=masked))
        for path, masked in credentials.find(merged.values)
    ]


def rivals(merged: Merged) -> list[FusainError]:
    """A fault for each pair of settings that stand in place of each other and are both given."""
    return [
        SettingsError(
            "E-CFG-020", where=f"{where(merged, one)}, {where(merged, other)}", one=".".join(one), other=".".join(other)
        )
        for one, other in merged.rivals
    ]


def _place(root: type[Section], location: tuple[int | str, ...]) -> _Place:
    """Follows a location of pydantic through the schema, leaving out the names that it gives to members of unions."""
    section: type[Section] | None = root
    holder, field = root, None
    kinds: dict[str, type[Section]] = {}
    item: type[Section] | None = None
    path: list[str] = []
    for part in location:
        if len(kinds) > 1 and part in kinds:
            section, kinds = kinds[str(part)], {}
        elif section is not None:
            path.append(str(part))
            holder, field = section, section.model_fields.get(str(part))
            kinds = schema.variants(field.annotation) if field else {}
            item = schema.item_section(field.annotation) if field else None
            section = next(iter(kinds.values())) if len(kinds) == 1 else None
        elif isinstance(part, int) and item is not None:
            path.append(str(part))
            section, item = item, None
        else:
            break
    return _Place(tuple(path), field, holder)


def _fault(root: type[Section], place: _Place, errors: list[ErrorDetails], merged: Merged) -> FusainError:
    kinds = {error["type"] for error in errors}
    at, value = where(merged, place.path), errors[0]["input"]
    if kinds & _VALIDATORS:
        reason = next(error["msg"] for error in errors if error["type"] in _VALIDATORS).split(", ", 1)[-1]
        if not place.path:
            return SettingsError("E-CFG-021", reason=reason.rstrip("."))
        return SettingsError("E-CFG-006", where=at, key=place.key, reason=reason.rstrip("."))
    if "extra_forbidden" in kinds:
        return _unknown(root, place, at)
    if _is_bad_kind(place, errors):
        return _bad_kind(root, place, merged)
    if "missing" in kinds:
        return SettingsError("E-CFG-007", where=at, key=place.key, expected=_expected(place))
    if kinds & _OUT_OF_RANGE and isinstance(value, int | float):
        return _out_of_range(place, at, value)
    if "literal_error" in kinds <= _NO_CHOICE and isinstance(value, str):
        return _bad_choice(place, at, value)
    got = _shown(value) + _item(errors[0], place)
    return SettingsError("E-CFG-004", where=at, key=place.key, expected=_expected(place), got=got)


def _item(error: ErrorDetails, place: _Place) -> str:
    """Which item of a list is at fault, for a list of values is one setting."""
    numbers = [part for part in error["loc"][len(place.path) :] if isinstance(part, int)]
    return f" (item {numbers[0] + 1})" if numbers else ""


def _is_bad_kind(place: _Place, errors: list[ErrorDetails]) -> bool:
    kinds = {error["type"] for error in errors}
    is_plug = place.path[-1:] == ("kind",) and place.section is not None and schema.kind_of(place.section) != ""
    return bool(kinds & _BAD_KIND) or (is_plug and "literal_error" in kinds)


def _out_of_range(place: _Place, at: str, value: float) -> FusainError:
    assert place.field is not None, "only a known setting has a range"
    facts: dict[str, Any] = {"key": place.key, "got": _shown(value), "expected": _expected(place)}
    near = schema.limits_of(place.field.annotation, place.field.metadata).nearest(value)
    if near:
        return SettingsError("E-CFG-022", where=at, nearest=" or ".join(map(_shown, near)), **facts)
    usual = schema.Setting(place.key, place.field, ()).extra.get("usual")
    if usual:
        return SettingsError("E-CFG-005", where=at, usual=f"{usual[0]:g} to {usual[1]:g}", **facts)
    return SettingsError("E-CFG-017", where=at, **facts)


def _bad_choice(place: _Place, at: str, value: str) -> FusainError:
    choices = [str(choice) for choice in schema.choices_of(place.field.annotation)] if place.field else []
    near = nearest(value, choices, schema.notes(place.field).get("elsewhere", {}) if place.field else {})
    facts: dict[str, Any] = {"key": place.key, "got": _shown(value), "expected": _expected(place)}
    if near:
        return SettingsError("E-CFG-008", where=at, nearest=near, **facts)
    return SettingsError("E-CFG-004", where=at, **facts)


def nearest(value: str, choices: Sequence[str], elsewhere: Mapping[str, str]) -> str | None:
    """The choice that is meant: under the name it has elsewhere, in another spelling, or mistyped."""
    plain = re.sub(r"[\s_-]+", "-", value.strip().lower())
    names = {choice: choice for choice in choices} | dict(elsewhere)
    near = difflib.get_close_matches(plain, names, n=1, cutoff=0.5)
    return names[near[0]] if near else None


def _bad_kind(root: type[Section], place: _Place, merged: Merged) -> FusainError:
    path = place.path if place.path[-1] == "kind" else (*place.path, "kind")
    field = _place(root, path[:-1]).field
    known = list(schema.variants(field.annotation)) if field else []
    got = merged.values
    for name in path:
        got = got.get(name, {}) if isinstance(got, dict) else {}
    near = difflib.get_close_matches(str(got), known, n=1, cutoff=0.5)
    facts: dict[str, Any] = {
        "key": ".".join(path),
        "got": _shown(got),
        "expected": " or ".join(repr(kind) for kind in known),
    }
    if near:
        return SettingsError("E-CFG-008", where=where(merged, path), nearest=near[0], **facts)
    return SettingsError("E-CFG-004", where=where(merged, path), **facts)


def _unknown(root: type[Section], place: _Place, at: str) -> FusainError:
    *sections, name = place.path
    settings = list(schema.walk(root))
    elsewhere = [entry for entry in settings if entry.key == place.key]
    if elsewhere:
        kinds = " or ".join(f"{key} = {kind!r}" for key, kind in dict.fromkeys(entry.when[-1] for entry in elsewhere))
        return SettingsError("E-CFG-009", where=at, key=place.key, kinds=kinds)
    prefix = "".join(f"{part}." for part in sections)
    siblings = list(place.section.model_fields) if place.section else []
    near = [prefix + match for match in difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)]
    near = near or [entry.key for entry in settings if entry.key.split(".")[-1] == name]
    near = near or difflib.get_close_matches(place.key, [entry.key for entry in settings], n=1, cutoff=0.6)
    if near:
        return SettingsError("E-CFG-003", where=at, key=place.key, nearest=near[0])
    known = ", ".join(siblings)
    return SettingsError("E-CFG-013", where=at, key=place.key, section=".".join(sections) or "the file", known=known)


def _expected(place: _Place) -> str:
    return schema.expected_of(place.field) if place.field else "something else"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = credentials.masked(value)
        return f'the text "{text if len(text) <= 60 else text[:59] + "…"}"'
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"{value:g}" if isinstance(value, float) else str(value)


def _written(merged: Merged, path: tuple[str, ...]) -> tuple[bool, int]:
    ends = range(len(path), 0, -1)
    origin = next((merged.origins[path[:end]] for end in ends if path[:end] in merged.origins), None)
    return (origin is not None and origin.source == "command line", (origin.line or 0) if origin else 0)
