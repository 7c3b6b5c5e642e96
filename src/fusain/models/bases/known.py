"""Names of the hub that are known on this machine, for whoever mistypes one: of what was fetched, and of bases that
settings name."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from fusain.settings import described, recipes, user_file

ALIKE: Final = 0.7
"""How much of two names must be the same; with less, all that ends in one common word would be alike."""


def nearest(source: str, noun: str = "model") -> str | None:
    """The name that is meant: the same of another owner, for models move, or one that is spelt almost so."""
    names = [*_fetched(noun), *(_named() if noun == "model" else ())]
    known = {name.lower(): name for name in names if name != source}
    wanted = source.lower()
    moved = [name for name in known if name.rpartition("/")[2] == wanted.rpartition("/")[2]]
    near = get_close_matches(wanted, moved, n=1, cutoff=0) or get_close_matches(wanted, known, n=1, cutoff=ALIKE)
    return known[near[0]] if near else None


def _fetched(noun: str) -> Iterator[str]:
    """What the hub's cache holds something of."""
    from huggingface_hub import constants

    kind = "models" if noun == "model" else "datasets"
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob(f"{kind}--*--*")):
        if any((folder / "snapshots").glob("*/*")):
            yield folder.name.removeprefix(f"{kind}--").replace("--", "/")


def _named() -> Iterator[str]:
    """The bases of families, of recipes and of the user's own settings."""
    users = user_file.load()
    yield from users.bases.values() if users else ()
    for name in recipes.names():
        base = described.look_up(recipes.load(name).values, "family.base")
        if isinstance(base, str):
            yield base
    yield from (str(entry.default) for entry in described.load().settings if entry.key == "family.base")
