"""What a user should see of the data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fusain.data.images import Conversion
from fusain.data.split import AUTO_LEAST_IMAGES, Groups

if TYPE_CHECKING:
    from fusain.data.dataset import Dataset

EXTREME_ASPECT: Final = 4
PAIRS_SHOWN: Final = 20


@dataclass(frozen=True)
class DataReport:
    """Plain values only, so that it is JSON as it stands."""

    path: str
    kind: str
    id: str
    size: int
    images: int
    train: int
    held_out: int
    held_out_note: str
    draws_an_epoch: int
    classes: dict[str, int]
    classes_held_out: dict[str, int]
    expected_shares: dict[str, float]
    captions: int
    quarantined: list[dict[str, str]]
    quarantined_kinds: dict[str, int]
    conversions: dict[str, int]
    stored_sizes: dict[str, int]
    """The most frequent sizes, "width x height"."""
    smaller_than_size: int
    """Enlarged, which makes them soft."""
    extreme_aspect: int
    """Longer than four times their height, or the reverse: most of each is cropped away."""
    duplicates: int
    duplicate_pairs: list[list[str]]
    ignored_files: dict[str, int]
    in_memory: bool
    notices: list[dict[str, str]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people, as titles and texts."""
        yield "data", f"{self.path} ({self.kind})"
        yield "images", f"{self.images:,}: {self.train:,} to learn from, {self.held_out:,} held out"
        if self.held_out_note:
            yield "held out", self.held_out_note
        for name, count in self.classes.items():
            yield f"class {name}", f"{count:,} images, {self.expected_shares[name]:.1%} of the draws"
        if self.captions:
            yield "captions", f"{self.captions:,} of {self.images:,} images"
        for reason, count in self.quarantined_kinds.items():
            yield "put aside", f"{count:,} x {reason}"
        for words, count in self.conversions.items():
            yield "converted", f"{count:,} x {words}"
        yield "sizes", ", ".join(f"{count:,} x {shape}" for shape, count in self.stored_sizes.items())
        if self.smaller_than_size:
            yield "enlarged", f"{self.smaller_than_size:,} images are smaller than {self.size} pixels"
        if self.extreme_aspect:
            yield "cropped hard", f"{self.extreme_aspect:,} images are longer than {EXTREME_ASPECT} : 1"
        if self.duplicates:
            yield "duplicates", f"{self.duplicates:,} of the images show what another one shows"
        if self.ignored_files:
            yield "passed over", ", ".join(f"{count:,} {end}" for end, count in self.ignored_files.items())


def make_report(dataset: Dataset) -> DataReport:
    """All counts of a data set."""
    pairs = Groups.of(dataset.pixel_hashes).pairs()
    shorter = np.minimum(dataset.heights, dataset.widths)
    longer = np.maximum(dataset.heights, dataset.widths)
    return DataReport(
        path=str(dataset.path),
        kind=dataset.source.kind,
        id=dataset.id,
        size=dataset.size,
        images=len(dataset),
        train=len(dataset.train),
        held_out=len(dataset.held_out),
        held_out_note=_held_out_note(dataset),
        draws_an_epoch=dataset.entries,
        classes=dataset.class_counts(),
        classes_held_out=dataset.class_counts(dataset.held_out),
        expected_shares=dataset.expected_shares(),
        captions=sum(1 for caption in dataset.captions or () if caption),
        quarantined=[vars(entry) for entry in dataset.quarantined],
        quarantined_kinds=dict(Counter(entry.code for entry in dataset.quarantined).most_common()),
        conversions=_conversions(dataset),
        stored_sizes=_sizes(dataset),
        smaller_than_size=int((shorter < dataset.size).sum()),
        extreme_aspect=int((longer > EXTREME_ASPECT * shorter).sum()),
        duplicates=len(pairs),
        duplicate_pairs=[dataset.names_of(np.asarray(pair)) for pair in pairs[:PAIRS_SHOWN]],
        ignored_files=dict(dataset.ignored),
        in_memory=dataset.held is not None,
        notices=[notice.as_json() for notice in dataset.notices],
    )


def _held_out_note(dataset: Dataset) -> str:
    if len(dataset.held_out):
        return ""
    if dataset.settings.held_out == "auto":
        return f"none, for fewer than {AUTO_LEAST_IMAGES} images are too few to set some aside"
    return "none, as data.held_out says"


def _conversions(dataset: Dataset) -> dict[str, int]:
    counts = {kind.words: int((dataset.conversions & int(kind) > 0).sum()) for kind in Conversion}
    return {words: count for words, count in counts.items() if count}


def _sizes(dataset: Dataset) -> dict[str, int]:
    shapes = dataset.widths.astype(np.int64) << 32 | dataset.heights
    found, counts = np.unique(shapes, return_counts=True)
    top = np.argsort(-counts, kind="stable")[:5]
    return {f"{found[place] >> 32} x {found[place] & 0xFFFFFFFF}": int(counts[place]) for place in top.tolist()}
