"""Publishes a run's final weights on the hub, with a model card that says what they are and nothing of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fusain.errors import StorageError, UsageError
from fusain.models.bases import opening
from fusain.runs import lock, model_card, origin, privacy, uploading
from fusain.runs.folder import RunFolder, read_json
from fusain.runs.origin import README, Licence
from fusain.runs.settings import RunSettings, settings_of
from fusain.settings.notice import Notice

OF_WEIGHTS: Final = (".safetensors", ".json", ".txt")
"""Endings of what diffusers loads; whatever else came into the folder stays here."""
FACTS: Final = "fusain.json"
LONGEST_REPO: Final = 96


@dataclass(frozen=True)
class PublishedFile:
    """One file by its name in the repository."""

    name: str
    path: Path
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Published:
    """What was published, or would be: then neither `url` nor `commit` is known."""

    repo: str | None
    url: str | None
    commit: str | None
    private: bool
    licence: str
    card: Path
    files: tuple[PublishedFile, ...]
    notices: tuple[Notice, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def as_json(self) -> dict[str, Any]:
        return {
            "repo": self.repo,
            "url": self.url,
            "commit": self.commit,
            "private": self.private,
            "licence": self.licence,
            "card": str(self.card),
            "files": [{"name": file.name, "path": str(file.path), "bytes": file.size} for file in self.files],
            "bytes": self.size,
            "notices": [notice.as_json() for notice in self.notices],
        }


def publish(
    run: str | Path,
    *,
    repo: str | None = None,
    private: bool = True,
    dry_run: bool = False,
    licence: str | None = None,
    message: str | None = None,
    runs_folder: Path | str | None = None,
    note: Callable[[str], None] = lambda text: None,
    bars: bool = False,
) -> Published:
    """Upload the final weights of a run as one commit; a dry run writes the card and asks nobody.

    `note` is told what happens on the way; `bars` draws it on stderr.
    """
    folder = RunFolder.existing(run, runs_folder)
    _check_repo(repo, is_needed=not dry_run)
    with nullcontext() if dry_run else lock.held(folder.lock, note=note):  # training on would exchange the weights
        ready = _prepared(folder, repo=repo, private=private, licence=licence)
        if dry_run or repo is None:
            return ready
        sent = uploading.upload(
            repo,
            {file.name: file.path for file in ready.files},
            card=ready.card,
            private=private,
            message=message or f"Weights of step {_facts(folder)['step']:,}, by Fusain {version('fusain')}",
            note=note,
            bars=bars,
        )
    return Published(
        repo, sent.url, sent.commit, sent.private, ready.licence, ready.card, ready.files, ready.notices + sent.notices
    )


def _check_repo(repo: str | None, *, is_needed: bool) -> None:
    if repo is None and is_needed:
        raise UsageError("E-PUB-004", where="--repo")
    if repo is None:
        return
    is_odd = any(odd in repo for odd in ("..", "--")) or repo.endswith((".git", "-", ".")) or len(repo) > LONGEST_REPO
    if is_odd or not opening.HUB_ID.fullmatch(repo):
        raise UsageError("E-PUB-005", where="--repo", repo=repo)


def _prepared(folder: RunFolder, *, repo: str | None, private: bool, licence: str | None) -> Published:
    """Everything that can be done and checked without the hub."""
    facts = _facts(folder)
    settings = settings_of(folder)
    base = origin.origin_of(settings, facts)
    chosen = origin.licence_of(base, licence)
    picture = model_card.picture_of(folder, facts["step"])
    card = model_card.write(
        model_card.Contents(folder, settings, base, chosen, repo, has_picture=picture is not None, facts=facts)
    )
    _lay_out(folder, card, picture)
    weights, left_out = _weights(folder)
    shown = (folder.publish / README, folder.publish / model_card.PICTURE)
    found = {path.name: path for path in shown if path.is_file()} | weights
    privacy.check(_texts(found), _places(folder, settings))
    files = tuple(PublishedFile(name, path, path.stat().st_size) for name, path in found.items())
    notices = tuple(_notices(settings, chosen, picture, left_out))
    return Published(repo, None, None, private, chosen.id, folder.publish / README, files, notices)


def _facts(folder: RunFolder) -> dict[str, Any]:
    if not (folder.weights / FACTS).is_file():
        raise UsageError("E-PUB-001", where=str(folder.weights), run=folder.name)
    return read_json(folder.weights / FACTS)


def _lay_out(folder: RunFolder, card: str, picture: Path | None) -> None:
    """The card and its picture, side by side, so that they can be looked at."""
    try:
        folder.publish.mkdir(exist_ok=True)
        (folder.publish / README).write_text(card, encoding="utf-8")
        shown = folder.publish / model_card.PICTURE
        if picture is None:
            shown.unlink(missing_ok=True)
        else:
            shutil.copyfile(picture, shown)
    except OSError as fault:
        raise StorageError("E-STORE-004", where=str(folder.publish), fault=fault.strerror or fault) from fault


def _weights(folder: RunFolder) -> tuple[dict[str, Path], list[str]]:
    """The files that are sent, and the names of those that are not: links might lead anywhere."""
    paths = sorted(path for path in folder.weights.rglob("*") if path.is_symlink() or path.is_file())
    named = {path.relative_to(folder.weights).as_posix(): path for path in paths}
    sent = {name: path for name, path in named.items() if _is_of_weights(name, path)}
    return sent, [name for name in named if name not in sent]


def _is_of_weights(name: str, path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return path.suffix in OF_WEIGHTS and not path.is_symlink() and not is_hidden


def _texts(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    for name, path in files.items():
        if path.suffix in (".json", ".txt", ".md"):
            yield name, path.read_text(encoding="utf-8", errors="replace")


def _places(folder: RunFolder, settings: RunSettings) -> list[Path]:
    """Paths of this machine that the run knows."""
    local = [getattr(settings.family, name, None) for name in ("base", "vae", "tokenizer")]
    local.append(getattr(settings.method, "start", None))
    named = [Path(one) for one in local if one and Path(one).expanduser().exists()]
    others = [path for path in (settings.data.labels_path, settings.weights_folder) if path]
    return [folder.path, settings.runs_folder, settings.data.path, *others, *named]


def _notices(settings: RunSettings, chosen: Licence, picture: Path | None, left_out: list[str]) -> Iterator[Notice]:
    if chosen.of_base not in (None, chosen.id):
        yield Notice("W-PUB-001", base=chosen.of_base, given=chosen.id)
    if left_out:
        yield Notice("W-PUB-003", count=f"{len(left_out):,}", names=", ".join(left_out[:5]))
    if picture is not None and settings.family.condition == "text" and not settings.samples.prompts:
        yield Notice("W-PUB-004", where=str(picture))
