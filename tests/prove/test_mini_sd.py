"""The miniature that the package carries, held to what it must do."""

from pathlib import Path

import pytest

from fusain.runs import pretraining
from fusain.runs.miniature_card import Quality
from fusain.worlds.mini.miniature import MINI_SD
from fusain.worlds.reader import Reader

pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def found(mini_sd: str, judge: Reader) -> Quality:
    return pretraining.measure(MINI_SD, Path(mini_sd), judge)


def test_it_draws_what_it_is_told(found: Quality) -> None:
    assert found.face_psnr >= MINI_SD.bars.face_psnr
    assert found.reading_lost <= MINI_SD.bars.reading_lost
    assert found.mean >= MINI_SD.bars.mean, found.attributes
    assert found.worst >= MINI_SD.bars.worst, found.attributes
