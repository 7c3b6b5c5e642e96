"""A family, a method, a source and a metric are one new file each, and no edit: shown in a fresh process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("what", HOMES)
def test_the_files_stand_alone(what: str) -> None:
    """The fixtures import nothing of each other: each is a whole addition."""
    assert "tests." not in (FIXTURES / f"{what}.py").read_text()
