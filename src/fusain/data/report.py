"""What a user should see of the data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fusain.data import subjects
from fusain.data.images import Conversion
from fusain.data.split import AUTO_LEAST_IMAGES, Groups

if TYPE_CHECKING:
    from fusain.data.columns import Dataset

EXTREME_ASPECT: Final = 4
PAIRS_SHOWN: Final = 20
WORST_SHOWN: Final = 5
WORST_LISTED: Final = 1_000
HARD_CROP: Final = 0.2


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
    repeats: dict[str, int]
    """How many images are drawn so often an epoch, where any is drawn more than once."""
    captions: int
    captions_missing: int
    caption_words_median: float
    caption_words_longest: int
    quarantined: list[dict[str, str]]
    quarantined_kinds: dict[str, int]
    conversions: dict[str, int]
    stored_sizes: dict[str, int]
    """The most frequent sizes, "width x height"."""
    enlarged: int
    """Smaller than what they are resized to, which makes them soft."""
    extreme_aspect: int
    """Longer than four times their height, or the reverse: most of each is cropped away."""
    crop_loss_mean: float
    """Share of an image that is cropped away."""
    crop_loss_worst: dict[str, float]
    """Of each image that loses something, the worst first; of more than a thousand images the first thousand."""
    crop_loss_hard: int
    """Images that lose more than a fifth."""
    buckets: dict[str, dict[str, int]]
    """By "width x height"; without buckets empty."""
    fill_up: int
    """Draws of an epoch that use an image again, so that each batch of a bucket is full."""
    duplicates: int
    duplicate_pairs: list[list[str]]
    ignored_files: dict[str, int]
    in_memory: bool
    notices: list[dict[str, str]]
    subjects: dict[str, int]
    """Images of each, where an identifier names them."""
    class_images: int
    class_weight: float
    class_draws: int
    """Class images in an epoch."""
    class_repeats: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people, as titles and texts."""
        yield "data", f"{self.path} ({self.kind})"
        yield "images", f"{self.images:,}: {self.train:,} to learn from, {self.held_out:,} held out"
        if self.held_out_note:
            yield "held out", self.held_out_note
        yield from self._of_subjects()
        yield from self._said_of_them()
        for reason, count in self.quarantined_kinds.items():
            first = next(entry["reason"] for entry in self.quarantined if entry["code"] == reason)
            yield "put aside", f"{count:,} x {reason}, such as: {first}"
        for words, count in self.conversions.items():
            yield "converted", f"{count:,} x {words}"
        yield from self._shaped()
        if self.duplicates:
            yield "duplicates", f"{self.duplicates:,} of the images show what another one shows"
        if self.ignored_files:
            yield "passed over", ", ".join(f"{count:,} {end}" for end, count in self.ignored_files.items())

    def _of_subjects(self) -> Iterator[tuple[str, str]]:
        for title, count in self.subjects.items():
            yield f"subject {title}", f"{count:,} image{'' if count == 1 else 's'}"
        if not self.class_draws:
            return
        an_epoch = f"{self.class_draws:,} of them an epoch" if self.class_images else "none yet"
        yield "class images", f"{self.class_images:,} of weight {self.class_weight:g}, {an_epoch}"
        if self.class_repeats:
            yield (
                "class repeats",
                ", ".join(f"{count:,} images {times} x" for times, count in self.class_repeats.items()),
            )

    def _said_of_them(self) -> Iterator[tuple[str, str]]:
        for name, count in self.classes.items():
            yield f"class {name}", f"{count:,} images, {self.expected_shares[name]:.1%} of the draws"
        if self.repeats:
            yield "repeats", ", ".join(f"{count:,} images {times} x" for times, count in self.repeats.items())
        if self.captions or self.captions_missing:
            words = f"median {self.caption_words_median:g} words, longest {self.caption_words_longest:,}"
            missing = f", {self.captions_missing:,} have none" if self.captions_missing else ""
            yield "captions", f"{self.captions:,} of {self.images:,} images{missing}; {words}"

    def _shaped(self) -> Iterator[tuple[str, str]]:
        yield "sizes", ", ".join(f"{count:,} x {shape}" for shape, count in self.stored_sizes.items())
        if self.enlarged:
            yield "enlarged", f"{self.enlarged:,} images, which makes them soft"
        if self.extreme_aspect:
            yield "cropped hard", f"{self.extreme_aspect:,} images are longer than {EXTREME_ASPECT} : 1"
        if self.crop_loss_worst:
            shown = list(self.crop_loss_worst.items())[:WORST_SHOWN]
            worst = ", ".join(f"'{name}' {share:.0%}" for name, share in shown)
            hard = f"{self.crop_loss_hard:,} lose more than {HARD_CROP:.0%}"
            yield "cropped away", f"{self.crop_loss_mean:.1%} of an image on average; {hard}; most: {worst}"
        for shape, counts in self.buckets.items():
            again = f", {counts['fill_up']:,} drawn again" if counts["fill_up"] else ""
            yield f"bucket {shape}", f"{counts['images']:,} images, {counts['batches']:,} batches{again}"
        if self.fill_up:
            share = f"{self.fill_up / self.draws_an_epoch:.1%}"
            yield "fill-up", f"{self.fill_up:,} of {self.draws_an_epoch:,} draws an epoch ({share}) use an image again"


def make_report(dataset: Dataset) -> DataReport:
    """All counts of a data set."""
    pairs = Groups.of(dataset.pixel_hashes).pairs()
    shorter = np.minimum(dataset.heights, dataset.widths)
    longer = np.maximum(dataset.heights, dataset.widths)
    buckets = dataset.buckets()
    of_subject = np.flatnonzero(~dataset.is_class_image)
    words = [len(dataset.captions[row].split()) for row in of_subject if dataset.captions and dataset.captions[row]]
    return DataReport(
        path=str(dataset.path),
        kind=dataset.source.kind,
        id=dataset.id,
        size=dataset.size,
        images=len(of_subject),
        train=len(dataset.subject_rows),
        held_out=len(dataset.held_out),
        held_out_note=_held_out_note(dataset),
        draws_an_epoch=dataset.entries,
        classes=dataset.class_counts(),
        classes_held_out=dataset.class_counts(dataset.held_out),
        expected_shares=dataset.expected_shares(),
        repeats=_repeats(dataset, dataset.subject_rows, dataset.settings.repeats),
        captions=len(words),
        captions_missing=len(of_subject) - len(words) if dataset.captions is not None else 0,
        caption_words_median=float(np.median(words)) if words else 0.0,
        caption_words_longest=max(words, default=0),
        quarantined=[vars(entry) for entry in dataset.quarantined],
        quarantined_kinds=dict(Counter(entry.code for entry in dataset.quarantined).most_common()),
        conversions=_conversions(dataset),
        stored_sizes=_sizes(dataset),
        enlarged=int(dataset.is_enlarged.sum()),
        extreme_aspect=int((longer > EXTREME_ASPECT * shorter).sum()),
        crop_loss_mean=float(dataset.crop_loss.mean()),
        crop_loss_worst=_worst_crops(dataset),
        crop_loss_hard=int((dataset.crop_loss > HARD_CROP).sum()),
        buckets={
            str(bucket.shape): {"images": bucket.images, "batches": bucket.batches, "fill_up": bucket.fill_up}
            for bucket in buckets
        },
        fill_up=sum(bucket.fill_up for bucket in buckets),
        duplicates=len(pairs),
        duplicate_pairs=[dataset.names_of(np.asarray(pair)) for pair in pairs[:PAIRS_SHOWN]],
        ignored_files=dict(dataset.ignored),
        in_memory=dataset.held is not None,
        notices=[notice.as_json() for notice in dataset.notices],
        subjects={one.title: len(subjects.rows_of(dataset, one)) for one in dataset.subjects},
        class_images=len(dataset) - len(of_subject),
        class_weight=dataset.settings.class_images.weight,
        class_draws=dataset.class_draws,
        class_repeats=_repeats(dataset, np.flatnonzero(dataset.is_class_image), 1),
    )


def _held_out_note(dataset: Dataset) -> str:
    if len(dataset.held_out):
        return ""
    if dataset.settings.held_out == "auto":
        return f"none, for fewer than {AUTO_LEAST_IMAGES} images are too few to set some aside"
    return "none, as data.held_out says"


def _repeats(dataset: Dataset, rows: npt.NDArray[np.int64], all_times: int) -> dict[str, int]:
    if dataset.repeats is None:
        return {str(all_times): len(rows)} if all_times > 1 else {}
    times, counts = np.unique(dataset.repeats[rows] * all_times, return_counts=True)
    return dict(zip(map(str, times.tolist()), counts.tolist(), strict=True))


def _worst_crops(dataset: Dataset) -> dict[str, float]:
    worst = np.argsort(-dataset.crop_loss, kind="stable")[:WORST_LISTED]
    return {dataset.names[row]: float(dataset.crop_loss[row]) for row in worst.tolist() if dataset.crop_loss[row] > 0}


def _conversions(dataset: Dataset) -> dict[str, int]:
    counts = {kind.words: int((dataset.conversions & int(kind) > 0).sum()) for kind in Conversion}
    return {words: count for words, count in counts.items() if count}


def _sizes(dataset: Dataset) -> dict[str, int]:
    shapes = dataset.widths.astype(np.int64) << 32 | dataset.heights
    found, counts = np.unique(shapes, return_counts=True)
    top = np.argsort(-counts, kind="stable")[:5]
    return {f"{found[place] >> 32} x {found[place] & 0xFFFFFFFF}": int(counts[place]) for place in top.tolist()}
