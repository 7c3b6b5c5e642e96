"""The recipes: TOML presets in the package that hold only what differs from the defaults."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fusain.errors import SettingsError

FOLDER = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One preset; the comment that opens its file is its description."""

    name: str
    description: str
    text: str
    values: dict[str, Any]

    @property
    def title(self) -> str:
        """The first sentence of the description."""
        return self.description.split("\n")[0]


def names() -> list[str]:
    """All recipes in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, *, where: str = "") -> Recipe:
    """The recipe called `name`; `where` is said if there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        if near:
            raise SettingsError("E-CFG-012", where=where, name=name, nearest=near[0])
        raise SettingsError("E-CFG-016", where=where, name=name, known=", ".join(names()))
    return _load(FOLDER / f"{name}.toml")


@cache
def _load(path: Path) -> Recipe:
    text = path.read_text(encoding="utf-8")
    comment: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return Recipe(path.stem, "\n".join(comment), text, tomllib.loads(text))
