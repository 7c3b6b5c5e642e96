"""Keeps what belongs to this machine out of what is published: paths, with the user's name in them, and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fusain.errors import UnsafeFileError
from fusain.settings import credentials

VOCABULARIES: Final = ("vocab.json", "merges.txt", "tokenizer.json")
"""Their words are those of the base and may look like anything, even like a path."""
_BEGIN: Final = r"(?<![\w.~:/<\\])"
"""Neither the rest of a web address nor the second half of a word such as and/or."""
PATH: Final = re.compile(
    _BEGIN + r"(?:/[\w.@+-]+/[\w.@+-]|~(?:[a-z][\w.-]*)?/|\\\\[\w.-]+\\|[A-Za-z]:[\\/])[^\s\"'`)|,\]]*"
)
"""A path from the root or from a home folder, as any system writes them."""
SHOWN: Final = 60


def looks_like_a_path(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and PATH.search(value) is not None)


def check(texts: Iterable[tuple[str, str]], places: Sequence[Path]) -> None:
    """Refuse the first of the named texts that holds a path or a token; `places` are known paths of the run."""
    known = [re.compile(_BEGIN + re.escape(place) + r"(?!\w)") for place in sorted(set(_spelled(places)))]
    for name, text in texts:
        token = credentials.first_token(text)
        if token:
            raise UnsafeFileError("E-SEC-011", where=name, found=f"what looks like an access token ({token})")
        patterns = known if Path(name).name in VOCABULARIES else [*known, PATH]
        path = next((found[0] for pattern in patterns if (found := pattern.search(text))), None)
        if path:
            raise UnsafeFileError("E-SEC-011", where=name, found=f"a path of this machine ({path[:SHOWN]})")


def _spelled(places: Sequence[Path]) -> Iterator[str]:
    """Each place and the home folder, as written and as they are; a bare root would be found everywhere."""
    for place in (Path.home(), *places):
        written = place.expanduser()
        yield from (str(one) for one in (written.absolute(), written.resolve()) if len(one.parts) > 1)
