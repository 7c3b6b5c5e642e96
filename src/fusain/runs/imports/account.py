"""The account of an import: what each key of the source became, and the rules by which that is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fusain.settings import described

Fate = Literal["mapped", "assumed", "needless", "lost", "unknown"]
OFF: Final = (None, False, 0, 0.0, "", "none", "NONE", "None", "[]")
"""How files say that something is not used."""


@dataclass(frozen=True)
class Entry:
    """One key of the source, or with `assumed` a default of the tool that the source does not name."""

    key: str
    value: Any
    fate: Fate
    words: str = ""
    target: str = ""
    result: Any = None


@dataclass(frozen=True)
class Taken:
    """A converted value that is not quite the same, and what to know of it."""

    value: Any
    remark: str


class Lost(Exception):
    """Raised by a conversion for a value that Fusain has nothing for; the words say why."""


class Off(Exception):
    """Raised by a conversion for a value that switches something off; the words say what holds in its place."""


@dataclass(frozen=True)
class To:
    """The value belongs to `target`, as it is or converted."""

    target: str
    convert: Callable[[Any], Any] | None = None
    remark: str = ""


@dataclass(frozen=True)
class Not:
    """The key needs no place: the reason says why nothing is lost."""

    reason: str


@dataclass(frozen=True)
class Lacks:
    """Fusain cannot do it; harmless where it is switched off."""

    what: str
    off: tuple[Any, ...] = OFF
    fine: str = "it is off"


Rule = To | Not | Lacks


@dataclass
class Account:
    """Settings by their dotted keys, and an entry for each key of the source."""

    settings: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def put(self, key: str, value: Any, target: str, result: Any, remark: str = "") -> None:
        """The value of `key` becomes `target`."""
        self.settings[target] = result
        self.entries.append(Entry(key, value, "mapped", remark, target, result))

    def assume(self, target: str, result: Any, why: str) -> None:
        """What the tool does by itself where its file says nothing."""
        if target not in self.settings:
            self.settings[target] = result
            self.entries.append(Entry("", None, "assumed", why, target, result))

    def needless(self, key: str, value: Any, reason: str) -> None:
        """The key has no meaning here, and nothing is lost by it."""
        self.entries.append(Entry(key, value, "needless", reason))

    def lost(self, key: str, value: Any, reason: str) -> None:
        """The training will differ in this."""
        self.entries.append(Entry(key, value, "lost", reason))

    def withdraw(self, target: str, reason: str, fate: Fate = "needless") -> None:
        """Another setting stands in place of `target`."""
        if target in self.settings:
            del self.settings[target]
            self.entries = [
                Entry(one.key, one.value, fate, reason) if one.target == target else one for one in self.entries
            ]

    def take(self, values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str = "") -> None:
        """Judge each key by its rule; one without a rule is unknown."""
        for key, value in values.items():
            rule = rules.get(key)
            if rule is None:
                self.entries.append(Entry(prefix + key, value, "unknown"))
            else:
                self._judge(prefix + key, value, rule)

    def _judge(self, key: str, value: Any, rule: Rule) -> None:
        if isinstance(rule, Not):
            self.needless(key, value, rule.reason)
        elif isinstance(rule, Lacks) and value in rule.off:
            self.needless(key, value, rule.fine)
        elif isinstance(rule, Lacks):
            self.lost(key, value, f"Fusain has no {rule.what}")
        elif value is None or value == "":
            self.needless(key, value, "it is empty")
        else:
            self._convert(key, value, rule)

    def _convert(self, key: str, value: Any, rule: To) -> None:
        try:
            result = rule.convert(value) if rule.convert else value
        except Lost as reason:
            self.lost(key, value, str(reason))
            return
        except Off as reason:
            self.needless(key, value, str(reason))
            return
        except (TypeError, ValueError, KeyError, IndexError):
            self.lost(key, value, f"the value is not of the kind that belongs to {rule.target}")
            return
        taken = result if isinstance(result, Taken) else Taken(result, rule.remark)
        self.put(key, value, rule.target, taken.value, taken.remark)

    def settle(self) -> None:
        """Take back what does not exist in this Fusain under the kinds that were chosen."""
        description = described.load()
        kinds = dict(description.kinds) | {key: self.settings[key] for key in description.kinds if key in self.settings}
        known = {entry.key for entry in description.settings if entry.exists(kinds)}
        named = ", ".join(f"{key} = {kinds[key]}" for key in sorted(kinds))
        for place, entry in enumerate(self.entries):
            if entry.target and entry.target not in known:
                self.settings.pop(entry.target, None)
                self.entries[place] = Entry(entry.key, entry.value, "lost", f"there is no {entry.target} with {named}")
        self.entries = [entry for entry in self.entries if entry.key or entry.target]

    def of(self, fate: Fate) -> list[Entry]:
        """The entries of one fate, in the order of the source."""
        return [entry for entry in self.entries if entry.fate == fate]


def chosen(
    target: str, same: Mapping[str, str] | None = None, near: Mapping[str, tuple[str, str]] | None = None
) -> Any:
    """A conversion to one of the choices of `target`; names in `near` are not quite the same, and say so."""

    def convert(value: Any) -> Any:
        known = [choice for entry in described.load().settings if entry.key == target for choice in entry.choices]
        word = str(value).lower()
        instead, remark = (near or {}).get(word, ("", ""))
        if instead in known:
            return Taken(instead, remark)
        named = (same or {}).get(word, word)
        if named in known:
            return named
        raise Lost(f"{target} has no '{value}'; it has {', '.join(str(choice) for choice in known)}")

    return convert


def whole(value: Any) -> int:
    """A count, which files give as text or as a decimal too."""
    number = float(value)
    if number != int(number):
        raise Lost("it is not a whole number")
    return int(number)


def number(value: Any) -> float:
    """A number, which files give as text too."""
    return float(value)


def flag(value: Any) -> bool:
    """A yes or no, which files give as text too."""
    return value if isinstance(value, bool) else str(value).strip().lower() in ("1", "true", "yes", "on")


def compiler(value: Any) -> str:
    """Which of PyTorch's compilers, or none."""
    word = str(value).lower()
    if word not in ("no", "none", "inductor"):
        raise Lost(f"engine.compile uses the compiler inductor, not {value}")
    return "on" if word == "inductor" else "off"


def side(value: Any) -> Any:
    """The side of the images: of several or of a rectangle one that stands for them."""
    parts = value if isinstance(value, list) else str(value).lower().replace("x", ",").split(",")
    sides = [int(float(part)) for part in parts]
    # A multiple of 64 suits every family that works on latents.
    root = sides[0] if len(set(sides)) == 1 else round((sides[0] * sides[-1]) ** 0.5 / 64) * 64
    if len(set(sides)) == 1:
        return root
    return Taken(
        root, f"Fusain learns at one size, with buckets around it; {' × '.join(map(str, sides))} became {root}"
    )
