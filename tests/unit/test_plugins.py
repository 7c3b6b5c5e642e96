"""A family, a method, a source and a metric are one new file each, and no edit; a tracker is one, and its setting.

Shown in a fresh process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fusain

FIXTURES = Path(__file__).parent.parent / "fixtures"
HOMES = {
    "family": "fusain.models.families",
    "method": "fusain.training.methods",
    "source": "fusain.data.sources",
    "metric": "fusain.evaluation.metrics",
}
PROOF = """
import importlib, sys
from pathlib import Path

folder = Path(sys.argv[1])
for what, home in {homes}.items():
    importlib.import_module(home).__path__.append(str(folder / what))

from fusain.evaluation.evaluator import METRICS
from fusain.runs import actions

(folder / "data").mkdir()
(folder / "data" / "colours.txt").write_text("red green blue white black orange purple pink")
overrides = {{
    "family.kind": "toy", "method.kind": "biases", "data.path": str(folder / "data"), "data.held_out": "none",
    "train.steps": "2", "train.batch_size": "4", "runs_folder": str(folder / "runs"), "engine.precision": "fp32",
}}
result = actions.train("unconditional", name="toy", overrides=list(overrides.items()))
drawn = actions.generate(result.folder, count=2, output=folder / "drawn")
assert (result.step, len(drawn.images)) == (2, 2)
assert "brightness" in METRICS
print("all four were found and used")
"""


def test_one_file_each_is_enough(tmp_path: Path) -> None:
    for what in HOMES:
        (tmp_path / what).mkdir()
        shutil.copy(FIXTURES / f"{what}.py", tmp_path / what / f"toy_{what}.py")
    done = subprocess.run(
        [sys.executable, "-c", PROOF.format(homes=HOMES), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "all four were found and used\n", done.stderr


SETTING = """
    trackio: bool = False"""
WITH_A_TRACKER = """
import sys
from pathlib import Path

import fusain
from fusain.runs import actions
from fusain.worlds.sprites import world, write_folder

folder = Path(sys.argv[1])
assert Path(fusain.__file__).is_relative_to(folder)
write_folder(world(8), folder / "data")
overrides = {
    "data.path": str(folder / "data"), "data.held_out": "none", "family.size": "8", "family.channels": "[8, 16]",
    "family.layers_per_block": "1", "family.train_timesteps": "50", "train.steps": "2", "train.batch_size": "4",
    "samples.every_steps": "2", "samples.steps": "2", "samples.count": "1", "runs_folder": str(folder / "runs"),
    "engine.precision": "fp32", "engine.device": "cpu", "engine.threads": "1", "track.ledger": "true",
}
actions.train("unconditional", name="run", overrides=list(overrides.items()))
"""


def test_a_tracker_is_one_file_and_its_setting(tmp_path: Path) -> None:
    """In a copy of the package that has these two and nothing else."""
    package = tmp_path / "fusain"
    shutil.copytree(
        Path(fusain.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "mini-sd", "mini-sdxl")
    )
    shutil.copy(FIXTURES / "tracker.py", package / "training" / "trackers" / "ledger.py")
    contract = package / "training" / "tracker.py"
    text = contract.read_text()
    assert text.count(SETTING) == 1
    contract.write_text(text.replace(SETTING, f"\n    ledger: bool = False{SETTING}"))
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_TRACKER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, *rows = map(json.loads, (tmp_path / "runs" / "run" / "ledger.jsonl").read_text().splitlines())
    assert "train.learning_rate" in told["settings"]
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert [row["step"] for row in rows if row.get("samples") == "sheet.png"] == [2]
    assert rows[-1] == {"finished": True}


@pytest.mark.parametrize("what", [*HOMES, "tracker"])
def test_the_files_stand_alone(what: str) -> None:
    """The fixtures import nothing of each other: each is a whole addition."""
    assert "tests." not in (FIXTURES / f"{what}.py").read_text()
