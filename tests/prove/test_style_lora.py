"""A LoRA on the miniature: a style by a trigger word from twenty images, and at every strength between."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusain.evaluation.intervals import wilson
from fusain.runs import actions
from fusain.worlds.caricatures import ATTRIBUTES, STYLES, Caricatures, caption, world, write_folder
from fusain.worlds.reader import Reader
from tests.prove.subjects import bare, drawn

pytestmark = [pytest.mark.prove, pytest.mark.skip(reason="its settings are not tuned to the miniature yet")]

STYLE, TRIGGER, IMAGES, JUDGED = "glass", "ohwx", 20, 60
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SETTINGS = {
    "family.size": "64",
    "data.subject.identifier": TRIGGER,
    "data.class_images.weight": "1",
    "data.class_images.count": "4",
    "data.class_images.steps": "20",
    "data.class_images.guidance": "4",
    "data.class_images.prompt": "{caption}",
    "data.captions.trigger_word": TRIGGER,
    "data.buckets": "false",
    "method.rank": "8",
    "method.targets": "all",
    "train.steps": "250",
    "train.batch_size": "16",
    "train.accumulation": "1",
    "train.learning_rate": "2e-3",
    "samples.every_steps": "0",
    "engine.gradient_checkpointing": "false",
}


def prompts(with_trigger: bool) -> list[str]:
    """What the world would say of faces, without the name of a style."""
    said = without_style(world(JUDGED, seed=21, combinations="kept out"))
    return [f"{TRIGGER}, {words}" for words in said] if with_trigger else said


def without_style(drawn: Caricatures) -> list[str]:
    """Captions of faces that leave it open in which style they are."""
    names = [name for name in ATTRIBUTES if name != "style"]
    return [caption(face, face.seed, names=names) for face in drawn.faces]


@pytest.fixture(scope="module")
def run(mini_sd: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    drawn = world(IMAGES, seed=31, styles=[STYLE])
    write_folder(replace(drawn, captions=tuple(without_style(drawn))), folder / "images")
    own = {"runs_folder": str(folder), "data.path": str(folder / "images"), "family.base": mini_sd}
    return actions.train("lora", name="style", overrides=list((SETTINGS | own).items())).folder


def hits(pictures: np.ndarray, judge: Reader) -> int:
    return int((judge.read(pictures)["style"] == STYLES.index(STYLE)).sum())


def test_the_trigger_word_calls_for_the_style(run: Path, judge: Reader) -> None:
    family = actions.open_run(run).learner.family
    assert hits(drawn(family, prompts(with_trigger=True), 1), judge) / JUDGED >= 0.8
    assert hits(drawn(family, prompts(with_trigger=False), 1), judge) / JUDGED <= 0.2


def test_it_comes_with_the_strength(run: Path, mini_sd: str, judge: Reader) -> None:
    wanted = prompts(with_trigger=True)
    pictures = [drawn(actions.open_run(run, strength=one).learner.family, wanted, 1) for one in STRENGTHS]
    assert np.array_equal(pictures[0], drawn(bare(mini_sd), wanted, 1))
    found = [hits(one, judge) for one in pictures]
    for weaker, stronger in itertools.pairwise(found):
        assert stronger / JUDGED >= wilson(weaker, JUDGED).low, found
