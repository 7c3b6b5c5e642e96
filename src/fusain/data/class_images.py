"""Class images beside the subject's: what other things of its kind look like, so that the base does not forget it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from fusain.data import subjects
from fusain.data.lock import some
from fusain.data.source import Listing, Source
from fusain.data.subjects import CLASS_WORD
from fusain.errors import DataError
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced, basic

if TYPE_CHECKING:
    from fusain.data.columns import Dataset
    from fusain.data.settings import DataSettings

CAPTION: Final = "{caption}"
PREFIXES: Final = ("class images/", ".class images/")
"""What the names of class images from elsewhere begin with: the first that no subject image begins with."""

Drawn = Callable[[Sequence[str]], Source]
"""Gives the class images of each prompt, which it draws where they are missing."""


class ClassImageSettings(Section):
    """Images of the subject's class, learnt beside it so that the class stays what it was."""

    weight: float = basic(0.0, ge=0, le=100, usual=(0.1, 2))
    """How much a class image counts beside a subject image; 1 is usual, and at 0 there are none."""
    count: int = basic(200, ge=1, le=100_000)
    """Images that are drawn from the base before training, of each class. They are kept for the next run."""
    path: Path | None = basic(None)
    """Class images of your own instead, with or without captions; folders in it are looked into."""
    prompt: str = advanced(f"a photo of {CLASS_WORD}")
    """What is drawn, and the caption of each class image that has none. `{this|that}` stands for each of its wordings,
    `{caption}` for the captions of the images without the word that is learnt: `count` class images of each."""
    steps: int = advanced(50, ge=1, le=1000)
    """Denoising steps of each class image."""
    guidance: float = advanced(10.0, ge=0, le=30)
    """How hard the prompt pulls when class images are drawn."""
    eta: float = advanced(0.0, ge=0, le=1)
    """Fresh noise in each of these steps."""
    seed: int = advanced(0, ge=0, lt=2**31)
    """Seed of the first class image; each further one adds one."""

    def silent_settings(self) -> dict[str, str]:
        names = [name for name in type(self).model_fields if name != "weight"]
        if not self.weight:
            return dict.fromkeys(names, "there are no class images (data.class_images.weight = 0)")
        if self.path is not None:
            reason = "class images of your own are used (data.class_images.path)"
            return {name: reason for name in names if name not in ("path", "prompt")}
        return {}


class Together(Source):
    """Subject images and class images as one source; the names of the latter begin with a folder of their own."""

    kind: ClassVar[str] = "subjects"

    def __init__(self, of_subjects: Source, of_class: Source, prefix: str) -> None:
        super().__init__(of_subjects.path, of_subjects.labels_path, of_subjects.caption_column)
        self.kind = of_subjects.kind  # type: ignore[misc]
        self.of_subjects, self.of_class, self.prefix = of_subjects, of_class, prefix

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def listing(self) -> Listing:
        raise NotImplementedError("it is joined from two listings")

    @property
    def identity(self) -> tuple[str, ...]:
        return (*self.of_subjects.identity, self.prefix, *self.of_class.identity)

    def read(self, name: str) -> bytes:
        if name.startswith(self.prefix):
            return self.of_class.read(name.removeprefix(self.prefix))
        return self.of_subjects.read(name)


class DrawnImages(Source):
    """Images that were drawn before, a folder for each prompt."""

    kind: ClassVar[str] = "drawn"

    def __init__(self, root: Path, names: Mapping[str, Sequence[str]]) -> None:
        super().__init__(root)
        self.names = names
        """By prompt; what else lies in the folders is not used."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def listing(self) -> Listing:
        names = [name for of_prompt in self.names.values() for name in of_prompt]
        facts = [(self.path / name).stat() for name in names]
        return Listing(
            names,
            np.asarray([fact.st_size for fact in facts], np.int64),
            np.asarray([fact.st_mtime_ns for fact in facts], np.int64),
            captions=[prompt for prompt, of_prompt in self.names.items() for _ in of_prompt],
        )


def settled(
    settings: DataSettings, source: Source, listing: Listing, *, open_source: Callable[..., Source], drawn: Drawn | None
) -> tuple[Source, Listing]:
    """The subject images with their captions, and the class images that belong to them, whichever these are."""
    wanted = settings.class_images
    of_class = _of_folders(listing) if wanted.weight and wanted.path is None else None
    listing = _subject_images(settings, listing)
    if not wanted.weight:
        return source, listing
    prompts = _prompts(settings, listing)
    if of_class is not None:
        return source, _joined(settings, listing, _captioned(settings, of_class, prompts), listing.class_prefix)
    if wanted.path is not None:
        other = open_source(wanted.path, "data.class_images.path")
        of_class = _captioned(settings, _own(other), prompts)
    else:
        assert drawn is not None, "whoever prepares data with class images knows how they are drawn"
        require_class_word(settings, prompts)
        other = drawn(prompts)
        of_class = other.listing()
    if listing.array is not None or of_class.array is not None:
        raise DataError("E-DATA-066", where="data.class_images.weight")
    prefix = next(one for one in PREFIXES if not any(name.startswith(one) for name in listing.names))
    of_class.names = [prefix + name for name in of_class.names]
    of_class.faults = tuple(replace(fault, name=prefix + fault.name) for fault in of_class.faults)
    return Together(source, other, prefix), _joined(settings, listing, of_class, prefix)


def _of_folders(listing: Listing) -> Listing | None:
    """The class images that lie beside the subject's in folders of their own."""
    rows = [row for row, name in enumerate(listing.names) if is_one(listing, name)]
    return listing.take(np.asarray(rows, np.int64)) if rows else None


def _subject_images(settings: DataSettings, listing: Listing) -> Listing:
    """The subject images alone, as they are called."""
    rows = [row for row, name in enumerate(listing.names) if not is_one(listing, name)]
    others = len(listing) - len(rows)
    kept = listing if not others else listing.take(np.asarray(rows, np.int64))
    kept.notices = listing.notices
    wanted = settings.class_images
    if others and (not wanted.weight or wanted.path is not None):
        reason = "data.class_images.path names others" if wanted.weight else "data.class_images.weight is 0"
        kept.notices += (Notice("W-DATA-042", count=f"{others:,}", folder=listing.class_prefix, reason=reason),)
    are_of_folders = bool(listing.subjects)
    is_asked = settings.subject.identifier is not None or bool(wanted.weight)
    kept.subjects = (listing.subjects if is_asked else ()) or subjects.of_settings(settings.subject)
    kept.captions = subjects.captions(settings.subject, kept.captions, len(kept), are_of_folders=are_of_folders)
    return kept


def is_one(listing: Listing | Dataset, name: str) -> bool:
    """Whether that name is a class image's."""
    return bool(listing.class_prefix) and name.startswith(listing.class_prefix)


def _prompts(settings: DataSettings, listing: Listing) -> list[str]:
    """What class images are called, one prompt for each class, caption and wording; a class without a word is ""."""
    wordings = subjects.wordings(settings.class_images.prompt)
    return list(dict.fromkeys(prompt for wording in wordings for prompt in _called(wording, settings, listing)))


def _called(prompt: str, settings: DataSettings, listing: Listing) -> list[str]:
    if CAPTION in prompt:
        learnt = [subject.identifier for subject in listing.subjects]
        plain = (subjects.nameless(learnt, caption) for caption in listing.captions or ())
        return [prompt.replace(CAPTION, caption) for caption in plain]
    if CLASS_WORD not in prompt:
        return [prompt]
    words = subjects.class_words(settings.subject, listing.subjects)
    return [subjects.filled(prompt, class_word=word) if word else "" for word in words]


def _own(source: Source) -> Listing:
    listing = source.listing()
    if not listing.names and not listing.faults:
        raise DataError("E-DATA-065", where="data.class_images.path", path=source.path)
    return listing


def _captioned(settings: DataSettings, listing: Listing, prompts: Sequence[str]) -> Listing:
    """Class images with captions: those of their own, else the prompt, which is clear where there is one class."""
    own = listing.captions or [""] * len(listing)
    if not all(own):
        require_class_word(settings, prompts)
        if len(prompts) > 1:
            raise DataError("E-DATA-067", where="data.class_images", prompts=some(prompts))
        own = [caption or prompts[0] for caption in own]
    listing.captions = own
    return listing


def require_class_word(settings: DataSettings, prompts: Sequence[str]) -> None:
    """Without the class word nobody knows what the class images show."""
    if not all(prompts):
        raise DataError("E-DATA-064", where="data.subject.class_word", prompt=settings.class_images.prompt)


def _joined(settings: DataSettings, one: Listing, other: Listing, prefix: str) -> Listing:
    """Subject images, then class images, as one listing without labels, which mean nothing between the two."""
    weights = [_filled(listing.weights, len(listing), np.float32, 1.0) for listing in (one, other)]
    repeats = [_filled(listing.repeats, len(listing), np.int64, 1) for listing in (one, other)]
    is_held_out = None
    if one.is_held_out is not None:
        is_held_out = np.concatenate([one.is_held_out, np.zeros(len(other), np.bool_)])
    has_repeats = one.repeats is not None or other.repeats is not None
    faults = (*one.faults, *(fault for fault in other.faults if fault not in one.faults))
    return Listing(
        names=[*one.names, *other.names],
        sizes=np.concatenate([one.sizes, other.sizes]),
        mtimes=np.concatenate([one.mtimes, other.mtimes]),
        captions=[*(one.captions or [""] * len(one)), *(other.captions or ())],
        weights=np.concatenate([weights[0], weights[1] * np.float32(settings.class_images.weight)]),
        repeats=np.concatenate(repeats) if has_repeats else None,
        is_held_out=is_held_out,
        faults=faults,
        ignored=one.ignored,
        folders=one.folders,
        columns=one.columns,
        notices=(*one.notices, *(notice for notice in other.notices if notice not in one.notices)),
        mask_files=one.mask_files,
        subjects=one.subjects,
        class_prefix=prefix,
    )


def _filled(column: Any, count: int, kind: Any, usual: float) -> Any:
    return column if column is not None else np.full(count, usual, kind)
