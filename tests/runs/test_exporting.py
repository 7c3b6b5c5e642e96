"""The weights of a checkpoint as files: what they hold, and that nothing is written over."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fusain.cli import runs as verbs
from fusain.errors import UsageError
from fusain.runs import copies
from fusain.runs.actions import open_run
from fusain.runs.exporting import export


def test_of_the_last_step_they_are_what_the_end_wrote(finished: Path) -> None:
    done = export(finished)
    assert (done.folder, done.step, done.read_back) == (finished / "exported" / "step-00000012", 12, None)
    assert copies._are_equal(finished / "weights", done.folder)
    assert [path.name for path in (finished / "exported").iterdir()] == ["step-00000012"]


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_of_an_earlier_step_they_are_what_is_drawn_with(finished: Path, tmp_path: Path, weights: str) -> None:
    words = ["export", str(finished), "--checkpoint", "4", "--weights", weights, "-o", str(tmp_path / "of 4")]
    done = CliRunner().invoke(verbs.verb, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'of 4'}: the weights of step 4"
    assert "  fusain.json" in lines
    exported, drawn = open_run(finished).learner, open_run(finished, checkpoint="4", weights=weights).learner  # type: ignore[arg-type]
    exported.method.attach(exported.family, tmp_path / "of 4")
    wanted = drawn.family.network.state_dict()
    assert all(torch.equal(one, wanted[name]) for name, one in exported.family.network.state_dict().items())


def test_what_cannot_be_written(finished: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export(finished, checkpoint="7")
    assert str(caught.value) == (
        "E-RUN-008 No checkpoint is called '7'.\n"
        f"Where: {finished / 'checkpoints'}\n"
        "Do: Checkpoints here: step-00000004, step-00000008, step-00000012."
    )
    export(finished)
    before = sorted(finished.rglob("*"))
    with pytest.raises(Exception, match=r"^E-MODEL-049 '.*step-00000012' exists already; nothing is written over\."):
        export(finished)
    assert sorted(finished.rglob("*")) == before
