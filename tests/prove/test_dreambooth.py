"""DreamBooth on the miniature: unknown characters are learnt, go where they never were, and stay out of the class.

`python -m pytest -rP -m prove tests/prove/test_dreambooth.py` prints the shares.
"""

from pathlib import Path

import numpy as np
import pytest

from fusain.runs import actions
from fusain.worlds.reader import Reader
from tests.prove import subjects
from tests.prove.style import bare
from tests.prove.subjects import CLASS, ELSEWHERE, NAMES, SUBJECT, Share, by_kind, drawn, obeyed, share, spread, whole

pytestmark = pytest.mark.prove

OF_SUBJECT, OF_EACH, OF_CLASS = 40, 6, 60
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def base_class(mini_sd: str) -> np.ndarray:
    """What the base makes of the class."""
    return drawn(bare(mini_sd), [CLASS], OF_CLASS, seed=500)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_character_is_learnt_and_goes_where_it_never_was(
    mini_sd: str, judge: Reader, tmp_path: Path, name: str, seed: int
) -> None:
    before = share(whole(drawn(bare(mini_sd), [SUBJECT], OF_SUBJECT), name, judge))
    run = subjects.taught(tmp_path, name, seed=seed, base=mini_sd).folder
    family = actions.open_run(run).learner.family
    after = share(whole(drawn(family, [SUBJECT], OF_SUBJECT), name, judge))
    pictures = drawn(family, [f"{SUBJECT}, {ending}" for ending in ELSEWHERE], OF_EACH)
    seen = obeyed(pictures, judge)
    elsewhere, as_asked = share(whole(pictures, name, judge)), share(seen)
    apart = ", ".join(f"{kind} {part.value:.2f}" for kind, part in by_kind(seen).items())
    print(f"{name}, seed {seed}: {before.value:.2f} before, {after.value:.3f} after,", end=" ")
    print(f"elsewhere {elsewhere.value:.2f}, as asked {as_asked.value:.2f} ({apart})")
    assert before.value <= 0.2
    assert after.value >= 0.85
    assert elsewhere.value >= 0.6
    assert as_asked.value >= 0.6


def test_class_images_keep_the_class_what_it_was(
    mini_sd: str, judge: Reader, tmp_path: Path, base_class: np.ndarray
) -> None:
    leaks: dict[float, Share] = {}
    varied: dict[float, tuple[float, float]] = {}
    for weight in (1.0, 0.0):
        changes = {"data.class_images.weight": weight}
        run = subjects.taught(tmp_path / str(weight), "Ada", seed=1, base=mini_sd, **changes).folder
        pictures = drawn(actions.open_run(run).learner.family, [CLASS], OF_CLASS, seed=500)
        leaks[weight] = share(whole(pictures, "Ada", judge))
        varied[weight] = halves(pictures, base_class, judge)
        print(f"class images by {weight}: the subject in {leaks[weight].value:.2f}", end=" ")
        print(f"{leaks[weight].interval}, varied {spread_ratio(varied[weight]):.2f} {varied[weight]}")
    assert leaks[1.0].value <= 0.1
    assert spread_ratio(varied[1.0]) >= 0.8
    assert leaks[0.0].interval.low > leaks[1.0].interval.high
    assert varied[0.0][1] < varied[1.0][0]


def halves(pictures: np.ndarray, of_base: np.ndarray, judge: Reader) -> tuple[float, float]:
    """The 95 % interval of how varied pictures are beside the base's, over random halves of both."""
    dice, found = np.random.default_rng(0), []
    for _ in range(200):
        own, theirs = (dice.permutation(len(pictures))[: len(pictures) // 2] for _ in range(2))
        found.append(spread(pictures[own], judge) / spread(of_base[theirs], judge))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def spread_ratio(interval: tuple[float, float]) -> float:
    return sum(interval) / 2
