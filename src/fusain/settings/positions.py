"""In which line of a TOML file each key stands; `tomllib` reads values but keeps no lines."""

from __future__ import annotations

import re
from collections import Counter

Path = tuple[str, ...]

_NAME = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_DOTTED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_STATEMENT = re.compile(
    rf"[ \t]*(?:\[\[\s*(?P<item>{_DOTTED})\s*\]\]|\[\s*(?P<table>{_DOTTED})\s*\]|(?P<key>{_DOTTED})[ \t]*=)"
)
_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""+'
    r"|'''.*?'''+"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*|[\[{]|[\]}]|\n|[^\"'#\[\]{}\n]+|.",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line of each table and key of a valid TOML text; items of arrays of tables are numbered in the path."""
    lines: dict[Path, int] = {}
    counts: Counter[Path] = Counter()
    table: Path = ()
    position = 0
    while position < len(text):
        statement = _STATEMENT.match(text, position)
        if statement is None:
            position = _after_line(text, position)
            continue
        line = text.count("\n", 0, position) + 1
        if statement["item"]:
            name = _located(_split(statement["item"]), counts)
            table = (*name, str(counts[name]))
            counts[name] += 1
            lines.setdefault(name, line)
        elif statement["table"]:
            table = _located(_split(statement["table"]), counts)
        path = (*table, *_split(statement["key"])) if statement["key"] else table
        for end in range(len(table) or 1, len(path) + 1):
            lines.setdefault(path[:end], line)
        position = _after_line(text, statement.end())
    return lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a key, or of the nearest thing around it (a key inside an inline table has no line of its own)."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)


def _split(dotted: str) -> Path:
    return tuple(name.strip("\"'") for name in re.findall(_NAME, dotted))


def _located(name: Path, counts: Counter[Path]) -> Path:
    """A table under an array of tables belongs to the newest item."""
    for end in range(1, len(name)):
        if counts[name[:end]]:
            return (*name[:end], str(counts[name[:end]] - 1), *name[end:])
    return name


def _after_line(text: str, position: int) -> int:
    """Where the next statement starts: after the line break that is inside no string and no bracket."""
    depth = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        assert piece is not None, "the last branch matches any character"
        position = piece.end()
        if piece[0] == "\n" and depth == 0:
            break
        depth += (piece[0] in ("[", "{")) - (piece[0] in ("]", "}"))
    return position
