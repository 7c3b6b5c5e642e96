"""A network that is split over two processes (FSDP2) learns what a whole one does, and leaves the same files."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fusain.errors import SettingsError
from fusain.runs import actions, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.worlds.caricatures import portraits, write_folder
from tests.runs import held_parts
from tests.runs.test_processes import BASES
from tests.runs.test_recipes_on_the_miniature import SMALL
from tests.runs.training import as_overrides, assert_equal_runs, kinds, losses

SPLIT = {"engine.processes": "2", "engine.shard": "true"}
PLAIN = {
    "family.size": "32",
    "train.steps": "20",
    "train.batch_size": "3",
    "train.schedule": "constant",
    "train.warmup_steps": "0",
    "train.ema_decay": "0.9",
    "checkpoint.every_steps": "10",
    "data.held_out": "2",
    "train.held_out_every_steps": "10",
    "samples.every_steps": "20",
    "samples.count": "1",
    "samples.prompts": '["a person"]',
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    write_folder(portraits("Ada", 8), tmp_path / "images")
    return tmp_path


def train(folder: Path, name: str, recipe: str, kind: str, changes: dict[str, str]) -> Path:
    if not (folder / "base").exists():
        BASES[kind](folder=folder / "base")
    own = {"family.kind": kind, "family.base": str(folder / "base"), "data.path": str(folder / "images")}
    own |= {"runs_folder": str(folder), **changes}
    return actions.train(recipe, name=name, overrides=list((SMALL | PLAIN | own).items())).folder


def assert_equal_files(one: Path, other: Path, *, steps: float) -> None:
    """The same files of the same shapes; numbers that differ by less than a few steps of the rate."""
    listed = [sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file()) for run in (one, other)]
    assert listed[0] == listed[1]
    for path in listed[0]:
        if path.suffix == ".safetensors":
            first, second = load_file(one / path), load_file(other / path)
            assert first.keys() == second.keys()
            for name in first:
                torch.testing.assert_close(second[name], first[name], rtol=1e-3, atol=steps)
        elif path.suffix == ".json":
            assert (one / path).read_text() == (other / path).read_text(), path


def test_all_weights_of_stable_diffusion(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two batches a step, parts of 2 and 1 images, recomputed activations; and it resumes to the same bits."""
    more = {"train.accumulation": "2", "train.learning_rate": "1e-4", "engine.gradient_checkpointing": "true"}
    one = train(made, "one", "text-to-image", "sd", more)
    held_parts.everywhere(made, monkeypatch)
    two = train(made, "two", "text-to-image", "sd", more | SPLIT)
    assert list(losses(two)) == list(range(1, 21))
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert [row["step"] for row in kinds(two, "samples")] == [20]
    held_out = [[row["loss"] for row in kinds(run, "held_out")] for run in (one, two)]
    assert len(held_out[0]) == 3
    assert held_out[1] == pytest.approx(held_out[0], rel=1e-5)
    assert [row["code"] for row in kinds(two, "warning")] == [row["code"] for row in kinds(one, "warning")]
    assert_equal_files(one / "weights", two / "weights", steps=1e-4)

    counts = [held_parts.read(made, rank) for rank in (0, 1)]
    for kind, (whole, own) in counts[0].items():
        other = counts[1][kind][1]
        assert own + other == whole, kind
        assert max(own, other) < 0.55 * whole, kind

    again = Path(shutil.copytree(two, made / "again"))
    shutil.rmtree(again / "checkpoints" / "step-00000020")
    alone = Path(shutil.copytree(again, made / "alone"))
    train(made, "again", "text-to-image", "sd", more | SPLIT)
    assert_equal_runs(two, again)
    train(made, "alone", "text-to-image", "sd", more)
    assert losses(alone) == pytest.approx(losses(two), rel=1e-5)
    assert kinds(alone, "note")[-1]["text"] == (
        "Resumed with engine.shard = False where it was True: sums are rounded in another order: "
        "no longer equal to the last bit."
    )


@pytest.mark.prove
@pytest.mark.parametrize(("recipe", "kind"), [("text-to-image", "sd3"), ("lora", "sd")])
def test_other_networks_and_a_lora(made: Path, recipe: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base of a LoRA is split as well, though it does not learn."""
    one = train(made, "one", recipe, kind, {"train.learning_rate": "1e-4"})
    held_parts.everywhere(made, monkeypatch)
    two = train(made, "two", recipe, kind, {"train.learning_rate": "1e-4"} | SPLIT)
    assert list(losses(two)) == list(range(1, 21))
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert_equal_files(one / "weights", two / "weights", steps=1e-4)
    for rank in (0, 1):
        whole, own = held_parts.read(made, rank)["weights"]
        assert own < 0.55 * whole


@pytest.mark.prove
def test_bf16_is_as_near_as_two_processes_are(made: Path) -> None:
    """Autocast works on the weights that were brought together."""
    short = {"train.steps": "3", "engine.precision": "bf16", "samples.every_steps": "0"}
    found = [
        losses(train(made, name, "text-to-image", "sd", short | more))
        for name, more in (("two", {"engine.processes": "2"}), ("split", SPLIT))
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def refused(engine: str, train: str = "", more: str = "") -> str:
    text = f"[data]\npath = 'x'\n[train]\nsteps = 1\nbatch_size = 4\n{train}\n[engine]\nshard = true\n{engine}\n{more}"
    with pytest.raises(SettingsError) as caught:
        resolve(RunSettings, text=text)
    return str(caught.value)


WHERE = "Where: engine.shard\n"


def test_one_process_has_nothing_to_share() -> None:
    assert refused("") == (
        "E-SHARD-001 engine.shard splits a model over several processes, and this run has one.\n"
        f"{WHERE}"
        "Do: Set engine.processes to the number of GPUs, or leave engine.shard off."
    )


@pytest.mark.parametrize("compile", ["on", "auto"])
def test_it_is_not_compiled(compile: str) -> None:
    assert refused(f"processes = 2\ncompile = '{compile}'") == (
        f'E-SHARD-002 engine.shard does not work with engine.compile = "{compile}".\n'
        f"{WHERE}"
        "Why: Between any two blocks weights come and go, which cannot be compiled into one piece.\n"
        'Do: Set engine.compile = "off", or leave engine.shard off.'
    )


def test_a_base_in_few_bits_is_not_split() -> None:
    lora = "[family]\nkind = 'sd'\n[method]\nkind = 'lora'"
    assert refused("processes = 2\nbase_bits = 8", more=lora) == (
        "E-SHARD-003 engine.shard does not work with engine.base_bits = 8.\n"
        f"{WHERE}"
        "Why: What is packed in few bits is no weight any more, and would lie whole in each process.\n"
        "Do: Leave engine.base_bits at 32, or engine.shard off."
    )


def test_fp16_is_not_split() -> None:
    assert refused("processes = 2\nprecision = 'fp16'") == (
        'E-SHARD-004 engine.shard does not work with engine.precision = "fp16".\n'
        f"{WHERE}"
        "Why: All processes would have to agree on each gradient that overflows, which was never tried.\n"
        "Do: Use --engine.precision bf16 or fp32, or leave engine.shard off."
    )


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "adamw_8bit", "prodigy", "pytorch_optimizer.ADOPT"])
def test_optimizers_that_need_whole_weights(optimizer: str) -> None:
    assert refused("processes = 2", train=f"optimizer = '{optimizer}'\nlearning_rate = 1") == (
        f"E-SHARD-005 engine.shard does not work with the optimizer '{optimizer}'.\n"
        f"{WHERE}"
        "Why: Each process holds some rows of every weight; this optimizer looks at whole ones, or keeps them in a "
        "form of its own.\n"
        "Do: Set train.optimizer to one of adam, adamw, lion, or leave engine.shard off."
    )


@pytest.mark.parametrize("method", ["autoencoder", "textual_inversion"])
def test_methods_that_train_something_else(method: str) -> None:
    assert refused("processes = 2", more=f"[family]\nkind = 'sd'\n[method]\nkind = '{method}'") == (
        f"E-SHARD-006 engine.shard does not work with the method '{method}'.\n"
        f"{WHERE}"
        "Why: Only parts of the network that predicts are split over the processes, and this method trains something "
        "else.\n"
        "Do: Set method.kind to one of full, lora, or leave engine.shard off."
    )


def test_text_encoders_are_not_split() -> None:
    assert refused("processes = 2", more="[family]\nkind = 'sd'\n[method]\ntext_encoder = true") == (
        "E-SHARD-007 engine.shard does not work with method.text_encoder = true.\n"
        f"{WHERE}"
        "Why: Only the network that predicts is split over the processes; text encoders are asked outside of its steps "
        "too.\n"
        "Do: Set method.text_encoder = false, or leave engine.shard off."
    )


def test_the_plan_is_of_the_part_of_one(settings: Path) -> None:
    """Nothing is measured, for one process alone would hold all of it."""
    changes = {"train.batch_size": 4, "engine.processes": 2}
    whole, split = (
        planning.plan(settings, overrides=as_overrides(changes | more), measure=bool(more))
        for more in ({}, {"engine.shard": True})
    )
    for kind in ("optimizer", "average"):
        ratio = getattr(split.memory_foreseen, kind) / getattr(whole.memory_foreseen, kind)
        assert 0.5 <= ratio < 0.56, kind
    assert split.memory_foreseen.activations == whole.memory_foreseen.activations
    assert dict(split.lines())["processes"] == "2 that hold a part each: memory is for each, nothing was measured"
    assert dict(split.lines())["time"] == "not measured"
