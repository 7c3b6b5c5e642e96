"""Contact sheets: what stands on them fits on them."""

import numpy as np

from fusain.generation.gallery import PAPER, contact_sheet

TITLE = "a man with a long head and a straight mouth, wearing round glasses"


def test_a_title_that_is_too_long_is_cut_and_says_so() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    narrow = np.asarray(contact_sheet({TITLE: [image, image]}, columns=2))
    assert (narrow[:38, -16:] == PAPER).all(), "nothing is written into the margin"
    assert (narrow[:38] != PAPER).any()
    wide, cut = (np.asarray(contact_sheet({title: [image] * 8}, columns=8))[:38] for title in (TITLE, TITLE[:20]))
    assert (wide != cut).any()
    assert (wide[:, :80] == cut[:, :80]).all(), "a title that fits is written as it is"
