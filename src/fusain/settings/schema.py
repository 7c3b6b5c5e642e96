"""Reads a schema: which sections, variants and settings there are, and what a value must be, in words."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fusain.settings.section import Section

NUMBERS = (int, float)
PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "none",
}


def number(value: float) -> str:
    """A number as people write it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True)
class Limits:
    """The numbers between which a value must lie; `above` and `below` are themselves excluded."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    multiple_of: float | None = None

    def __str__(self) -> str:
        steps = [f"a multiple of {number(self.multiple_of)}"] if self.multiple_of is not None else []
        return ", ".join(filter(None, [self._span(), *steps]))

    def nearest(self, value: float) -> list[float]:
        """The multiples next to a value, below and above it, that are allowed; none where any number is."""
        step = self.multiple_of
        if step is None or not math.isfinite(value):
            return []
        least = [math.ceil(self.at_least / step)] if self.at_least is not None else []
        least += [math.floor(self.above / step) + 1] if self.above is not None else []
        most = [math.floor(self.at_most / step)] if self.at_most is not None else []
        most += [math.ceil(self.below / step) - 1] if self.below is not None else []
        beside = (math.floor(value / step), math.ceil(value / step))
        return list(dict.fromkeys(step * min([max([times, *least]), *most]) for times in beside))

    def _span(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {number(self.at_least)} to {number(self.at_most)}"
        named = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{word} {number(limit)}" for word, limit in named if limit is not None)


@dataclass(frozen=True)
class Setting:
    """One setting as the schema has it; `when` names the kinds under which it exists."""

    key: str
    field: FieldInfo
    when: tuple[tuple[str, str], ...]

    @property
    def extra(self) -> dict[str, Any]:
        """What `basic(...)` and `advanced(...)` noted."""
        return notes(self.field)


def notes(field: FieldInfo) -> dict[str, Any]:
    """What is known of a field beside its type: `basic`, `usual`, `instead_of`, `elsewhere`."""
    return dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}


def walk(section: type[Section], prefix: str = "", when: tuple[tuple[str, str], ...] = ()) -> Iterator[Setting]:
    """Every setting below `section`, variants one after the other, in the order of the source."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        kinds = variants(field.annotation)
        item = item_section(field.annotation)
        if kinds:
            for kind, variant in kinds.items():
                yield from walk(variant, f"{key}.", (*when, (f"{key}.kind", kind)) if len(kinds) > 1 else when)
            continue
        yield Setting(key, field, when)
        if item is not None:
            yield from walk(item, f"{key}[].", when)


def variants(annotation: Any) -> dict[str, type[Section]]:
    """The sections that may stand here, by kind; a plain section has the kind ''; a plain value has none."""
    members = [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, Section)]
    return {kind_of(member): member for member in members}


def kind_of(section: type[Section]) -> str:
    """The one value of the section's field `kind`; '' where it has none or is an ordinary choice."""
    field = section.model_fields.get("kind")
    choices = get_args(field.annotation) if field is not None else ()
    return str(choices[0]) if len(choices) == 1 else ""


def default_kind(field: FieldInfo) -> str:
    """The kind that holds when none is given: the one of the field's default, else the first."""
    default = default_of(field)
    if isinstance(default, Section):
        return kind_of(type(default))
    if isinstance(default, dict) and "kind" in default:
        return str(default["kind"])
    return next(iter(variants(field.annotation)), "")


def default_of(field: FieldInfo) -> Any:
    """The default of a field, or PydanticUndefined when a value must be given."""
    value = field.get_default(call_default_factory=True, validated_data={})
    return PydanticUndefined if value is Ellipsis else value


def item_section(annotation: Any) -> type[Section] | None:
    """The section that the items of a list are, if they are sections."""
    for member in _members(annotation):
        if get_origin(member) in (list, tuple):
            for item in get_args(member):
                if isinstance(item, type) and issubclass(item, Section):
                    return item
    return None


def limits_of(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> Limits:
    """The limits of the number that a setting takes; those of the first number when it is a union."""
    found = _limits(metadata)
    if found == Limits():
        for member in _members(annotation):
            if get_origin(member) is Annotated and _limits(member.__metadata__) != Limits():
                return _limits(member.__metadata__)
    return found


def _limits(metadata: list[Any] | tuple[Any, ...]) -> Limits:
    found: dict[str, Any] = {}
    for entry in metadata:
        for part in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
            if isinstance(part, annotated_types.Ge):
                found["at_least"] = part.ge
            elif isinstance(part, annotated_types.Gt):
                found["above"] = part.gt
            elif isinstance(part, annotated_types.Le):
                found["at_most"] = part.le
            elif isinstance(part, annotated_types.Lt):
                found["below"] = part.lt
            elif isinstance(part, annotated_types.MultipleOf):
                found["multiple_of"] = part.multiple_of
    return Limits(**found)


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """The fixed values that a setting may take, if it takes any."""
    found: list[Any] = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            found += get_args(member)
    return tuple(found)


def allows(annotation: Any, *kinds: type[Any]) -> bool:
    """Whether a value of one of `kinds` could be right here."""
    for member in _members(annotation):
        bare = get_args(member)[0] if get_origin(member) is Annotated else member
        bare = get_origin(bare) or bare
        if bare is Literal and any(type(choice) in kinds for choice in get_args(member)):
            return True
        if bare in kinds:
            return True
    return False


def expected_of(field: FieldInfo) -> str:
    """What the value of a field must be, in words, with examples where it has some."""
    words = expected(field.annotation, field.metadata)
    examples = ", ".join(str(example) for example in field.examples or ())
    return f"{words}, such as {examples}" if examples else words


def expected(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """What a value must be, in words: "a whole number (at least 1) or 'auto'"."""
    words = [word for member in _members(annotation) for word in _words(member, metadata)]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(member: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> list[str]:
    """What one member of a union is in words; several for a choice."""
    origin, inner = get_origin(member), get_args(member)
    if origin is Annotated:
        return _words(inner[0], [*member.__metadata__, *metadata])
    if origin is Literal:
        return [repr(choice) for choice in inner]
    if origin in (list, tuple, set, frozenset):
        items = dict.fromkeys(f"({expected(item)})" for item in inner if item is not Ellipsis)
        return ["a list of " + " and ".join(items)]
    if origin is dict or member is dict or (isinstance(member, type) and issubclass(member, Section)):
        return ["a table"]
    limits = str(_limits(metadata)) if member in NUMBERS else _pattern(metadata) if member is str else ""
    word = PLAIN.get(member, getattr(member, "__name__", str(member)))
    return [f"{word} ({limits})" if limits else word]


def _pattern(metadata: list[Any] | tuple[Any, ...]) -> str:
    pattern = next((part.pattern for part in metadata if getattr(part, "pattern", None)), None)
    return f"of the form {pattern}" if pattern else ""


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, nested ones and type aliases included; one thing alone is a union of one."""
    if isinstance(annotation, types.GenericAlias) is False and hasattr(annotation, "__value__"):
        return _members(annotation.__value__)
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in (Union, types.UnionType):
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for member in get_args(annotation) for part in _members(member))
    return (annotation,)


def takes_text_only(annotation: Any) -> bool:
    """Whether a word must be taken literally here, as in a name or a path that happens to look like a number."""
    text = allows(annotation, str, Path)
    return text and not allows(annotation, int, float, bool, list, tuple, dict)
