"""The miniatures that the package carries, held to what they must do.

With pytest's -rP what they reach is printed.
"""

import numpy as np
import pytest

from fusain.generation.generator import Wanted, generate
from fusain.models.bases.opening import lies_at
from fusain.runs import pretraining
from fusain.worlds.caricatures import ATTRIBUTES, world
from fusain.worlds.mini import framings
from fusain.worlds.mini.miniature import MINI_SDXL, MINIATURES
from fusain.worlds.reader import Reader
from tests.prove import subjects

pytestmark = pytest.mark.prove


@pytest.mark.parametrize("name", MINIATURES)
def test_it_draws_what_it_is_told(name: str, judge: Reader) -> None:
    miniature = MINIATURES[name]
    found = pretraining.measure(miniature, lies_at(f"fusain:{name}"), judge)
    print(name, *found.held_against(miniature.bars), sep="\n")
    assert found.face_psnr >= miniature.bars.face_psnr
    assert found.reading_lost <= miniature.bars.reading_lost
    assert found.mean >= miniature.bars.mean, found.attributes
    assert found.worst >= miniature.bars.worst, found.attributes
