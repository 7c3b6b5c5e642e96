"""What may change when a run is continued, and what must be the same for the result to be the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from fusain.errors import SettingsError
from fusain.models.bases.hub import COMMIT
from fusain.runs.settings import RunSettings

NOT_EXACT = {
    "engine.threads": "Resumed with {new} threads where it was {old}: no longer equal to the last bit.",
    "engine.processes": "Resumed with engine.processes = {new} where it was {old}: images keep their order, noise and "
    "time, but sums are rounded in another order and dropout drops others: no longer equal to the last bit.",
    "engine.shard": "Resumed with engine.shard = {new} where it was {old}: sums are rounded in another order: "
    "no longer equal to the last bit.",
    "engine.compile": "Resumed with engine.compile = {new} where it was {old}: sums are rounded in another order and "
    "dropout drops others: no longer equal to the last bit.",
}
"""Settings that change the last bits only, and what is said of it."""
HARMLESS = (
    "checkpoint.",
    "samples.",
    "track.",
    "runs_folder",
    "weights_folder",
    "data.path",
    "data.revision",
    "data.class_images.path",
    "data.workers",
    "method.file_dtype",
    "train.steps",
    "train.epochs",
    *NOT_EXACT,
)
"""Settings that a run may be continued with without asking. A moved data set is held against its hashes."""


def check(
    old: Mapping[str, Any], new: RunSettings, *, allowed: Collection[str], where: str, note: Callable[[str], None]
) -> None:
    """Every changed setting that changes the result needs the user's word; all of them are told at once."""
    before, after = dict(leaves(_read_today(old))), dict(leaves(new.model_dump(mode="json")))
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    refused = [key for key in changed if not key.startswith(HARMLESS) and key not in allowed]
    if refused:
        listed = "; ".join(f"{key}: {show(before.get(key))} -> {show(after.get(key))}" for key in refused)
        allow = " ".join(f"--allow-change {key}" for key in refused)
        raise SettingsError("E-RESUME-003", where=where, listed=listed, allow=allow)
    for key in changed:
        if key in NOT_EXACT:
            note(NOT_EXACT[key].format(old=before.get(key), new=after.get(key)))
        if key in allowed:
            note(f"{key} goes from {show(before.get(key))} to {show(after.get(key))}, as allowed.")


def _read_today(old: Mapping[str, Any]) -> Mapping[str, Any]:
    """With settings that did not exist yet when the run began: a new one's default is what was done before it."""
    try:
        return RunSettings.model_validate(old).model_dump(mode="json")
    except ValidationError:
        return old


def keep_pinned(old: Mapping[str, Any], new: RunSettings, *, note: Callable[[str], None]) -> RunSettings:
    """The new settings at what the run began with, where that was found then: commits, and whether compiling pays.

    Unless they name another base, data set or commit, or say themselves whether to compile.
    """
    if new.engine.compile == "auto":
        found = old["engine"].get("compile", "off")
        new = new.model_copy(update={"engine": new.engine.model_copy(update={"compile": found})})
    new = _keep_data(old["data"], new, note)
    before, family = old["family"], new.family
    kept, asked = before.get("revision"), getattr(family, "revision", None)
    if kept is None or before.get("base") != family.base or COMMIT.fullmatch(asked or ""):
        return new
    note(f"{family.base} stays at commit {kept}, as the run began.")
    return new.model_copy(update={"family": family.model_copy(update={"revision": kept})})


def _keep_data(before: Mapping[str, Any], new: RunSettings, note: Callable[[str], None]) -> RunSettings:
    kept, data = before.get("revision"), new.data
    if kept is None or before["path"] != str(data.path) or COMMIT.fullmatch(data.revision or ""):
        return new
    note(f"{data.path} stays at commit {kept}, as the run began.")
    return new.model_copy(update={"data": data.model_copy(update={"revision": kept})})


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted keys."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def show(value: Any) -> str:
    """A value in a sentence."""
    return "none" if value is None else str(value)
