"""How many images are worked on at once."""

import pytest

from fusain.data.encoded import few


@pytest.mark.parametrize(("side", "count"), [(64, 16), (256, 16), (257, 15), (512, 4), (1024, 1), (4096, 1)])
def test_large_images_are_worked_on_a_few_at_a_time(side: int, count: int) -> None:
    assert few(16, side**2) == count


def test_the_area_up_to_which_all_are_taken_can_be_named() -> None:
    assert [few(64, side**2, whole=64**2) for side in (64, 128, 1024)] == [64, 16, 1]
