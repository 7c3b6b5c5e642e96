"""A LoRA on the miniature: a style by a trigger word from twenty images, and at every strength between.

`python -m pytest -s -m prove tests/prove/test_style_lora.py` prints how far it leaks, with class images and without.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusain.evaluation.intervals import wilson
from fusain.runs import actions
from fusain.worlds.caricatures import ATTRIBUTES, STYLES, Caricatures, caption, world, write_folder
from fusain.worlds.reader import Reader
from tests.prove.subjects import Share, bare, drawn

pytestmark = pytest.mark.prove

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
    "train.steps": "200",
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


def taught(folder: Path, base: str, **changes: str) -> Path:
    drawn = world(IMAGES, seed=31, styles=[STYLE])
    write_folder(replace(drawn, captions=tuple(without_style(drawn))), folder / "images")
    own = {"runs_folder": str(folder), "data.path": str(folder / "images"), "family.base": base, **changes}
    return actions.train("lora", name="style", overrides=list((SETTINGS | own).items())).folder


@pytest.fixture(scope="module")
def run(mini_sd: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("style"), mini_sd)


@pytest.fixture(scope="module")
def without_class_images(mini_sd: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("leaking"), mini_sd, **{"data.class_images.weight": "0"})


def hits(pictures: np.ndarray, judge: Reader) -> int:
    return int((judge.read(pictures)["style"] == STYLES.index(STYLE)).sum())


def asked(run: Path, judge: Reader) -> tuple[Share, Share]:
    """How many pictures are in the style when the trigger word is said, and when it is not."""
    family = actions.open_run(run).learner.family
    said, unsaid = (Share(hits(drawn(family, prompts(one), 1), judge), JUDGED) for one in (True, False))
    return said, unsaid


def test_the_trigger_word_calls_for_the_style(run: Path, judge: Reader) -> None:
    said, unsaid = asked(run, judge)
    assert said.value >= 0.8
    assert unsaid.value <= 0.2


def test_class_images_hold_the_style_to_its_word(
    run: Path, without_class_images: Path, mini_sd: str, judge: Reader
) -> None:
    """How far it leaks without them is reported: the numbers are in benchmarks/RESULTS.md."""
    base = Share(hits(drawn(bare(mini_sd), prompts(with_trigger=False), 1), judge), JUDGED)
    found = {"with class images": asked(run, judge), "without": asked(without_class_images, judge)}
    print(f"\nIn the style, of {JUDGED} pictures, with 95 % intervals; the base without the word: {spelt(base)}")
    for name, (said, unsaid) in found.items():
        print(f"{name}: {spelt(said)} with the trigger word, {spelt(unsaid)} without it")
    assert found["without"][0].value >= 0.8
    assert found["without"][1].value >= found["with class images"][1].value


def spelt(share: Share) -> str:
    return f"{share.value:.2f} ({share.interval.low:.2f} to {share.interval.high:.2f})"


def test_it_comes_with_the_strength(run: Path, mini_sd: str, judge: Reader) -> None:
    wanted = prompts(with_trigger=True)
    pictures = [drawn(actions.open_run(run, strength=one).learner.family, wanted, 1) for one in STRENGTHS]
    assert np.array_equal(pictures[0], drawn(bare(mini_sd), wanted, 1))
    found = [hits(one, judge) for one in pictures]
    for weaker, stronger in itertools.pairwise(found):
        assert stronger / JUDGED >= wilson(weaker, JUDGED).low, found
