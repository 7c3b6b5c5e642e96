"""Subjects that a base is to learn: the word that names each, what kind of thing it is, and its captions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from fusain.data.lock import some
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced, basic

if TYPE_CHECKING:
    from fusain.data.columns import Dataset

IDENTIFIER, CLASS_WORD = "{identifier}", "{class_word}"
CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
NAMES_SHOWN: Final = 3


class SubjectSettings(Section):
    """One subject that a base learns by a word of its own (DreamBooth)."""

    identifier: str | None = basic(None, min_length=1, json_schema_extra={"examples": ["sks"]})
    """The rare word that names the subject, such as `sks`; without it the images are no pictures of one subject."""
    class_word: str | None = basic(None, min_length=1)
    """What the subject is, such as `dog`. Needed where class images are drawn."""
    prompt: str = advanced(f"a photo of {IDENTIFIER} {CLASS_WORD}")
    """The caption of a subject image that has none."""
    use_captions: bool = advanced(True)
    """Images keep captions of their own. Off, every subject image is called by `prompt`."""

    @field_validator("prompt")
    @classmethod
    def _prompt_names_the_subject(cls, prompt: str) -> str:
        if IDENTIFIER not in prompt:
            raise ValueError(f"'{prompt}' has no place for the {IDENTIFIER}")
        return prompt

    def silent_settings(self) -> dict[str, str]:
        if self.identifier is not None:
            return {}
        return dict.fromkeys(("prompt", "use_captions"), "no data.subject.identifier is given")


@dataclass(frozen=True)
class Subject:
    """One subject among the images."""

    identifier: str
    class_word: str = ""
    folder: str = ""
    """What the names of its images begin with; the images of the only subject are all."""

    @property
    def title(self) -> str:
        return f"{self.identifier} {self.class_word}".strip()


def wordings(prompt: str) -> list[str]:
    """A prompt with each choice of every `{this|that}` in it; a side may be empty."""
    found = CHOICE.search(prompt)
    if found is None:
        return [prompt]
    before, after = prompt[: found.start()], prompt[found.end() :]
    return [before + side + rest for side in found[1].split("|") for rest in wordings(after)]


def filled(prompt: str, *, identifier: str = "", class_word: str = "") -> str:
    """A prompt with the words in their places; a place without a word leaves no gap."""
    return " ".join(prompt.replace(IDENTIFIER, identifier).replace(CLASS_WORD, class_word).split())


def told(folder: str, caption: str) -> Subject | None:
    """What the name of a folder says, as in "sks dog": first the identifier, then the class word."""
    identifier, _, class_word = caption.partition(" ")
    return Subject(identifier, class_word, folder) if identifier else None


def of_settings(settings: SubjectSettings) -> tuple[Subject, ...]:
    """The one subject that the settings name, if they do."""
    return (Subject(settings.identifier, settings.class_word or ""),) if settings.identifier else ()


def nameless(identifiers: Sequence[str], caption: str) -> str:
    """A caption without the words that are to be learnt."""
    for identifier in identifiers:
        caption = _word(identifier).sub("", caption)
    return " ".join(caption.split()).strip(" ,")


def _word(identifier: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(identifier)}(?!\w)", re.IGNORECASE)


def captions(
    settings: SubjectSettings, own: Sequence[str] | None, count: int, *, are_of_folders: bool
) -> list[str] | None:
    """The captions of subject images: those of their own, and the prompt where there is none."""
    if settings.identifier is None:
        return list(own) if own is not None else None
    prompt = filled(settings.prompt, identifier=settings.identifier, class_word=settings.class_word or "")
    if own is None or not (settings.use_captions or are_of_folders):
        return [prompt] * count
    return [caption or prompt for caption in own]


def class_words(settings: SubjectSettings, subjects: Sequence[Subject]) -> list[str]:
    """What the subjects are, each once; "" where a subject does not say."""
    usual = settings.class_word or ""
    return list(dict.fromkeys(subject.class_word or usual for subject in subjects)) or [usual]


def worth_a_word(dataset: Dataset) -> Iterator[Notice]:
    """Captions that do not name their subject, and subjects that one image alone shows."""
    said = dataset.said(np.arange(len(dataset)))
    for subject in dataset.subjects:
        rows = rows_of(dataset, subject)
        if len(rows) == 1:
            yield Notice("W-DATA-041", identifier=subject.identifier, name=dataset.names[rows[0]])
        word = _word(subject.identifier)
        without = [row for row in rows.tolist() if said is not None and not word.search(said[row])]
        if without:
            yield Notice(
                "W-DATA-040",
                identifier=subject.identifier,
                count=f"{len(without):,}",
                total=f"{len(rows):,}",
                names=some([dataset.names[row] for row in without], NAMES_SHOWN),
            )


def rows_of(dataset: Dataset, subject: Subject) -> npt.NDArray[np.int64]:
    """The images of one subject."""
    found = [name.startswith(subject.folder) for name in dataset.names]
    return np.flatnonzero(np.asarray(found, dtype=np.bool_) & ~dataset.is_class_image)
