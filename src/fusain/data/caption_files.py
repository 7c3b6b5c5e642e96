"""Captions that lie beside their images as `.txt` or `.caption` files: which belongs to which, and reading them."""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import dataclass
from typing import Final

from fusain.data.lock import some
from fusain.data.quarantine import Quarantined
from fusain.data.scan import Scan
from fusain.errors import DataError
from fusain.settings.notice import Notice

SHOWN: Final = 5

_MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UNKNOWN: Final = "is text in an unknown encoding, or no text"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_NO_WESTERN: Final = re.compile(rb"[\x80-\xff]{3}")
"""Western words have no three accents in a row; texts in other old encodings have little else."""


@dataclass(frozen=True)
class Captions:
    """A caption for each image, "" where there is none; None when no image has one. Unreadable ones are faults."""

    texts: list[str] | None
    faults: dict[int, Quarantined]
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Text:
    """What a caption file says, on one line."""

    words: str
    is_converted: bool
    """Whether its encoding had to be guessed."""


def beside(found: Scan) -> Captions:
    """The captions of all images of a scan."""
    if not found.caption_files:
        return Captions(None, {})
    files, orphans = _paired(found)
    texts, faults, converted = [""] * len(found.names), {}, []
    for row, file in files.items():
        try:
            text = read(os.path.join(found.root, file))
        except (OSError, UnicodeError) as fault:
            name = found.names[row]
            problem = str(fault) if isinstance(fault, UnicodeError) else f"cannot be read ({fault.strerror})"
            faults[row] = Quarantined.of(DataError("E-DATA-018", where=name, name=name, caption=file, problem=problem))
            continue
        texts[row] = text.words
        if text.is_converted:
            converted.append(file)
    notices = []
    if orphans:
        notices.append(Notice("W-CAP-001", count=f"{len(orphans):,}", names=some(orphans, SHOWN)))
    if converted:
        notices.append(Notice("W-CAP-002", count=f"{len(converted):,}", names=some(converted, SHOWN)))
    return Captions(texts if files else None, faults, tuple(notices))


def _paired(found: Scan) -> tuple[dict[int, str], list[str]]:
    """The caption file of each row that has one, and those of no image; what two may claim is an error."""
    by_stem: dict[str, list[str]] = {}
    for file in sorted(found.caption_files):
        by_stem.setdefault(_stem(file).casefold(), []).append(file)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(found.names):
        stem = _stem(name).casefold()
        if stem in by_stem:
            rows.setdefault(stem, []).append(row)
    files, unclear = {}, []
    for stem, claimed in rows.items():
        [row, *others], [file, *more] = claimed, by_stem[stem]
        if others or more or _stem(file) != _stem(found.names[row]):
            unclear.append(", ".join(f"'{name}'" for name in (*(found.names[row] for row in claimed), *by_stem[stem])))
        files[row] = file
    if unclear:
        shown = "\n".join(f"    {names}" for names in unclear[:SHOWN])
        raise DataError("E-CAP-003", where=str(found.root), count=f"{len(unclear):,}", shown=shown)
    return files, [file for stem, files_ in by_stem.items() if stem not in rows for file in files_]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def read(path: str) -> Text:
    """The text of a caption file, its line breaks as spaces; bytes that are no text are a UnicodeError that says so."""
    with open(path, "rb") as file:
        content = file.read()
    text, is_converted = _decoded(content)
    if _CONTROLS.search(text):
        raise UnicodeError(_UNKNOWN)
    return Text(" ".join(text.split()), is_converted)


def _decoded(content: bytes) -> tuple[str, bool]:
    """UTF-8, or UTF-16 that says so; else, as a guess, UTF-16 or Windows-1252 where nothing speaks against it."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _as(content, encoding), False
    if b"\0" in content:
        for encoding, zeros in (("utf-16-le", content[1::2]), ("utf-16-be", content[0::2])):
            if zeros.count(0) * 2 > len(zeros):
                return _as(content, encoding), True
    try:
        return content.decode("utf-8"), False
    except UnicodeDecodeError:
        if _NO_WESTERN.search(content):
            raise UnicodeError(_UNKNOWN) from None
    return _as(content, "cp1252"), True


def _as(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise UnicodeError(_UNKNOWN) from None
