"""Teaches the miniature the style that was kept from it, and measures what it learnt and what it forgot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Facts, Family
from fusain.runs import actions
from fusain.runs.settings import FAMILIES
from fusain.worlds import face_reader
from fusain.worlds.caricatures import STYLES, world, write_folder
from fusain.worlds.mini.miniature import MINIATURES
from fusain.worlds.reader import Reader

BASES = {miniature.kind: f"fusain:{miniature.name}" for miniature in MINIATURES.values()}
"""The miniature of each family."""
BASE, STYLE = BASES["sd"], "glass"
IMAGES, JUDGED = 300, 200
DRAWING = SamplerSettings(steps=20, guidance=4.0)
SETTINGS = {
    "family.base": BASE,
    "family.size": "64",
    "train.steps": "200",
    "train.batch_size": "32",
    "train.accumulation": "1",
    "train.learning_rate": "1.4e-3",
    "train.optimizer": "muon",
    "train.schedule": "cosine",
    "train.warmup_steps": "20",
    "train.ema_decay": "0.98",
    "samples.every_steps": "0",
    "engine.gradient_checkpointing": "false",
}
"""What the recipe `text-to-image` is changed by for a miniature and three minutes."""


@dataclass(frozen=True)
class Drawn:
    """Pictures of the same captions and seeds, and what the judge sees in them."""

    pictures: np.ndarray
    in_style: float
    attributes: float
    """Mean share of pictures in which the judge sees what the caption said, the style aside."""


def bare(base: str = BASE, kind: str = "sd") -> Family:
    """A miniature as it is carried, or what became of it."""
    family = FAMILIES[kind]
    return family(family.Settings.model_validate({"base": base, "size": 64}), Facts())


def drawn(base: str, judge: Reader) -> Drawn:
    """What a base makes of captions of combinations that nobody was trained on."""
    asked = world(JUDGED, seed=11, styles=[STYLE], combinations="kept out")
    wanted = [Wanted(seed, prompt=caption) for seed, caption in enumerate(asked.captions)]
    pictures = np.stack([one.pixels for one in generate(bare(base), wanted, DRAWING, chunk=20)])
    seen = judge.read(pictures)
    shares = face_reader.accuracy(seen, face_reader.told(asked.faces))
    del shares["style"]
    return Drawn(pictures, float((seen["style"] == STYLES.index(STYLE)).mean()), float(np.mean(list(shares.values()))))


def taught(folder: Path, *, seed: int, base: str = BASE) -> Path:
    """The weights of a base that was shown the style for a while."""
    write_folder(world(IMAGES, seed=100 + seed, styles=[STYLE]), folder / "images")
    own = {
        "runs_folder": str(folder),
        "data.path": str(folder / "images"),
        "train.seed": str(seed),
        "family.base": base,
    }
    return actions.train("text-to-image", name="glass", overrides=list((SETTINGS | own).items())).folder / "weights"
