"""Memory that is too little: what each kind of run is advised to change, and that it is told wherever it happens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.cli.main import main
from fusain.errors import MemoryFault
from fusain.generation import generator
from fusain.messages.quantities import size
from fusain.runs import actions, assembly, measured_step, planning, relief
from fusain.runs.doctor import machine
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from tests.runs.faults import SHORT, replaced, wrapped
from tests.runs.training import as_overrides, train_here

ON_GPU = {"engine.device": "cuda", "engine.precision": "bf16"}
HALF = {"train.batch_size": 2, "train.accumulation": 2}
TWICE = {"engine.gradient_checkpointing": True}
ONE_BY_ONE = {"train.fused_backward": True}
FACTORED = {"train.optimizer": "adafactor"}
PRODIGY = ON_GPU | {"train.batch_size": 1, "train.optimizer": "prodigy", "train.learning_rate": 1}


def offered(recipe: str, changes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    settings = resolve(RunSettings, recipe=recipe, overrides=as_overrides({"data.path": "images", **changes})).settings
    engine = {"precision": "bf16"} if settings.engine.precision == "auto" else {}
    return [
        one.values
        for one in relief.changes(settings.model_copy(update={"engine": settings.engine.model_copy(update=engine)}))
    ]


@pytest.mark.parametrize(
    ("recipe", "changes", "wanted"),
    [
        ("unconditional", ON_GPU | {"train.batch_size": 4}, [HALF, TWICE, ONE_BY_ONE, FACTORED]),
        (
            "unconditional",
            ON_GPU | FACTORED | {"engine.precision": "fp32", "train.batch_size": 1},
            [{"engine.precision": "bf16"}, TWICE, ONE_BY_ONE],
        ),
        (  # three thirds are the same steps, two halves of three images are not
            "unconditional",
            ON_GPU | {"train.batch_size": 3, "train.accumulation": 2, "engine.processes": 3},
            [TWICE, FACTORED],
        ),
        (
            "unconditional",
            ON_GPU | {"train.batch_size": 9, "train.accumulation": 2},
            [{"train.batch_size": 3, "train.accumulation": 6}, TWICE, FACTORED],
        ),
        ("lora", ON_GPU | {"train.batch_size": 4, "train.accumulation": 1}, [HALF, {"engine.base_bits": 16}]),
        ("sdxl-lora-12gb", ON_GPU, [{"engine.base_bits": 8}]),
        ("sdxl-lora-8gb", ON_GPU, [{"engine.base_bits": 4}]),
        ("sdxl-lora-8gb", ON_GPU | {"engine.base_bits": 4}, []),
        ("sdxl-full-24gb", ON_GPU, [{"engine.weights": "bf16"}]),
        ("sdxl-full-10gb", ON_GPU, []),
        # an optimizer whose steps need all gradients is not asked to take them one by one, and its rate is no other's
        ("unconditional", PRODIGY, [TWICE]),
    ],
)  # fmt: skip
def test_what_is_advised(
    recipe: str, changes: Mapping[str, Any], wanted: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relief, "find_spec", lambda name: None)  # as without bitsandbytes
    assert offered(recipe, changes) == wanted


def test_eight_bits_are_advised_where_they_run() -> None:
    pytest.importorskip("bitsandbytes")
    assert {"train.optimizer": "adamw_8bit"} in offered("unconditional", ON_GPU)
    assert FACTORED in offered("unconditional", {"engine.device": "cpu"})


def out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nIts own stack")


ADVICE = (
    "Do: Try, the first that suits: --train.batch_size 2 --train.accumulation 2 (half of the activations, the same "
    "steps); or --engine.gradient_checkpointing true (most activations, for a third more time); "
    "or --train.fused_backward true (all gradients but two, clipped each by itself); "
    "or --train.optimizer adafactor (most of what the optimizer remembers, which begins anew); "
    "or a smaller family.size or narrower family.channels."
)
TOLD = "E-MEM-002 Out of memory on cpu.\nWhere: {where}\nWhy: CUDA out of memory. Tried to allocate 2.00 GiB.\n{advice}"


def test_before_the_first_step(settings: Path, runs: Path) -> None:
    """As where a base is brought to the device, and images are encoded."""
    door = wrapped(assembly.build_trainee, out_of_memory)
    with replaced(assembly, "build_trainee", door), pytest.raises(MemoryFault) as caught:
        train_here(settings, "run", runs, SHORT)
    assert caught.value.exit_code == 6
    assert str(caught.value) == TOLD.format(where="before the first step", advice=ADVICE)
    assert train_here(settings, "run", runs, SHORT).step == 12


def test_while_a_plan_measures(settings: Path, runs: Path) -> None:
    door = wrapped(measured_step.measure, out_of_memory)
    with replaced(measured_step, "measure", door), pytest.raises(MemoryFault) as caught:
        planning.plan(settings, overrides=as_overrides({"runs_folder": str(runs)}))
    assert str(caught.value) == TOLD.format(where="the steps that are measured", advice=ADVICE)


def test_while_drawing(finished: Path, runs: Path) -> None:
    door = wrapped(generator.generate, out_of_memory)
    with replaced(assembly, "generate", door), pytest.raises(MemoryFault) as caught:
        actions.generate("run", count=2, runs_folder=runs)
    advice = (
        "Do: Try, the first that suits: fewer images at once (--batch-size 1); smaller ones (--size); or --device cpu."
    )
    assert str(caught.value) == TOLD.format(where="drawing", advice=advice)


def test_anywhere_else(finished: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs out of memory is no mistake of Fusain's, so no trace is written and none is asked for."""
    with replaced(actions, "open_run", wrapped(actions.open_run, out_of_memory)), pytest.raises(SystemExit) as end:
        main(["generate", "run", "--runs-folder", str(runs), "--format", "json"])
    told = json.loads(capsys.readouterr().err)["error"]
    assert (end.value.code, told["code"], told["exit_code"]) == (6, "E-MEM-002", 6)
    assert told["message"] == "Out of memory on this machine."
    assert told["hint"] == (
        "Try, the first that suits: ending what else takes memory; or --device cpu, where the command has it."
    )


def test_a_plan_that_does_not_fit(settings: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the system would end the process without a word, so nothing is measured."""
    (tmp_path / "memory.max").write_text("100000\n")
    monkeypatch.setattr(machine, "GROUP", tmp_path)
    overrides = as_overrides({"runs_folder": str(runs)})
    with replaced(measured_step, "measure", out_of_memory):
        found = planning.plan(settings, overrides=overrides)
    needed = size(found.memory_foreseen.peak)
    advice = ADVICE.removeprefix("Do: ")
    assert found.notices[-1] == f"W-MEM-001 A step needs {needed} at its peak, and cpu has 100 KB. (memory) {advice}"
    assert (found.seconds_per_step, found.memory_peak) == (None, None)
    assert dict(found.lines())["time"] == "not measured"
    (tmp_path / "memory.max").write_text("max\n")
    assert not [one for one in planning.plan(settings, overrides=overrides).notices if "W-MEM" in one]


def test_of_a_gpu_that_may_not_be_looked_at_nothing_is_known() -> None:
    assert relief.room("cuda", look=False) is None
    assert relief.room("mps", look=True) is None
    assert relief.room("cpu", look=False) == machine.room()
