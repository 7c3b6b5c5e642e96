"""The user's own settings: what holds for every run on this machine, below recipes and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fusain.errors import FusainError, SettingsError
from fusain.settings import described, layers, read
from fusain.settings.layers import Layer
from fusain.settings.section import Section


class UserSettings(Section):
    """Your own settings: a TOML file in your folder for configurations, for every run on this machine."""

    runs_folder: Path | None = None
    """Where run folders are made and looked for; without it, `runs` in the folder that you work in."""
    models_folder: Path | None = None
    """Where a base of a bare name is looked up: `mine` is the folder `mine`, or the file `mine.safetensors`, in it."""
    weights_folder: Path | None = None
    """Finished weights are copied there too, under the name of their run. Nothing there is written over."""
    language: Literal["en"] = "en"
    """The language of messages; there is English so far."""
    bases: dict[str, str] = Field(default_factory=dict)
    """The base of each family where recipe and file name none, as in { sd = "mine" }."""

    def faults(self) -> Iterator[FusainError]:
        known = families()
        for name in self.bases:
            if name not in known:
                yield SettingsError("E-CFG-040", where=f"bases.{name}", name=name, known=", ".join(known))


def families() -> list[str]:
    """The families that start from a base."""
    found = (entry for entry in described.load().settings if entry.key == "family.base")
    return list(dict.fromkeys(kind for entry in found for kind in entry.when.get("family.kind", [])))


def read_from(path: Path) -> UserSettings:
    """The file, checked."""
    return read.resolve(UserSettings, path=path).settings


def layer(settings: UserSettings, path: Path, kinds: Mapping[str, str]) -> Layer:
    """What of it is a setting of a run of these kinds, with the lines where it stands."""
    written = layers.from_file(path)
    values: dict[str, Any] = {}
    lines: dict[tuple[str, ...], int] = {}
    for name in ("runs_folder", "weights_folder"):
        folder = getattr(settings, name)
        if folder is not None:
            values[name], lines[name,] = str(folder.expanduser()), written.origin((name,)).line or 0
    family = kinds.get("family.kind", "")
    if family in settings.bases:
        values["family"] = {"kind": family, "base": settings.bases[family]}
        lines["family", "base"] = written.origin(("bases", family)).line or 0
    return Layer("user settings", str(path), values, lines)
