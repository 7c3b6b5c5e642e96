"""A data set of Hugging Face `datasets`: a `save_to_disk` folder, or Parquet or Arrow files, alone or in folders."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from fusain.data import index_cache
from fusain.data.quarantine import Quarantined
from fusain.data.scan import HELD_OUT_FOLDERS
from fusain.data.source import Listing, Source
from fusain.data.sources.metadata_file import CAPTION_COLUMNS, LABEL_COLUMNS
from fusain.errors import DataError, EnvironmentFault

SUFFIXES: Final = (".parquet", ".arrow")
DEPTHS: Final = ("*", "*/*", "*/*/*")
"""Where files lie; the last is that of what the hub made itself, and is looked at only where `data.kind` says so."""
SAVED: Final = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in the folder of several splits, and of one."""

FAULTS: Final = (OSError, ValueError, KeyError, TypeError)


class HuggingFace(Source):
    kind: ClassVar[str] = "datasets"
    rank: ClassVar[int] = 20
    has_image_columns: ClassVar[bool] = True
    _image: str = ""
    """The column of the images, once the files were opened."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_file():
            return path.suffix in SUFFIXES
        return any((path / name).is_file() for name in SAVED) or bool(files(path, DEPTHS[:2]))

    def listing(self) -> Listing:
        splits = self._splits
        columns = tuple(next(iter(splits.values())).column_names)
        names = [name_of(split, row) for split, rows in splits.items() for row in range(len(rows))]
        listing = Listing(
            names=names,
            sizes=np.concatenate([_sizes(rows, self._image) for rows in splits.values()]),
            mtimes=np.full(len(names), max(path.stat().st_mtime_ns for path in self._stored), np.int64),
            columns=tuple(column for column in columns if column != self._image),
        )
        if any(is_held_out(split) for split in splits):
            flags = [np.full(len(rows), is_held_out(split)) for split, rows in splits.items()]
            listing.is_held_out = np.concatenate(flags)
        captions = CAPTION_COLUMNS if self.caption_column is None else (self.caption_column,)
        listing.captions = self._texts(captions)
        faults = _label(listing, self._texts(LABEL_COLUMNS))
        return listing.without(faults)

    @property
    def identity(self) -> tuple[str, ...]:
        return (*super().identity, self._image)

    def read(self, name: str) -> bytes:
        split, row = name.rsplit("/", 1)
        stored = self._splits[split][int(row)][self._image]
        content = stored and stored["bytes"]
        if content is None:
            raise DataError("E-DATA-083", where=name, name=name)
        return bytes(content)

    def __getstate__(self) -> dict[str, Any]:
        """A process that is handed this opens the files itself: they are mapped into memory, not copied."""
        return {name: value for name, value in self.__dict__.items() if name != "_splits"}

    @cached_property
    def _stored(self) -> list[Path]:
        return [self.path] if self.path.is_file() else files(self.path)

    @cached_property
    def _splits(self) -> dict[str, Any]:
        """The rows of each split, by its name; of images the stored bytes."""
        if importlib.util.find_spec("datasets") is None:
            otherwise = "leave data.path out"
            raise EnvironmentFault("E-ENV-006", where="data.path", name="datasets", extra="data", otherwise=otherwise)
        with quietly(self.path):
            found = dict(self._opened())
        for split, rows in found.items():
            self._image = image_column(rows.features, self.image_column)
            from datasets import Image

            with quietly(self.path):
                found[split] = rows.cast_column(self._image, Image(decode=False))
        return dict(sorted(found.items()))

    def _opened(self) -> Mapping[str, Any]:
        import datasets

        if any((self.path / name).is_file() for name in SAVED):
            saved = datasets.load_from_disk(str(self.path))
            return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        parts: dict[str, list[str]] = {}
        for path in self._stored:
            parts.setdefault(split_of(path.relative_to(self.folder)), []).append(str(path))
        form = self._stored[0].suffix.removeprefix(".")
        cache = str(index_cache.folder() / "datasets")
        loaded: Mapping[str, Any] = datasets.load_dataset(form, data_files=parts, cache_dir=cache)
        return loaded

    def _texts(self, columns: tuple[str, ...]) -> list[str] | None:
        """The first of the columns that is there, as text; empty where a row has none."""
        splits = self._splits
        known = next(iter(splits.values())).column_names
        column = next((name for name in columns if name in known), None)
        if column is None:
            return None
        return [text for rows in splits.values() for text in _column(rows, column)]


def is_held_out(split: str) -> bool:
    return split.lower() in HELD_OUT_FOLDERS


def name_of(split: str, row: int) -> str:
    return f"{split}/{row:08d}"


def image_column(features: Mapping[str, Any], wanted: str | None) -> str:
    """The one that the user named, or the only one that holds images."""
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if wanted is None and "image" in features and len(images) != 1:
        images = ["image"]
    found = images if wanted is None else [name for name in features if name == wanted]
    if len(found) != 1:
        facts = {"column": wanted or "image", "columns": ", ".join(features)}
        raise DataError("E-DATA-081", where="data.image_column", **facts)
    return found[0]


def files(folder: Path, depths: tuple[str, ...] = DEPTHS) -> list[Path]:
    """All Parquet files below a folder, or all Arrow files where there is none."""
    for suffix in SUFFIXES:
        found = sorted(path for depth in depths for path in folder.glob(f"{depth}{suffix}"))
        if found:
            return found
    return []


def split_of(path: PurePath) -> str:
    """A part of the path that is called as held-out images are, such as `data/test-00000-of-00001.parquet`."""
    words = re.split(r"[^A-Za-z]+", path.as_posix())
    return next((word.lower() for word in words if is_held_out(word)), "train")


def _sizes(rows: Any, image: str) -> npt.NDArray[np.int64]:
    """The bytes of each image, from the offsets that are stored: no image is read."""
    import pyarrow.compute as compute

    stored = rows.select_columns([image]).data.column(image)
    lengths = compute.binary_length(compute.struct_field(stored, "bytes"))
    found: npt.NDArray[np.int64] = lengths.fill_null(0).to_numpy().astype(np.int64)
    return found


def _column(rows: Any, column: str) -> list[str]:
    return as_texts(rows.select_columns([column])[column][:], rows.features[column], column)


def as_texts(values: Sequence[Any], feature: Any, column: str) -> list[str]:
    """The values of a column as texts, those of classes by their names; empty where there is none."""
    if any(isinstance(value, list | dict | bytes) for value in values[:1]):
        raise DataError("E-DATA-082", where=column, column=column, kind=type(values[0]).__name__)
    if hasattr(feature, "int2str"):  # numbers of classes, which the data set names
        return [feature.int2str(value) if value is not None and value >= 0 else "" for value in values]
    return ["" if value is None else " ".join(str(value).split()) for value in values]


def _label(listing: Listing, labels: list[str] | None) -> dict[int, Quarantined]:
    """Put the classes into the listing; rows that have none beside others that have one are put aside."""
    if labels is None or not any(labels):
        return {}
    listing.classes = tuple(sorted({label for label in labels if label}))
    number = {label: position for position, label in enumerate(listing.classes)}
    listing.label_ids = np.asarray([number.get(label, -1) for label in labels], np.int32)
    nameless = [row for row, label in enumerate(labels) if not label]
    named = ((row, listing.names[row]) for row in nameless)
    return {row: Quarantined.of(DataError("E-DATA-020", where=name, name=name)) for row, name in named}


@contextmanager
def quietly(path: PurePath) -> Iterator[None]:
    """Within, the library shows no progress, and what it cannot open is told in our words."""
    import datasets
    import pyarrow

    datasets.disable_progress_bars()
    try:
        yield
    except (*FAULTS, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as fault:
        raise damaged(path, fault) from fault


def damaged(path: PurePath, fault: BaseException) -> DataError:
    """What the library says of a file that it cannot read."""
    problem = " ".join(str(fault.__cause__ or fault).split())[:200]
    return DataError("E-DATA-080", where=str(path), name=path.name, problem=problem)
