"""Fetches a data set from the hub, or finds it in the hub's cache: pinned to a commit, and its Parquet files only.

One that is streamed is not fetched but read in parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from fusain.data import index_cache
from fusain.data.settings import DataSettings
from fusain.data.shards import Files, Folder
from fusain.data.source import resolved
from fusain.errors import DataError, NetworkFault
from fusain.models.bases import hub_faults
from fusain.models.bases.hub import COMMIT
from fusain.runs.folder import write_json

ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
NOUN: Final = "data set"
FILES_SHOWN: Final = 5
UNLISTED: Final = ("*.parquet",)
"""What to say is missing where nothing tells what the data set holds."""


def is_id(settings: DataSettings) -> bool:
    """Whether `data.path` names a data set of the hub: no such path is here, and the user said how to read it."""
    name = str(settings.path)
    return settings.kind == "datasets" and bool(ID.fullmatch(name)) and not settings.path.exists()


def here(settings: DataSettings) -> DataSettings:
    """The same settings with the folder in the hub's cache, and the commit that it is of."""
    if not is_id(settings):
        return settings
    folder, commit = fetch(str(settings.path), settings.revision)
    return settings.model_copy(update={"path": folder, "revision": commit})


def fetch(source: str, revision: str | None) -> tuple[Path, str]:
    """The folder of a data set with all its Parquet files, and the commit."""
    kept, lacking = _kept(source, revision)
    if kept is not None and not lacking and COMMIT.fullmatch(revision or ""):
        return kept, kept.name
    try:
        return _fetched(source, revision)
    except hub_faults.Unreachable as fault:
        if kept is None or lacking:
            missing = _shown(fault.lacking or lacking or UNLISTED)
            raise hub_faults.not_here(source, revision, fault, missing, NOUN) from fault
        return kept, kept.name


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set of the hub at one commit, of which those bytes are fetched that are asked for."""

    source: str
    commit: str
    names: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(self.source)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        place = f"datasets/{self.source}@{self.commit}/{name}"
        try:
            with hub_faults.told(self.source, self.commit, name, NOUN), self._hub.open(place, "rb") as file:
                try:
                    yield file
                except DataError as fault:
                    if not _is_page(file):
                        raise
                    reason, url = f"a page in place of '{name}'", hub_faults.page(self.source, NOUN)
                    raise NetworkFault("E-NET-005", where=self.source, reason=reason, url=url) from fault
        except hub_faults.Unreachable as fault:
            raise hub_faults.not_here(self.source, self.commit, fault, [name], NOUN) from fault

    @cached_property
    def _hub(self) -> Any:
        from huggingface_hub import HfFileSystem

        return HfFileSystem()


def _is_page(file: Any) -> bool:
    """Whether what came is for people: parts of a file are asked for, and a proxy may send its page for each."""
    file.seek(0)
    return bytes(file.read(64)).lstrip().startswith(b"<")


def streamed(settings: DataSettings) -> tuple[DataSettings, Files]:
    """The files that are read while it trains; of the hub at a commit, which the settings then name."""
    if not is_id(settings):
        return settings, Folder(resolved(settings.path))
    source = str(settings.path)
    try:
        commit, names = _listed(source, settings.revision)
    except hub_faults.Unreachable as fault:
        raise hub_faults.not_here(source, settings.revision, fault, UNLISTED, NOUN) from fault
    return settings.model_copy(update={"revision": commit}), HubFiles(source, commit, tuple(names))


def _listed(source: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit, and its Parquet files."""
    from huggingface_hub import HfApi

    with hub_faults.told(source, revision, noun=NOUN):
        info = HfApi().dataset_info(source, revision=revision)
    commit, names = str(info.sha), [entry.rfilename for entry in info.siblings or ()]
    if COMMIT.fullmatch(revision or "") and commit != revision:
        reason = f"asked for {revision}, it sends {commit}"
        raise NetworkFault("E-NET-005", where=source, reason=reason, url=hub_faults.page(source, NOUN))
    wanted = sorted(name for name in names if name.endswith(".parquet"))
    if not wanted:
        raise NetworkFault("E-NET-010", where=source, files=", ".join(names[:FILES_SHOWN]) or "nothing")
    return commit, wanted


def _fetched(source: str, revision: str | None) -> tuple[Path, str]:
    commit, wanted = _listed(source, revision)
    for name in wanted:
        try:
            path = _download(source, revision, commit, name)
        except hub_faults.Unreachable as fault:
            fault.lacking = [name for name in wanted if not _is_cached(source, commit, name)]
            raise
    folder = path.parents[wanted[-1].count("/")]
    _record(source, commit).parent.mkdir(parents=True, exist_ok=True)
    for known_as in (commit, revision or "main"):
        write_json(_record(source, known_as), {"names": wanted, "folder": str(folder)})
    return folder, commit


def _download(source: str, revision: str | None, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with hub_faults.told(source, revision, name, NOUN):
        return Path(hf_hub_download(source, name, repo_type="dataset", revision=commit))


def _is_cached(source: str, commit: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, name, repo_type="dataset", revision=commit), str)


def _kept(source: str, revision: str | None) -> tuple[Path | None, list[str]]:
    """The folder of a snapshot that was fetched whole before, and the files that are gone from it since."""
    try:
        record = json.loads(_record(source, revision or "main").read_text(encoding="utf-8"))
        folder = Path(record["folder"])
        return folder, [name for name in record["names"] if not (folder / name).is_file()]
    except (OSError, ValueError, KeyError):
        return None, []


def _shown(names: Sequence[str]) -> list[str]:
    """The first few names, and how many more there are."""
    more = len(names) - FILES_SHOWN
    return [*names[:FILES_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]


def _record(source: str, revision: str) -> Path:
    """What was fetched: the hub's cache does not say whether it holds all files of a commit."""
    name = re.sub(r"[^\w.-]", "--", f"{source}@{revision}")
    return index_cache.folder() / "hub" / f"{name}.json"
