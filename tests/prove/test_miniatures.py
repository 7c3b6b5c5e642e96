"""The miniatures that the package carries, held to what they must do.

With pytest's -rP what they reach is printed.
"""

import itertools

import numpy as np
import pytest

from fusain.generation.generator import Wanted, generate
from fusain.models.bases.opening import lies_at
from fusain.models.family import Framing
from fusain.runs import pretraining
from fusain.worlds.caricatures import ATTRIBUTES, caption, world
from fusain.worlds.mini import framings
from fusain.worlds.mini.miniature import MINI_SDXL, MINIATURES
from fusain.worlds.reader import Reader
from tests.prove.style import DRAWING, bare

pytestmark = pytest.mark.prove


@pytest.mark.parametrize("name", MINIATURES)
def test_it_draws_what_it_is_told(name: str, judge: Reader) -> None:
    miniature = MINIATURES[name]
    found = pretraining.measure(miniature, lies_at(f"fusain:{name}"), judge)
    print(name, *found.held_against(miniature.bars).values(), sep="\n")
    assert found.face_psnr >= miniature.bars.face_psnr
    assert found.reading_lost <= miniature.bars.reading_lost
    assert found.mean >= miniature.bars.mean, found.attributes
    assert found.worst >= miniature.bars.worst, found.attributes


def test_sizes_and_crops_are_drawn(judge: Reader) -> None:
    """Once small is soft; the left of a wide drawing has its face on the right, and the top of a tall one below."""
    family = bare(f"fusain:{MINI_SDXL.name}", MINI_SDXL.kind)
    faces = world(24, seed=7, combinations="kept out").faces
    prompts = [caption(face, face.seed, names=[name for name in ATTRIBUTES if name != "position"]) for face in faces]

    def pictures(told: Framing) -> np.ndarray:
        wanted = [Wanted(seed, prompt=prompt, framing=told) for seed, prompt in enumerate(prompts)]
        return np.stack([one.pixels for one in generate(family, wanted, DRAWING, chunk=20)])

    small, wide, tall = ([pictures(one) for one in told] for told in framings.shown(MINI_SDXL.sizes.image).values())
    assert sharpness(small[1]) <= 0.9 * sharpness(small[0])
    right, _, left = (at_sides(one, judge) for one in wide)
    assert right["right"] >= 0.6 > 0.2 >= right["left"], right
    assert left["left"] >= 0.6 > 0.2 >= left["right"], left
    for higher, lower in itertools.pairwise(map(height, tall)):
        assert lower <= higher - 2


def at_sides(pictures: np.ndarray, judge: Reader) -> dict[str, float]:
    seen = judge.read(pictures)["position"]
    return {side: float((seen == ATTRIBUTES["position"].index(side)).mean()) for side in ("left", "right")}


def edges(pictures: np.ndarray) -> np.ndarray:
    """How much each pixel differs from the one above it."""
    found: np.ndarray = np.abs(np.diff(pictures.astype(np.float64).mean(-1), axis=1))
    return found


def sharpness(pictures: np.ndarray) -> float:
    return float(edges(pictures).mean())


def height(pictures: np.ndarray) -> float:
    """The mean row of what is drawn, counted from the top."""
    of_rows = edges(pictures).sum((0, 2))
    return float((of_rows * np.arange(len(of_rows))).sum() / of_rows.sum())
