"""A LoRA on each miniature: a style by a trigger word from twenty images, and at every strength between.

With pytest's -rP it is printed how far it leaks, with class images and without, and what each strength does.
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
from tests.prove.style import BASES, bare
from tests.prove.subjects import Share, drawn

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
RECIPES = {"sd": "lora", "sdxl": "sdxl-lora"}
OF_FAMILIES = {"sd": {}, "sdxl": {"train.steps": "300", "train.learning_rate": "4e-3", "train.ema_decay": "0.95"}}
"""What the settings are changed by; with those of the smaller one 0.57 of the pictures are in the style."""
LEARNT_ALONE = {"sd": 0.8, "sdxl": 0.3}
"""The least share in the style where it was learnt without class images: else there is no leak to tell of."""


def prompts(with_trigger: bool) -> list[str]:
    """What the world would say of faces, without the name of a style."""
    said = without_style(world(JUDGED, seed=21, combinations="kept out"))
    return [f"{TRIGGER}, {words}" for words in said] if with_trigger else said


def without_style(drawn: Caricatures) -> list[str]:
    """Captions of faces that leave it open in which style they are."""
    names = [name for name in ATTRIBUTES if name != "style"]
    return [caption(face, face.seed, names=names) for face in drawn.faces]


def taught(folder: Path, kind: str, **changes: str) -> Path:
    drawn = world(IMAGES, seed=31, styles=[STYLE])
    write_folder(replace(drawn, captions=tuple(without_style(drawn))), folder / "images")
    own = {"runs_folder": str(folder), "data.path": str(folder / "images"), **changes}
    own |= {"family.kind": kind, "family.base": BASES[kind], **OF_FAMILIES[kind]}
    return actions.train(RECIPES[kind], name="style", overrides=list((SETTINGS | own).items())).folder


@pytest.fixture(scope="module", params=BASES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("style"), kind)


@pytest.fixture(scope="module")
def without_class_images(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("leaking"), kind, **{"data.class_images.weight": "0"})


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
    run: Path, without_class_images: Path, kind: str, judge: Reader
) -> None:
    """How far it leaks without them is reported: the numbers are in benchmarks/RESULTS.md."""
    base = Share(hits(drawn(bare(BASES[kind], kind), prompts(with_trigger=False), 1), judge), JUDGED)
    found = {"with class images": asked(run, judge), "without": asked(without_class_images, judge)}
    print(f"\n{BASES[kind]}, in the style, of {JUDGED} pictures, with 95 % intervals")
    print(f"the base: {spelt(base)} without the word")
    for name, (said, unsaid) in found.items():
        print(f"{name}: {spelt(said)} with the trigger word, {spelt(unsaid)} without it")
    assert found["without"][0].value >= LEARNT_ALONE[kind]
    assert found["without"][1].interval.low > found["with class images"][1].interval.high


def spelt(share: Share) -> str:
    return f"{share.value:.2f} ({share.interval.low:.2f} to {share.interval.high:.2f})"


def test_it_comes_with_the_strength(run: Path, kind: str, judge: Reader) -> None:
    wanted = prompts(with_trigger=True)
    pictures = [drawn(actions.open_run(run, strength=one).learner.family, wanted, 1) for one in STRENGTHS]
    assert np.array_equal(pictures[0], drawn(bare(BASES[kind], kind), wanted, 1))
    found = [hits(one, judge) for one in pictures]
    print(f"{BASES[kind]}, in the style at strengths {STRENGTHS}: {found} of {JUDGED}")
    for weaker, stronger in itertools.pairwise(found):
        assert stronger / JUDGED >= wilson(weaker, JUDGED).low, found
