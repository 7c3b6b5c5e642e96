"""Recipes named by the size of a GPU stay below it at full size, as the plan foresees from shapes."""

import re
import tempfile
from pathlib import Path

import pytest
from benchmarks import full_size, memory

from fusain.runs import assembly, planning
from fusain.runs.settings import RunSettings
from fusain.settings import recipes
from fusain.settings.read import resolve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory.prepare(tmp_path_factory.mktemp("faces"))


SIZES = {
    "sd15-dreambooth-12gb": 12,
    "sdxl-lora-8gb": 8,
    "sdxl-lora-12gb": 12,
    "sdxl-full-10gb": 10,
    "sdxl-full-24gb": 24,
}


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "memory.md"
ROW = re.compile(r"^\| `(\S+gb)` \| .* \| ([\d.]+) GB \|$", re.MULTILINE)
TOLD = {recipe: float(number) for recipe, number in ROW.findall(PAGE.read_text(encoding="utf-8"))}
"""What the page says that each needs, in GB."""


def test_recipes_that_name_a_size_are_all_here() -> None:
    assert sorted(SIZES) == sorted(TOLD) == [name for name in recipes.names() if name.endswith("gb")]


@pytest.mark.prove
@pytest.mark.parametrize("recipe", SIZES)
def test_a_recipe_stays_below_its_size_and_needs_what_is_told(recipe: str, folder: Path) -> None:
    """At full size, on a GPU, from shapes; a tenth is left for the driver and for what lies in pieces."""
    with tempfile.TemporaryDirectory() as name:
        base = full_size.write("sdxl" if "xl" in recipe else "sd1", Path(name) / "base")
        overrides = {"data.path": str(folder / "faces"), "family.base": str(base), "engine.precision": "bf16"}
        overrides |= {"data.small": "enlarge", "data.buckets": "false"}  # of images that are small, at the whole size
        overrides |= {"data.subject.class_word": "face"} if "xl" not in recipe else {}
        settings = resolve(RunSettings, recipe=recipe, overrides=list(overrides.items())).settings
        dataset = assembly.prepare_data(settings, folder=None, report=None)
        on_gpu = settings.model_copy(update={"engine": settings.engine.model_copy(update={"device": "cuda"})})
        found = planning.foreseen_memory(on_gpu, dataset)
    assert found.average == 0
    assert found.peak / 1e9 < 0.9 * SIZES[recipe]
    assert found.peak / 1e9 == pytest.approx(TOLD[recipe], rel=0.05)
