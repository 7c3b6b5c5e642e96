"""The rows of many Parquet files as one long list, read a group of rows at a time, wherever the files lie."""

from __future__ import annotations

import bisect
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from fusain.data.quarantine import Quarantined
from fusain.data.source import Listing, Source
from fusain.data.sources import hugging_face
from fusain.data.sources.metadata_file import CAPTION_COLUMNS, LABEL_COLUMNS
from fusain.errors import DataError, EnvironmentFault

ENDS_AT_ONCE: Final = 16
"""Files whose last bytes, which say what is in them, are read at once: of the hub each is a request."""
AFTER_FOOTER: Final = 8
"""Bytes of a Parquet file after the part that describes it: how long that is, and four letters."""
SUFFIX: Final = ".parquet"


class Files(Protocol):
    """Where Parquet files lie."""

    @property
    def path(self) -> Path:
        """What `data.path` names."""

    @property
    def names(self) -> Sequence[str]:
        """Of the files, with "/" between folders."""

    def opened(self, name: str) -> AbstractContextManager[Any]:
        """A file that is read at any place; within, what goes wrong is told in our words."""


@dataclass(frozen=True)
class Folder:
    """A folder on this machine, or one file."""

    path: Path

    @property
    def names(self) -> Sequence[str]:
        found = [self.path] if self.path.is_file() else hugging_face.files(self.path)
        return [path.relative_to(self._folder).as_posix() for path in found if path.suffix == SUFFIX]

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        path = self._folder / name
        with hugging_face.quietly(path), path.open("rb") as file:
            yield file

    @property
    def _folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True)
class Piece:
    """Some rows of one group."""

    file: int
    group: int
    start: int
    """The first row, counted in the group."""
    rows: int
    first: int
    """The first row, counted over all files."""

    def part(self, start: int, stop: int) -> Piece:
        """Some of its rows."""
        return Piece(self.file, self.group, self.start + start, stop - start, self.first + start)


class Rows(Source):
    """Rows as they are stored, in memory."""

    kind: ClassVar[str] = "datasets"
    passes_by: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.numbers: dict[str, int] = {}
        """Of each row by its name, counted over all files."""
        self.contents: dict[str, bytes | None] = {}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def listing(self) -> Listing:
        raise NotImplementedError("it is read together with the rows")

    def read(self, name: str) -> bytes:
        content = self.contents[name]
        if content is None:
            raise DataError("E-DATA-083", where=name, name=name)
        return content


class Shards:
    """All rows of some files by their numbers; of the files no more than their ends was read yet."""

    def __init__(self, files: Files, image_column: str | None, caption_column: str | None) -> None:
        if importlib.util.find_spec("datasets") is None:
            otherwise = "leave data.streaming out"
            raise EnvironmentFault("E-ENV-006", where="data.path", name="datasets", extra="data", otherwise=otherwise)
        self.files, self.names = files, tuple(files.names)
        with ThreadPoolExecutor(ENDS_AT_ONCE) as pool:
            found = list(pool.map(self._end, self.names))
        self._ends, footers = [end for end, _ in found], [footer for _, footer in found]
        self.footers = dict(zip(self.names, footers, strict=True))
        """A short digest of each file's end, which says where its parts lie and how long they are: of files that were
        written anew with other content it is another."""
        counts = [end.num_rows for end in self._ends]
        if not sum(counts):
            raise DataError("E-DATA-091", where="data.path", path=files.path)
        self._starts = [0, *accumulate(counts)]
        self.splits = [hugging_face.split_of(PurePosixPath(name)) for name in self.names]
        self._before = [
            sum(count for count, of in zip(counts[:file], self.splits, strict=False) if of == split)
            for file, split in enumerate(self.splits)
        ]
        """The rows of the same split in the files before each."""
        self._read_columns(image_column, caption_column)
        self._group = lru_cache(maxsize=1)(self._read_group)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _read_columns(self, image_column: str | None, caption_column: str | None) -> None:
        from datasets import Features

        self._features = Features.from_arrow_schema(self._ends[0].schema.to_arrow_schema())
        self.image = hugging_face.image_column(self._features, image_column)
        self.columns = tuple(name for name in self._features if name != self.image)
        captions = CAPTION_COLUMNS if caption_column is None else (caption_column,)
        self.caption = next((name for name in captions if name in self.columns), None)
        label = next((name for name in LABEL_COLUMNS if name in self.columns), None)
        self.label = label if label and hasattr(self._features[label], "int2str") else None
        """Only a column whose classes the files name: else all rows would have to be read to know them."""
        self.classes = tuple(sorted(self._features[self.label].names)) if self.label else ()

    @property
    def counts(self) -> dict[str, int]:
        """The rows of each file."""
        return dict(zip(self.names, (end.num_rows for end in self._ends), strict=True))

    def pieces(self) -> list[Piece]:
        """All groups of rows."""
        found = []
        for file, (start, end) in enumerate(zip(self._starts, self._ends, strict=False)):
            for group in range(end.num_row_groups):
                count = end.row_group(group).num_rows
                found.append(Piece(file, group, 0, count, start))
                start += count
        return found

    def is_held_out(self, piece: Piece) -> bool:
        """Whether the name of its file says so."""
        return hugging_face.is_held_out(self.splits[piece.file])

    def name_of(self, row: int) -> str:
        """The split and the number in it, as all rows of a data set on disk are called."""
        file = bisect.bisect_right(self._starts, row) - 1
        return hugging_face.name_of(self.splits[file], row - self._starts[file] + self._before[file])

    def read(self, pieces: Sequence[Piece], *, needs_captions: bool) -> tuple[Rows, Listing]:
        """These rows; with `needs_captions` those without one are put aside."""
        source = Rows(self.files.path)
        captions, labels = list[str](), list[str]()
        for piece in pieces:
            part = self._group(piece.file, piece.group).slice(piece.start, piece.rows)
            rows = range(piece.first, piece.first + piece.rows)
            names = [self.name_of(row) for row in rows]
            source.numbers |= zip(names, rows, strict=True)
            source.contents |= zip(names, map(_content, part.column(self.image).to_pylist()), strict=True)
            captions += self._texts(part, self.caption)
            labels += self._texts(part, self.label)
        aside = {row: "E-DATA-020" for row, label in enumerate(labels) if not label}
        if needs_captions:
            aside |= {row: "E-DATA-092" for row, caption in enumerate(captions) if not caption}
        listing = self._listing(source, captions, labels)
        return source, listing.without({row: put_aside(code, listing.names[row]) for row, code in aside.items()})

    def _listing(self, source: Rows, captions: list[str], labels: list[str]) -> Listing:
        number = {label: place for place, label in enumerate(self.classes)}
        return Listing(
            names=list(source.numbers),
            sizes=np.asarray([len(content or b"") for content in source.contents.values()], np.int64),
            mtimes=np.zeros(len(source.numbers), np.int64),
            classes=self.classes,
            label_ids=np.asarray([number.get(label, -1) for label in labels], np.int32) if self.label else None,
            captions=captions if self.caption else None,
            columns=self.columns,
        )

    def _end(self, name: str) -> tuple[Any, str]:
        import pyarrow.parquet as parquet

        with self._opened(name) as file:
            end = parquet.read_metadata(file)
            file.seek(-(end.serialized_size + AFTER_FOOTER), os.SEEK_END)
            return end, hashlib.sha256(file.read(end.serialized_size)).hexdigest()[:16]

    def _read_group(self, file: int, group: int) -> Any:
        import pyarrow.parquet as parquet

        wanted = [column for column in (self.image, self.caption, self.label) if column]
        with self._opened(self.names[file]) as opened:
            return parquet.ParquetFile(opened, metadata=self._ends[file]).read_row_group(group, columns=wanted)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        import pyarrow

        with self.files.opened(name) as file:
            try:
                yield file
            except pyarrow.ArrowException as fault:
                raise hugging_face.damaged(self.files.path / name, fault) from fault

    def _texts(self, part: Any, column: str | None) -> list[str]:
        if column is None:
            return []
        return hugging_face.as_texts(part.column(column).to_pylist(), self._features[column], column)


def put_aside(code: str, name: str) -> Quarantined:
    """An image that is not used, for the reason of that code."""
    return Quarantined.of(DataError(code, where=name, name=name))


def _content(stored: Any) -> bytes | None:
    """The bytes of an image, which files hold by themselves or beside a name."""
    content = stored.get("bytes") if isinstance(stored, dict) else stored
    return bytes(content) if isinstance(content, bytes) else None
