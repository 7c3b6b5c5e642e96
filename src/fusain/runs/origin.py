"""What a run started from and under which licence its weights may be passed on, told without this machine's paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusain.errors import FusainError, UsageError
from fusain.models.bases import hub, opening
from fusain.runs.settings import RunSettings

HUB: Final = "https://huggingface.co"
USUAL: Final = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "openrail", "creativeml-openrail-m", "other")
"""Some that errors name. The hub knows many more and has the last word, so that no list here grows old."""
LICENCE_ID: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
README: Final = "README.md"


@dataclass(frozen=True)
class Origin:
    """The base of a run; of a run from scratch all is empty."""

    name: str = ""
    """A hub id or a miniature; empty for what lies on this machine, for its path is nobody's business."""
    is_hub_id: bool = False
    is_local: bool = False
    commit: str | None = None
    readme: Path | None = None
    """The base's own, where it is on this machine."""


@dataclass(frozen=True)
class Licence:
    """One licence, as the header of a model card names it."""

    id: str
    of_base: str | None
    """That of the base, which may be another one."""
    name: str | None = None
    """What `other` stands for."""
    link: str | None = None


def origin_of(settings: RunSettings, facts: Mapping[str, Any]) -> Origin:
    """What a run started from, by its settings and what was written beside its final weights."""
    source = getattr(settings.family, "base", None)
    if source is None:
        return Origin()
    try:
        path = opening.local_path(source)
    except FusainError:  # it was moved since; that it was a path is all that matters
        return Origin(is_local=True)
    if path is not None:
        readme = path / README if (path / README).is_file() else None
        is_miniature = source.startswith(opening.MINIATURE)
        return Origin(source if is_miniature else "", is_local=not is_miniature, readme=readme)
    commit = facts.get("base_revision")
    folder = hub.cached(source, commit or settings.family.revision, README)
    return Origin(source, is_hub_id=True, commit=commit, readme=folder / README if folder else None)


def licence_of(origin: Origin, given: str | None) -> Licence:
    """The licence that was named, or else the base's own; neither is an error, for none may be guessed."""
    header = _header(origin.readme)
    of_base = _text(header, "license")
    if given is not None and not LICENCE_ID.fullmatch(given):
        raise UsageError("E-PUB-003", where="--licence", licence=given, usual=", ".join(USUAL))
    chosen = given or of_base
    if chosen is None or not LICENCE_ID.fullmatch(chosen):
        raise UsageError("E-PUB-002", where="--licence", reason=_reason(origin), usual=", ".join(USUAL))
    if chosen != of_base:
        return Licence(chosen, of_base)
    return Licence(chosen, of_base, _text(header, "license_name"), _link(header, origin))


def _reason(origin: Origin) -> str:
    if origin.name:
        return f"Its base is {origin.name}, and no README that names its licence is on this machine."
    if origin.is_local:
        return "Its base is a model on this machine, without a README that names its licence."
    return "It was trained from scratch, so the choice is yours."


def _header(readme: Path | None) -> Mapping[str, Any]:
    """The table at the top of a README; empty where there is none that can be read."""
    from huggingface_hub import metadata_load

    if readme is None:
        return {}
    try:
        return metadata_load(readme) or {}
    except Exception:  # any text may stand there, and YAML has a fault of its own for each way to be wrong
        return {}


def _text(header: Mapping[str, Any], key: str) -> str | None:
    """One entry; a list of one counts as that one, as on the hub."""
    value = header.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) and value else None


def _link(header: Mapping[str, Any], origin: Origin) -> str | None:
    """Where the text of the licence is; a file of the base's repository is not in the new one."""
    link = _text(header, "license_link")
    if link is None or link.startswith("https://"):
        return link
    return f"{HUB}/{origin.name}/blob/main/{link}" if origin.is_hub_id else None
