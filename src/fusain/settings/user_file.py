"""Where the user's own settings lie, and what they say; without the file nothing is loaded for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fusain.settings.layers import Layer
    from fusain.settings.user import UserSettings

NAME: Final = "settings.toml"
RUNS: Final = Path("runs")


def folder(platform: str = sys.platform, environment: Mapping[str, str] | None = None) -> Path:
    """`FUSAIN_CONFIG`, or `fusain` in the user's folder for configurations, wherever the platform has that."""
    named = os.environ if environment is None else environment
    if named.get("FUSAIN_CONFIG"):
        return Path(named["FUSAIN_CONFIG"]).expanduser()
    if platform == "win32":
        return Path(named.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "fusain"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "fusain"
    return Path(named.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fusain"


def path() -> Path:
    """The file, whether it is there or not."""
    return folder() / NAME


def load() -> UserSettings | None:
    """The user's settings, checked like any others; None where there is no file."""
    if not path().is_file():
        return None
    from fusain.settings import user  # it brings pydantic, which the help of a verb does without

    return user.read_from(path())


def layer(kinds: Mapping[str, str]) -> Layer | None:
    """The source that stands between defaults and recipe, for a run of these kinds ({"family.kind": "sd"})."""
    settings = load()
    if settings is None:
        return None
    from fusain.settings import user

    return user.layer(settings, path(), kinds)


def runs_folder() -> Path:
    """Where runs are made and looked for."""
    settings = load()
    return settings.runs_folder.expanduser() if settings and settings.runs_folder else RUNS


def models_folder() -> Path | None:
    """Where bases of bare names are looked up."""
    settings = load()
    return settings.models_folder.expanduser() if settings and settings.models_folder else None
