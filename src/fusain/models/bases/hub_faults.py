"""What the hub or the way to it said, in words: each cause has its own, and none shows a token.

`told` is for downloads; what reads a fault of the hub's library serves uploads as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fusain.errors import NetworkFault
from fusain.messages.quantities import size
from fusain.models.bases import known


class Unreachable(Exception):
    """Nothing answered, or the hub is out of order; what is cached may still do, and so may another try."""

    lacking: Sequence[str] = ()
    """The files that are not here, where the hub had listed all before it went away."""


def page(source: str, noun: str = "model") -> str:
    """The page of a model, or of a data set."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{source}" if noun == "model" else f"{constants.ENDPOINT}/datasets/{source}"


@contextmanager
def told(source: str, revision: str | None, name: str = "", noun: str = "model") -> Iterator[None]:
    """Within, faults of the hub's library become ours."""
    try:
        yield
    except (OSError, ValueError, of_http()) as fault:
        raise _ours(fault, source, revision, name, noun) from fault


def of_http() -> type[Exception]:
    """The parent of all faults of whichever HTTP library this version of the hub's library stands on."""
    from huggingface_hub.errors import HfHubHTTPError

    parent: type[Exception] = HfHubHTTPError.__mro__[1]
    return parent


def not_here(
    source: str, revision: str | None, fault: Unreachable, lacking: Sequence[str], noun: str = "model"
) -> NetworkFault:
    """The hub does not answer, and its cache does not hold all."""
    pinned = f" --revision {revision}" if revision else ""
    wanted = '--include "*.json" "*.txt" "*.safetensors"'
    if noun != "model":
        wanted = '--repo-type dataset --include "*.parquet"'
    command = f"hf download {source}{pinned} {wanted} --local-dir {source.split('/')[1]}"
    return NetworkFault("E-NET-001", where=source, reason=fault, files=", ".join(lacking), command=command)


def sized(names: Sequence[str], sizes: Mapping[str, int | None]) -> list[str]:
    """Names of files, with their sizes where the hub told them before it fell silent."""
    return [f"{name} ({size(count)})" if (count := sizes.get(name)) else name for name in names]


def _ours(fault: Exception, source: str, revision: str | None, name: str, noun: str) -> Exception:
    from huggingface_hub import errors

    chain = chain_of(fault)
    status = status_of(chain)

    def is_one(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if is_one(errors.GatedRepoError) or status == 403:
        return NetworkFault("E-NET-002", where=source, noun=noun, url=page(source, noun))
    if is_one(errors.RevisionNotFoundError):
        return NetworkFault("E-NET-006", where=source, noun=noun, revision=revision, url=page(source, noun))
    if is_one(errors.RepositoryNotFoundError, errors.HFValidationError) or (status == 404 and not name):
        return _unknown(source, noun)
    if status == 404:
        return NetworkFault("E-NET-012", where=source, noun=noun, name=name, url=page(source, noun))
    if status in (401, 429):
        return NetworkFault({401: "E-NET-008", 429: "E-NET-004"}[status], where=source)
    if status >= 500 or any(map(_is_silence, chain)):
        return Unreachable(in_words(chain))
    if is_one(errors.FileMetadataError, ValueError):
        return NetworkFault("E-NET-005", where=source, reason="no answer of the hub's form", url=page(source, noun))
    if not name:
        return Unreachable(in_words(chain))
    return NetworkFault("E-NET-007", where=source, name=name, reason=in_words(chain))


def _unknown(source: str, noun: str) -> NetworkFault:
    near = known.nearest(source, noun)
    if near:
        return NetworkFault("E-NET-011", where=source, noun=noun, nearest=near)
    return NetworkFault("E-NET-003", where=source, noun=noun)


def chain_of(fault: BaseException) -> list[BaseException]:
    """A fault and what caused it, one after the other."""
    chain = [fault]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def status_of(chain: Sequence[BaseException]) -> int:
    """The HTTP status that was answered; 0 where nothing was."""
    statuses = (getattr(getattr(one, "response", None), "status_code", None) for one in chain)
    return next((int(status) for status in statuses if status), 0)


def _is_silence(fault: BaseException) -> bool:
    """Nobody was there; HTTP libraries have no common class for that, only common names."""
    named = ("ConnectError", "Timeout", "TimeoutException", "ProxyError", "ReadError", "SSLError")
    return isinstance(fault, ConnectionError) or type(fault).__name__.endswith(named)


def is_offline(chain: Sequence[BaseException]) -> bool:
    """Whether the user told the hub's library to stay away from the network."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(one, OfflineModeIsEnabled) for one in chain)


def in_words(chain: Sequence[BaseException]) -> str:
    """A few words on why there was no answer; addresses and headers of a request stay out."""
    status = status_of(chain)
    if status >= 500:
        return f"HTTP {status}"
    if is_offline(chain):
        return "offline mode is on, HF_HUB_OFFLINE"
    if any("Timeout" in type(one).__name__ for one in chain):
        return "no answer in time"
    if any(map(_is_silence, chain)):
        return "no connection"
    if "onsistency check" in str(chain[0]):
        return "it is not as long as announced"
    return next((one.strerror for one in chain if isinstance(one, OSError) and one.strerror), "the connection broke")
