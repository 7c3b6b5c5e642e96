"""Captions from attributes: what is spoken of, in which order, and in which kind of sentence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeVar

from fusain.worlds.caricature_parts import english, french
from fusain.worlds.caricature_parts.attributes import ATTRIBUTES, NONE_SHARES, Face, unseen
from fusain.worlds.caricature_parts.phrases import Phrases
from fusain.worlds.dice import Dice

Language = Literal["en", "fr"]
Values = Mapping[str, str]
Item = TypeVar("Item")

_CHOICE_STREAM: Final = 22
_WORDING_STREAM: Final = 23
_WHOLE_SHARE: Final = 0.5
_SHORT_SHARE: Final = 0.15
_SPOKEN_SHARE: Final = 0.77
_ABSENCE_SHARE: Final = 0.4
_LIST_SHARE: Final = 0.2


class _Tongue(Protocol):
    """What a language's module offers: phrases in groups, and the sentence that joins them."""

    def traits(self, said: Values, is_bald: bool, dice: Dice) -> list[str]: ...

    def worn(self, said: Values, dice: Dice) -> list[str]: ...

    def places(self, said: Values, dice: Dice) -> list[str]: ...

    def absent(self, said: Values) -> list[str]: ...

    def opening(self, said: Values, dice: Dice) -> str: ...

    def sentence(self, said: Values, phrases: Phrases, dice: Dice) -> str: ...


def spoken(face: Face, seed: int, *, names: Collection[str] | None = None) -> frozenset[str]:
    """The attributes that the caption of the same face, seed and names speaks of, in any language."""
    hidden = unseen(face)
    seen = [name for name in ATTRIBUTES if name not in hidden]
    if names is not None:
        unknown = sorted(set(names) - set(ATTRIBUTES))
        assert not unknown, f"no such attributes: {unknown}"
        return frozenset(names).intersection(seen)
    dice = Dice(_CHOICE_STREAM, seed)
    kind = dice.between(0.0, 1.0)
    if kind < _WHOLE_SHARE:
        return frozenset(seen)
    present = [name for name in seen if not _is_absence(name, face.attributes)]
    if kind < _WHOLE_SHARE + _SHORT_SHARE:
        return frozenset(_shuffled(present, dice)[: 3 + dice.below(2)])
    shares = {name: _SPOKEN_SHARE if name in present else _ABSENCE_SHARE for name in seen}
    return frozenset(name for name in seen if dice.chance(shares[name]))


def caption(face: Face, seed: int, language: Language = "en", *, names: Collection[str] | None = None) -> str:
    """A sentence or a list on a face, of exactly the seen ones of the attributes in `names`, or of a varied subset."""
    names_said = spoken(face, seed, names=names)
    said = {name: face.attributes[name] for name in ATTRIBUTES if name in names_said}
    dice = Dice(_WORDING_STREAM, seed)
    tongue: _Tongue = english if language == "en" else french
    phrases = Phrases(
        traits=_shuffled(tongue.traits(said, face.attributes["cut"] == "bald", dice), dice),
        worn=tongue.worn(said, dice),
        places=_shuffled(tongue.places(said, dice), dice),
        absent=tongue.absent(said),
    )
    if dice.chance(_LIST_SHARE):
        return ", ".join([tongue.opening(said, dice), *_shuffled(phrases.all(), dice)])
    return tongue.sentence(said, phrases, dice)


def _is_absence(name: str, values: Mapping[str, str]) -> bool:
    return name in NONE_SHARES and values[name] == "none"


def _shuffled(items: Sequence[Item], dice: Dice) -> list[Item]:
    order = sorted((dice.between(0.0, 1.0), place) for place in range(len(items)))
    return [items[place] for _, place in order]
