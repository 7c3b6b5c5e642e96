"""Captions that lie beside their images as `.txt` or `.caption` files."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass

from fusain.data.quarantine import Quarantined
from fusain.data.scan import CAPTION_EXTENSIONS, Scan
from fusain.errors import DataError

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Captions:
    """A caption for each image, "" where there is none; None when no image has one. Unreadable ones are faults."""

    texts: list[str] | None
    faults: dict[int, Quarantined]


def beside(found: Scan) -> Captions:
    """The captions of all images of a scan."""
    if not found.caption_files:
        return Captions(None, {})
    texts, faults, any_found = [], {}, False
    for row, name in enumerate(found.names):
        stem = os.path.splitext(name)[0]
        sidecar = next((stem + end for end in CAPTION_EXTENSIONS if stem + end in found.caption_files), None)
        texts.append("")
        if sidecar is None:
            continue
        any_found = True
        try:
            texts[row] = read(os.path.join(found.root, sidecar))
        except (OSError, UnicodeError) as fault:
            problem = "is no UTF-8 text" if isinstance(fault, UnicodeError) else f"cannot be read ({fault.strerror})"
            faults[row] = Quarantined.of(
                DataError("E-DATA-018", where=name, name=name, caption=sidecar, problem=problem)
            )
    return Captions(texts if any_found else None, faults)


def read(path: str) -> str:
    """The text of a caption file: UTF-8, or UTF-16 that says so; line breaks become spaces."""
    with open(path, "rb") as file:
        content = file.read()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding)
    if "\0" in text:
        raise UnicodeError("holds NUL characters")
    return " ".join(text.split())
