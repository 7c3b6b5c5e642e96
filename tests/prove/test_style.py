"""Fine-tuning on the style that the miniature has never seen: it learns the style and keeps the words.

With pytest's -rP the shares are printed.
"""

from pathlib import Path

import pytest

from fusain.worlds.reader import Reader
from tests.prove import style

pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def before(mini_sd: str, judge: Reader) -> style.Drawn:
    return style.drawn(mini_sd, judge)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_style_is_learnt_and_the_words_are_kept(
    before: style.Drawn, judge: Reader, tmp_path: Path, seed: int
) -> None:
    assert before.in_style < 0.2
    after = style.drawn(str(style.taught(tmp_path, seed=seed)), judge)
    print(f"seed {seed}: in the style {before.in_style:.3f}, then {after.in_style:.3f};", end=" ")
    print(f"attributes {before.attributes:.3f}, then {after.attributes:.3f}")
    assert after.in_style >= 0.9
    assert after.attributes >= before.attributes - 0.05
