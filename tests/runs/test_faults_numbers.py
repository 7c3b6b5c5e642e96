"""NaN, memory and samplers that fail (F17, F19, F30): told before a weight is touched, and what can go on goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.errors import FusainError
from fusain.generation import gallery
from fusain.training import checkpoint
from fusain.training.trainer import Trainer
from tests.runs.faults import SHORT, refused, replaced, wrapped
from tests.runs.training import assert_equal_runs, kinds, losses, train_here

OFTEN = SHORT | {"checkpoint.every_steps": 1}
WHY = "Why: A learning rate that is too high, an overflow in half precision, or a broken image makes such numbers.\n"
DO = (
    "Do: Look at the images; try --train.learning_rate at a tenth, or --engine.precision fp32. "
    "The last checkpoint is good, and diagnosis.json says more."
)


def poisoned(value: float, step: int, rows: slice) -> Callable[..., Any]:
    """The trainer's door for batches, which at that step puts a number into the pixels of some images."""
    real = Trainer._gradients

    def gradients(trainer: Trainer, micro: Any) -> Any:
        if trainer.step + 1 == step:
            micro[0].pixels_BCHW[rows] = value
        return real(trainer, micro)

    return gradients


def test_an_infinite_loss_is_told_as_such(settings: Path, runs: Path, undisturbed: Path) -> None:
    real = Trainer._gradients

    def gradients(trainer: Trainer, micro: Any) -> Any:
        if trainer.step + 1 == 7:
            with torch.no_grad():
                trainer._parameters["unet.conv_out.bias"][0] = float("inf")
        return real(trainer, micro)

    with replaced(Trainer, "_gradients", gradients):
        fault = refused(settings, runs, OFTEN)
    images = json.loads((runs / "run" / "diagnosis.json").read_text())["suspects"]
    assert str(fault) == (
        "E-TRAIN-001 The loss is inf: the training stopped before it touched the weights. "
        f"Images in it: {', '.join(images)}.\nWhere: step 7\n{WHY}{DO}"
    )
    train_here(settings, "run", runs, OFTEN)
    assert_equal_runs(undisturbed, runs / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_update(
    settings: Path, runs: Path, undisturbed: Path, value: float
) -> None:
    with replaced(Trainer, "_gradients", poisoned(value, 7, slice(2, 3))):
        fault = refused(settings, runs, OFTEN)
    bundle = json.loads((runs / "run" / "diagnosis.json").read_text())
    assert (bundle["step"], bundle["what"], len(bundle["images"])) == (7, "loss", 4)
    assert bundle["suspects"] == bundle["images"][2:3]
    assert bundle["draws"] == [24, 25, 26, 27]
    assert len(bundle["times"]) == 4
    assert fault.exit_code == 7
    assert str(fault) == (
        "E-TRAIN-001 The loss is nan: the training stopped before it touched the weights. "
        f"Images in it: {bundle['suspects'][0]}.\nWhere: step 7\n{WHY}{DO}"
    )
    assert kinds(runs / "run", "failed")[0]["code"] == "E-TRAIN-001"
    newest = sorted((runs / "run" / "checkpoints").iterdir())[-1]
    assert checkpoint.read(newest).step == 6
    train_here(settings, "run", runs, OFTEN)
    assert_equal_runs(undisturbed, runs / "run")


def test_a_gradient_that_is_no_number_stops_before_the_update(settings: Path, runs: Path, undisturbed: Path) -> None:
    real, hooked = Trainer._gradients, []

    def gradients(trainer: Trainer, micro: Any) -> Any:
        if trainer.step + 1 == 7 and not hooked:
            parameter = list(trainer._parameters.values())[3]
            hooked.append(parameter.register_hook(lambda gradient: gradient * float("nan")))
        return real(trainer, micro)

    with replaced(Trainer, "_gradients", gradients):
        fault = refused(settings, runs, OFTEN)
    bundle = json.loads((runs / "run" / "diagnosis.json").read_text())
    assert (bundle["step"], bundle["what"]) == (7, "gradient")
    assert str(fault) == (
        "E-TRAIN-001 The gradient is nan: the training stopped before it touched the weights. "
        f"Images in it: {', '.join(bundle['images'])}.\nWhere: step 7\n{WHY}{DO}"
    )
    assert sorted(losses(runs / "run")) == [1, 2, 3, 4, 5, 6]
    train_here(settings, "run", runs, OFTEN)
    assert_equal_runs(undisturbed, runs / "run")


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nIts own stack")


MEMORY_TOLD = (
    "E-MEM-001 Out of memory on cpu.\n"
    "Where: step 7\n"
    "Why: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    "Do: Try, the first that suits: --train.batch_size 2 --train.accumulation 2 (about half the memory, same steps); "
    "or a smaller family.size or narrower family.channels. "
    "The run goes on from its last checkpoint with --allow-change for the settings you change."
)


@pytest.mark.parametrize("place", ["forward", "backward", "optimizer", "moving a batch", "held-out loss"])
def test_out_of_memory_says_what_to_change_wherever_it_happens(
    settings: Path, runs: Path, undisturbed: Path, place: str
) -> None:
    from fusain.data.batch import Batch
    from fusain.training import trainer

    doors = {
        "forward": (torch.nn.Conv2d, "forward"),
        "backward": (torch.Tensor, "backward"),
        "optimizer": (torch.optim.AdamW, "step"),
        "moving a batch": (Batch, "to"),
        "held-out loss": (trainer, "held_out_loss"),
    }
    owner, name = doors[place]
    now = {"step": 0}

    def before(count: int) -> None:
        if now["step"] == 6:
            out_of_memory()

    def listen(event: dict[str, Any]) -> None:
        # After step 6, and where the held-out loss is not what fails, after that is measured.
        if event.get("step") == 6 and event["kind"] == ("step" if place == "held-out loss" else "checkpoint"):
            now["step"] = 6

    changes = OFTEN | {"checkpoint.every_steps": 2}
    with replaced(owner, name, wrapped(getattr(owner, name), before)), pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, changes, report=listen)
    assert caught.value.exit_code == 6
    assert str(caught.value) == MEMORY_TOLD
    train_here(settings, "run", runs, changes)
    assert_equal_runs(undisturbed, runs / "run")


def test_the_allocator_of_the_cpu_is_understood(settings: Path, runs: Path) -> None:
    def ask_for_too_much(count: int) -> None:
        torch.empty(10**16)

    door = wrapped(torch.optim.AdamW.step, ask_for_too_much)
    with replaced(torch.optim.AdamW, "step", door), pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, SHORT)
    assert (caught.value.code, caught.value.exit_code) == ("E-MEM-001", 6)
    assert "can't allocate memory: you tried to allocate 40000000000000000 bytes" in caught.value.message.why


def test_the_advice_against_too_little_memory_works(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT | {"train.steps": 8})
    changes = SHORT | {"train.batch_size": 2, "train.accumulation": 2}
    train_here(settings, "run", runs, changes, allow_change=["train.batch_size", "train.accumulation"])
    assert sorted(losses(runs / "run")) == list(range(1, 13))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "OutOfMemoryError: CUDA out of memory."),
        (MemoryError(), "MemoryError"),
        (KeyError("prompt"), "KeyError: 'prompt'"),
        (ValueError("no such prompt\nin many lines"), "ValueError: no such prompt"),
    ],
    ids=["device memory", "memory", "a mistake of its own", "a wrong value"],
)
def test_a_sampler_that_crashes_costs_the_samples(
    settings: Path, runs: Path, undisturbed: Path, fault: Exception, told: str
) -> None:
    def crash(count: int) -> None:
        if count <= 2:
            raise fault

    with replaced(gallery, "write_png", wrapped(gallery.write_png, crash)):
        train_here(settings, "run", runs, SHORT | {"samples.every_steps": 4})
    found = [(row["step"], row["text"]) for row in kinds(runs / "run", "warning") if row["code"] == "W-SAMPLE-001"]
    assert found == [(step, f"No samples were drawn ({told}); training goes on.") for step in (4, 8)]
    assert [row["step"] for row in kinds(runs / "run", "samples")] == [12]
    assert_equal_runs(undisturbed, runs / "run")


def test_a_samples_folder_that_is_a_file_costs_the_samples(settings: Path, runs: Path, undisturbed: Path) -> None:
    (runs / "run").mkdir()
    (runs / "run" / "samples").write_text("not a folder")
    train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6})
    (first, _) = [row for row in kinds(runs / "run", "warning") if row["code"] == "W-SAMPLE-001"]
    missing = runs / "run" / "samples" / "step-00000006"
    assert first["text"] == f"No samples were drawn ([Errno 20] Not a directory: '{missing}'); training goes on."
    assert_equal_runs(undisturbed, runs / "run")
