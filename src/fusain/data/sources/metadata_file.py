"""A folder whose `metadata.jsonl` or `metadata.csv` says which images there are, with captions, labels and weights."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from fusain.data.quarantine import Quarantined
from fusain.data.scan import HELD_OUT_FOLDERS, MASK_ENDING
from fusain.data.source import Listing, Source
from fusain.errors import DataError, UnsafeFileError

FILES = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption")
LABEL_COLUMNS = ("label", "class")
_NO_CHARACTER: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
"""Controls, and halves of characters as JSON may spell them, which nothing can read."""


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    name: str
    line: int
    caption: str | None
    label: str | None
    weight: float
    repeats: int
    is_held_out: bool | None


class MetadataFile(Source):
    kind: ClassVar[str] = "metadata"
    rank: ClassVar[int] = 10

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.name in FILES if path.is_file() else any((path / name).is_file() for name in FILES)

    def listing(self) -> Listing:
        file = self._file()
        columns: dict[str, None] = {}
        rows = sorted(self._rows(file, columns), key=lambda row: row.name)
        for one, other in itertools.pairwise(rows):
            if one.name == other.name:
                where = f"{file}, line {max(one.line, other.line)}"
                raise DataError("E-DATA-044", where=where, name=one.name, first=min(one.line, other.line))
        found, faults = self._find(rows)
        listing = _listing(found, faults, tuple(columns))
        listing.mask_files = self._masks(listing.names)
        return listing

    def _file(self) -> Path:
        if self.path.is_file():
            return self.path
        found = [self.path / name for name in FILES if (self.path / name).is_file()]
        if len(found) != 1:
            raise DataError(
                "E-DATA-045", where=str(self.path), found=" and ".join(path.name for path in found) or "none"
            )
        return found[0]

    def _rows(self, file: Path, columns: dict[str, None]) -> Iterator[Row]:
        """Every line; the names of all columns are left in `columns`, in the order in which they are met."""
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as fault:
            raise DataError("E-DATA-041", where=str(file), name=file.name, problem="it is no UTF-8 text") from fault
        except OSError as fault:
            raise DataError("E-DATA-005", where=str(file), path=file, fault=fault.strerror) from fault
        captions = CAPTION_COLUMNS if self.caption_column is None else (self.caption_column,)
        for line, record in _records(file, text):
            columns.update(dict.fromkeys(record))
            yield _row(file, line, record, captions)

    def _find(self, rows: list[Row]) -> tuple[list[tuple[Row, os.stat_result]], tuple[Quarantined, ...]]:
        found, faults = [], []
        has_labels = any(row.label is not None for row in rows)
        for row in rows:
            if has_labels and row.label is None:
                faults.append(Quarantined.of(DataError("E-DATA-020", where=row.name, name=row.name)))
                continue
            try:
                found.append((row, os.stat(self.folder / row.name)))
            except OSError as fault:
                broken = DataError("E-DATA-010", where=row.name, name=row.name, problem=fault.strerror)
                faults.append(Quarantined.of(broken))
        return found, tuple(faults)

    def _masks(self, images: list[str]) -> frozenset[str]:
        """The masks in the folders of the images; a line of the file names an image only."""
        found: set[str] = set()
        for folder in {posixpath.dirname(name) for name in images}:
            with contextlib.suppress(OSError):  # a folder may give out its files and not their names
                files = os.listdir(self.folder / folder)
                found.update(posixpath.join(folder, file) for file in files if file.endswith(MASK_ENDING))
        return frozenset(found)


def _listing(
    found: list[tuple[Row, os.stat_result]], faults: tuple[Quarantined, ...], columns: tuple[str, ...]
) -> Listing:
    rows = [row for row, _ in found]
    listing = Listing(
        names=[row.name for row in rows],
        sizes=np.asarray([facts.st_size for _, facts in found], dtype=np.int64),
        mtimes=np.asarray([facts.st_mtime_ns for _, facts in found], dtype=np.int64),
        faults=faults,
        columns=columns,
    )
    labels = {row.label for row in rows if row.label is not None}
    if labels:
        listing.classes = tuple(sorted(labels, key=_as_number_or_text))
        number = {label: index for index, label in enumerate(listing.classes)}
        listing.label_ids = np.asarray([number[row.label or ""] for row in rows], dtype=np.int32)
    if any(row.caption is not None for row in rows):
        listing.captions = [row.caption or "" for row in rows]
    if any(row.weight != 1 for row in rows):
        listing.weights = np.asarray([row.weight for row in rows], dtype=np.float32)
    if any(row.repeats != 1 for row in rows):
        listing.repeats = np.asarray([row.repeats for row in rows], dtype=np.int64)
    if any(row.is_held_out for row in rows):
        listing.is_held_out = np.asarray([bool(row.is_held_out) for row in rows], dtype=np.bool_)
    return listing


def _records(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line that is not empty, with its number."""
    if file.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for record in reader:
                if None in record or None in record.values():
                    problem = f"it has not the {len(reader.fieldnames or ())} columns of the first line"
                    raise DataError("E-DATA-042", where=f"{file}, line {reader.line_num}", problem=problem)
                yield reader.line_num, dict(record)
        except csv.Error as fault:
            raise DataError("E-DATA-042", where=f"{file}, line {reader.line_num}", problem=str(fault)) from fault
        return
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except ValueError as fault:
            raise DataError("E-DATA-042", where=f"{file}, line {line}", problem=f"it is no JSON ({fault})") from fault
        if not isinstance(record, dict):
            raise DataError("E-DATA-042", where=f"{file}, line {line}", problem="it is no JSON object")
        yield line, record


def _row(file: Path, line: int, record: dict[str, Any], captions: tuple[str, ...]) -> Row:
    where = f"{file}, line {line}"
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DataError("E-DATA-043", where=where, columns=", ".join(map(str, record)) or "none")
    _require_characters(name, "file_name", where)
    plain = posixpath.normpath(name.replace("\\", "/"))
    if plain.startswith(("/", "../")) or plain == ".." or plain[1:2] == ":":
        raise UnsafeFileError("E-SEC-003", where=where, name=name)
    split = record.get("split")
    return Row(
        name=plain,
        line=line,
        caption=_text(record, captions, where),
        label=_text(record, LABEL_COLUMNS, where),
        weight=_number(record, "weight", where, least=0.0),
        repeats=int(_number(record, "repeats", where, least=1)),
        is_held_out=None if split is None else str(split).lower() in HELD_OUT_FOLDERS,
    )


def _text(record: dict[str, Any], columns: tuple[str, ...], where: str) -> str | None:
    """The first of the columns that is there; numbers count as text, so 1 and "1" are one class."""
    for column in columns:
        value = record.get(column)
        if value is None or not str(value).strip():
            continue
        if isinstance(value, list | dict):
            kind = type(value).__name__
            raise DataError("E-DATA-042", where=where, problem=f"'{column}' is a {kind} and no text")
        text = " ".join(str(value).split())
        _require_characters(text, column, where)
        return text
    return None


def _require_characters(text: str, column: str, where: str) -> None:
    if found := _NO_CHARACTER.search(text):
        problem = f"'{column}' holds U+{ord(found[0]):04X}, which is no character of a text"
        raise DataError("E-DATA-042", where=where, problem=problem)


def _number(record: dict[str, Any], column: str, where: str, *, least: float) -> float:
    value = record.get(column)
    if value is None or value == "":
        return 1.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not least <= number < float("inf") or (column == "repeats" and number != int(number)):
        raise DataError(
            "E-DATA-042", where=where, problem=f"'{column}' is {value!r}, which is no number from {least:g} up"
        )
    return number


def _as_number_or_text(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
