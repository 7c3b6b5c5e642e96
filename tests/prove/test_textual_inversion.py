"""Textual inversion on the miniature: a new word alone calls for a character that it has never seen.

With pytest's -rP the mean rates are printed.
"""

from pathlib import Path

import numpy as np
import pytest

from fusain.runs import actions
from fusain.worlds.caricatures import portraits, write_folder
from fusain.worlds.reader import Reader
from tests.prove.style import bare
from tests.prove.subjects import IMAGES, NAMES, drawn, rates

pytestmark = pytest.mark.prove

START = "person"
SETTINGS = {
    "family.size": "64",
    "method.token": "<who>",
    "method.start_word": START,
    "method.vectors": "4",
    "method.sentences": '["a flat drawing of {}", "a flat picture of {}"]',
    "train.steps": "300",
    "train.batch_size": "8",
    "train.accumulation": "1",
    "train.learning_rate": "2e-2",
    "samples.every_steps": "0",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_word_is_learnt(mini_sd: str, judge: Reader, tmp_path: Path, name: str) -> None:
    write_folder(portraits(name, IMAGES, seed=1), tmp_path / "images")
    (tmp_path / "images" / "metadata.jsonl").unlink()  # captions tell all that the word is to learn
    own = {"runs_folder": str(tmp_path), "data.path": str(tmp_path / "images"), "family.base": mini_sd}
    run = actions.train("textual-inversion", name="word", overrides=list((SETTINGS | own).items())).folder
    family = actions.open_run(run).learner.family
    learnt = rates(drawn(family, ["a flat drawing of <who>"], 40), name, judge)
    start = rates(drawn(bare(mini_sd), [f"a flat drawing of {START}"], 40), name, judge)
    mean_learnt, mean_start = (float(np.mean(list(found.values()))) for found in (learnt, start))
    print(f"{name}: {mean_learnt:.2f} with the word, {mean_start:.2f} with the one that it began as")
    assert mean_learnt >= 0.5, learnt
    assert mean_learnt >= 2 * mean_start, (learnt, start)
