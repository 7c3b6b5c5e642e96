"""Which trackers listen to a run, and what of its settings they get to know: nothing of this machine, no secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fusain.training.trackers
from fusain.plugins import find
from fusain.runs import privacy, resuming
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings, settings_of
from fusain.settings import credentials
from fusain.training.relay import Relay
from fusain.training.tracker import Place, Tracker

TRACKERS: dict[str, type[Tracker]] = find(fusain.training.trackers, Tracker)


def listeners(settings: RunSettings, folder: RunFolder) -> Iterator[Relay]:
    """One for each tracker that the settings ask for; one that is not installed is a fault here, before any work."""
    track = settings.track
    for kind, tracker in TRACKERS.items():
        asked = getattr(track, kind)
        if asked and asked != "off":
            place = Place(folder.path, folder.name, track.project, asked=asked, checkpoints=track.checkpoints)
            yield Relay(tracker(place), lambda: told(folder))


def told(folder: RunFolder) -> dict[str, Any]:
    """The settings of a run by dotted key, as they may be handed on."""
    return dict(_public(settings_of(folder).model_dump()))


def _public(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in resuming.leaves(values):
        if _stays_here(value):
            continue
        if isinstance(value, bool | int | float):
            yield key, value
            continue
        text = resuming.show(value)
        is_secret = any(credentials.find({key.rpartition(".")[2]: text}))  # a commit is none, though it looks like one
        yield key, credentials.masked(text) if is_secret else text


def _stays_here(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_stays_here(one) for one in value)
    return privacy.looks_like_a_path(value)
