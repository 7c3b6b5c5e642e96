"""Sends files to a repository of the hub as one commit: all of them are there, or none; faults become our words."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fusain.errors import FusainError, NetworkFault, StorageError, UsageError
from fusain.models.bases import hub_faults
from fusain.models.bases.hub_faults import Unreachable
from fusain.settings import credentials
from fusain.settings.notice import Notice

WAITS: Final = (1, 4, 16)
"""Seconds before each further try."""
LONGEST_WORDS: Final = 200
BAD_HEADER: Final = "Invalid metadata in README.md"
NO_STORAGE: Final = "LFS batch API returned errors:"
"""How two faults begin that the hub's library tells with a `ValueError` and nothing else."""
Result = TypeVar("Result")
Note = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """Where the files are now."""

    url: str
    commit: str
    private: bool
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class _Place:
    """What faults tell of: the repository, and the card that lies here."""

    repo: str
    card: Path
    note: Note


def upload(
    repo: str,
    files: Mapping[str, Path],
    *,
    card: Path,
    private: bool,
    message: str,
    note: Note = lambda text: None,
    bars: bool = False,
) -> Sent:
    """Send `files`, by their names there; nothing that the repository holds beside them is touched."""
    from huggingface_hub import HfApi

    place, api = _Place(repo, card, note), HfApi(token=True)  # the token of `hf auth login`; it is never looked at here
    with _calm_library(bars):
        _check_login(place, api)
        _patiently(place, lambda: api.create_repo(repo, private=private, exist_ok=True), "E-NET-021")
        is_private = bool(_patiently(place, lambda: api.model_info(repo), "E-NET-021").private)
        if private and not is_private:
            raise UsageError("E-PUB-006", where=hub_faults.page(repo))
        sent = _patiently(place, lambda: _commit(api, repo, files, message), "E-NET-025")
    stays = Notice("W-PUB-002", url=hub_faults.page(repo))
    return Sent(hub_faults.page(repo), str(sent.oid), is_private, (stays,) if is_private and not private else ())


def _commit(api: Any, repo: str, files: Mapping[str, Path], message: str) -> Any:
    """Made anew for each try, for the library marks what it sent; the hub says what arrived and is not sent again."""
    from huggingface_hub import CommitOperationAdd

    additions = [CommitOperationAdd(name, path) for name, path in files.items()]
    return api.create_commit(repo, additions, commit_message=message)


def _check_login(place: _Place, api: Any) -> None:
    who = _patiently(place, lambda: api.whoami(), "E-NET-021")
    login = who.get("auth", {}).get("accessToken", {}) if isinstance(who, dict) else {}
    if login.get("role") == "read":
        raise NetworkFault("E-NET-027", where=place.repo)


def _patiently(place: _Place, ask: Callable[[], Result], code: str) -> Result:
    """The answer; silence and a hub out of order are waited for, and are the fault `code` in the end."""
    for wait in (*WAITS, None):
        try:
            with _told(place):
                return ask()
        except Unreachable as fault:
            if wait is None or hub_faults.is_offline(hub_faults.chain_of(fault)):
                raise NetworkFault(code, where=place.repo, reason=fault, card=place.card) from fault
            place.note(f"The hub does not answer ({fault}); trying again in {wait} s.")
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


@contextmanager
def _told(place: _Place) -> Iterator[None]:
    """Within, faults of the hub's library become ours, or `Unreachable` where another try may help."""
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, hub_faults.of_http())
    try:
        yield
    except kinds as fault:
        raise _ours(fault, place) from fault


def _ours(fault: Exception, place: _Place) -> Exception:
    from huggingface_hub import errors

    chain = hub_faults.chain_of(fault)
    status, repo = hub_faults.status_of(chain), place.repo
    if isinstance(fault, errors.LocalTokenNotFoundError):
        return NetworkFault("E-NET-020", where=repo)
    if isinstance(fault, FileNotFoundError | PermissionError) and fault.filename:
        return StorageError("E-RUN-003", where=str(fault.filename), name="A file", fault=fault.strerror)
    if isinstance(fault, PermissionError):  # the storage of large files calls a login that it refuses so
        return _refused(403, chain, place)
    if isinstance(fault, RuntimeError):  # from the storage of large files; a new try gets a new permission for it
        return Unreachable(f"HTTP {status}" if status else hub_faults.in_words(chain))
    if status == 404 or isinstance(fault, errors.RepositoryNotFoundError):
        return NetworkFault("E-NET-023", where=repo, repo=repo)
    if 400 <= status < 500:
        return _refused(status, chain, place)
    if isinstance(fault, ValueError):
        return _misunderstood(str(fault), place)
    return Unreachable(hub_faults.in_words(chain))


def _refused(status: int, chain: list[BaseException], place: _Place) -> FusainError:
    repo, words = place.repo, _words_of(chain)
    if status == 401:
        return NetworkFault("E-NET-008", where=repo)
    if status in (402, 403):
        return NetworkFault("E-NET-022", where=repo, repo=repo, said=f"; the hub says: {words}" if words else "")
    if status in (409, 412):
        return NetworkFault("E-NET-024", where=repo, status=status)
    if status == 429:
        return NetworkFault("E-NET-004", where=repo)
    if str(chain[0]).startswith(BAD_HEADER):
        return NetworkFault("E-PUB-007", where=str(place.card), reason=words)
    return NetworkFault("E-NET-026", where=repo, reason=words or f"HTTP {status}", url=hub_faults.page(repo))


def _misunderstood(said: str, place: _Place) -> FusainError:
    """An answer that is no refusal, and yet not what was asked for."""
    url = hub_faults.page(place.repo)
    if said.startswith(NO_STORAGE):
        return NetworkFault("E-NET-026", where=place.repo, reason=_shown(said.removeprefix(NO_STORAGE)), url=url)
    return NetworkFault("E-NET-005", where=place.repo, reason="no answer of the hub's form", url=url)


def _words_of(chain: list[BaseException]) -> str:
    """What the hub itself said."""
    return next((_shown(str(text)) for one in chain if (text := getattr(one, "server_message", None))), "")


def _shown(said: str) -> str:
    """In one line that can be shown: plain letters, not many, and nothing that looks like a token."""
    plain = "".join(letter for letter in re.sub(r"\s+", " ", said) if letter.isprintable())
    words = credentials.masked(plain).strip(" .")
    return words if len(words) <= LONGEST_WORDS else words[:LONGEST_WORDS] + "…"


@contextmanager
def _calm_library(bars: bool) -> Iterator[None]:
    """Its log shows addresses that carry a signature, and says again what is said here; its bars are for people."""
    from huggingface_hub.utils import logging as log
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before, hidden = log.get_verbosity(), are_progress_bars_disabled()
    log.set_verbosity(logging.ERROR)
    if not bars and not hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if not bars and not hidden:
            enable_progress_bars()
