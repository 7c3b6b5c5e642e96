"""Teaches the miniature characters that were kept from it, and measures what it learnt and what it forgot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusain.evaluation.intervals import Interval, wilson
from fusain.evaluation.metrics.diversity import mean_distance, squared_distances
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Family
from fusain.runs import actions
from fusain.runs.demo_character import words
from fusain.worlds.caricatures import ATTRIBUTES, CHARACTERS, Caricatures, portraits, write_folder
from fusain.worlds.reader import Reader
from tests.prove.style import BASE

NAMES = ("Ada", "Grom", "Pia")
IMAGES = 8
SHOWN_ON = ("white", "blue", "pink")
"""Backgrounds of the eight images; they show nobody in a hat, and all in the centre."""
ELSEWHERE = {
    "on a purple background": ("background", "purple"),
    "on a green background": ("background", "green"),
    "wearing a red cap": ("hat", "cap"),
    "wearing a blue beanie": ("hat", "beanie"),
    "on the left": ("position", "left"),
    "on the right": ("position", "right"),
}
"""Ends of prompts for what no image of the subject shows, and what must be seen then."""
KINDS = {"background": "grounds", "hat": "hats", "position": "places"}
DRAWING = SamplerSettings(steps=20, guidance=4.0)
SUBJECT, CLASS = "a flat drawing of sks person", "a flat drawing of a person"
SETTINGS = {
    "family.size": "64",
    "data.subject.class_word": "person",
    "data.subject.prompt": "a flat drawing of {identifier} {class_word}",
    "data.masks.use": "files",
    "data.class_images.prompt": "{caption}",
    "data.class_images.count": "25",
    "data.class_images.steps": "20",
    "data.class_images.guidance": "4",
    "method.text_encoder": "true",
    "method.condition_dropout": "0.1",
    "train.steps": "260",
    "train.batch_size": "8",
    "train.accumulation": "1",
    "train.optimizer": "muon",
    "train.learning_rate": "1.4e-3",
    "train.parts": '[{names = "text_encoder", learning_rate = 4e-4}]',
    "train.schedule": "cosine",
    "train.warmup_steps": "10",
    "samples.every_steps": "0",
    "checkpoint.snapshots": "[]",
    "engine.gradient_checkpointing": "false",
}
"""What the recipe `dreambooth` is changed by for a miniature and two minutes."""


@dataclass(frozen=True)
class Share:
    """How many of so many pictures."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> Interval:
        return wilson(self.hits, self.count)


def drawings(name: str, seed: int) -> Caricatures:
    """The eight pictures of a character."""
    return portraits(name, IMAGES, seed=seed, backgrounds=SHOWN_ON, positions=["centre"])


def taught(
    folder: Path, name: str, *, seed: int, recipe: str = "dreambooth", base: str = BASE, **changes: Any
) -> actions.TrainResult:
    """A run that was shown eight pictures of one character."""
    shown = drawings(name, seed)
    captions = tuple(map(words, range(IMAGES), shown.faces))
    write_folder(replace(shown, captions=captions), folder / "images", with_masks=True)
    own = {
        "runs_folder": str(folder),
        "data.path": str(folder / "images"),
        "family.base": base,
        "train.seed": str(seed),
        **{key: str(value) for key, value in changes.items()},
    }
    return actions.train(recipe, name=name.lower(), overrides=list((SETTINGS | own).items()))


def drawn(family: Family, prompts: Sequence[str], count: int, *, seed: int = 0) -> np.ndarray:
    """`count` pictures of each prompt, in turn."""
    wanted = [Wanted(seed + number, prompt=prompt) for number in range(count) for prompt in prompts]
    return np.stack([one.pixels for one in generate(family, wanted, DRAWING, chunk=20)])


def rates(pictures: np.ndarray, name: str, judge: Reader) -> dict[str, float]:
    """For each attribute that pictures of a character show, the share of pictures in which the judge sees it."""
    return {attribute: float(seen.mean()) for attribute, seen in _seen(pictures, name, judge).items()}


def whole(pictures: np.ndarray, name: str, judge: Reader) -> np.ndarray:
    """For each picture whether all attributes of the character are read right."""
    found: np.ndarray = np.all(list(_seen(pictures, name, judge).values()), axis=0)
    return found


def _seen(pictures: np.ndarray, name: str, judge: Reader) -> dict[str, np.ndarray]:
    looks, found = CHARACTERS[name], judge.read(pictures)
    hidden = {"eyes"} if looks["glasses"] == "dark" else set()
    return {
        attribute: found[attribute] == ATTRIBUTES[attribute].index(value)
        for attribute, value in looks.items()
        if attribute not in hidden
    }


def obeyed(pictures: np.ndarray, judge: Reader) -> np.ndarray:
    """For each picture of `ELSEWHERE`'s prompts in turn whether what the prompt adds is seen."""
    found = judge.read(pictures)
    wanted = [ELSEWHERE[key] for key in ELSEWHERE]
    return np.asarray([
        found[attribute][row] == ATTRIBUTES[attribute].index(value)
        for row, (attribute, value) in enumerate(wanted * (len(pictures) // len(wanted)))
    ])  # fmt: skip


def by_kind(found: np.ndarray) -> dict[str, Share]:
    """What `obeyed` found, apart for grounds, hats and places, of which the mean may hide one."""
    kinds = np.asarray([kind for kind, _ in ELSEWHERE.values()] * (len(found) // len(ELSEWHERE)))
    return {KINDS[kind]: share(found[kinds == kind]) for kind in dict.fromkeys(kinds.tolist())}


def spread(pictures: np.ndarray, judge: Reader) -> float:
    """How far two pictures lie apart for the judge, in the mean."""
    return mean_distance(squared_distances(judge.features(pictures)))


def share(found: np.ndarray) -> Share:
    return Share(int(found.sum()), len(found))
