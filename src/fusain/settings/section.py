"""A section of the settings: typed, documented by the docstrings of its attributes, frozen, closed to unknown names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fusain.errors import FusainError
from fusain.settings.notice import Notice

SCHEMA_VERSION: int = 1
"""Counts up when a settings file of before would be read differently."""


class Section(BaseModel):
    """What every group of settings inherits; a section stands beside the code that it sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    group_help: ClassVar[str] = ""
    """What users read of the section, where that is not its docstring."""

    def faults(self) -> Iterable[FusainError]:
        """Settings of this section that contradict each other; asked once each of them is right by itself."""
        return ()

    def notices(self) -> Iterable[Notice]:
        """What the user should know before the run starts, though nothing is wrong."""
        return ()

    def silent_settings(self) -> Mapping[str, str]:
        """The settings at or below this section that have no effect as it stands, each with the reason."""
        return {}


def basic(default: Any = ..., *, usual: tuple[float, float] | None = None, **limits: Any) -> Any:
    """A field that people meet first; all other fields are advanced. Far outside of `usual` is said at start."""
    return Field(default, json_schema_extra=_noted(limits, basic=True, usual=usual), **limits)


def advanced(default: Any = ..., *, usual: tuple[float, float] | None = None, **limits: Any) -> Any:
    """A field for those who look for it."""
    return Field(default, json_schema_extra=_noted(limits, basic=False, usual=usual), **limits)


def _noted(limits: dict[str, Any], **notes: Any) -> dict[str, Any]:
    """What else is known of a field; `instead_of` names a sibling that a later source replaces by setting this one."""
    given = {name: note for name, note in notes.items() if note is not None}
    return given | dict(limits.pop("json_schema_extra", None) or {})


def one_of(kinds: dict[str, type[Any]]) -> Any:
    """The union of the settings of a plug folder's classes, told apart by their `kind`."""
    sections = tuple(plug.Settings for plug in kinds.values())
    return Annotated[reduce(or_, sections), Field(discriminator="kind")] if len(sections) > 1 else sections[0]
