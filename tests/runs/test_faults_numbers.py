"""Numbers, memory, devices and samplers that fail (F17 to F20, F30): told before a weight is touched."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.errors import FusainError
from fusain.generation import gallery
from fusain.training import checkpoint, diagnosis, engine
from fusain.training.events import current
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
    "Do: Try, the first that suits: --train.batch_size 2 --train.accumulation 2 (half of the activations, the same "
    "steps); or --engine.gradient_checkpointing true (most activations, for a third more time); "
    "or --train.fused_backward true (all gradients but two, clipped each by itself); "
    "or --train.optimizer adafactor (most of what the optimizer remembers, which begins anew); "
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
            now["step"] = 0
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


BROKEN: dict[str, tuple[Any, str, RuntimeError]] = {
    "forward": (
        torch.nn.Conv2d,
        "forward",
        torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported late"),
    ),
    "optimizer": (torch.optim.AdamW, "step", RuntimeError("CUDA error: uncorrectable ECC error encountered")),
    "sampling": (gallery, "write_png", torch.AcceleratorError("CUDA error: unspecified launch failure. (Xid 13)")),
}


def test_what_says_that_a_device_is_broken() -> None:
    """F20, and what it is not: for too little memory there is advice."""
    assert all(diagnosis.is_broken_device(fault) for *_, fault in BROKEN.values())
    assert diagnosis.is_broken_device(RuntimeError("HIP error: an illegal memory access was encountered"))
    for fault in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("CUDA error"),
    ):
        assert not diagnosis.is_broken_device(fault), fault


@pytest.mark.parametrize("place", BROKEN)
def test_a_device_that_breaks_ends_the_process(settings: Path, runs: Path, undisturbed: Path, place: str) -> None:
    """F20. Samples may fail, but from a device that broke nothing is asked any more, not even the next step."""
    owner, door, broken = BROKEN[place]
    now = {"step": 0, "broken": False, "asked": 0}

    def before(count: int) -> None:
        now["asked"] += now["broken"]
        if now["step"] == 6 or place == "sampling":
            now["broken"] = True
            raise broken

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            now["step"] = event["step"]

    changes = OFTEN | ({"samples.every_steps": 6} if place == "sampling" else {})
    with replaced(owner, door, wrapped(getattr(owner, door), before)), pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, changes, report=listen)
    assert (caught.value.exit_code, now["asked"]) == (5, 0)
    assert str(caught.value) == (
        f"E-ENV-010 The device cpu failed: {str(broken).splitlines()[0]}.\n"
        "Where: step 7\n"
        "Why: Nothing that runs on it afterwards can be trusted: a calculation reached outside of its memory, the "
        "driver was reset, or the hardware is damaged.\n"
        "Do: Give the same command again; a training goes on from its last checkpoint. If it comes again, look for Xid "
        "or ECC in the system's log (dmesg), and run once with CUDA_LAUNCH_BLOCKING=1 to learn where it happens."
    )
    assert sorted(losses(runs / "run")) == [1, 2, 3, 4, 5, 6]
    assert kinds(runs / "run", "failed")[0]["code"] == "E-ENV-010"
    train_here(settings, "run", runs, SHORT)
    assert_equal_runs(undisturbed, runs / "run")


def in_fp16(settings: engine.EngineSettings, team: Any = None) -> engine.Engine:
    """An engine that scales its losses as for fp16 does on a GPU, by torch's own scaler; the arithmetic is fp32."""
    made = real_start(settings, team)
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # type: ignore[attr-defined]
    made.accelerator.state._mixed_precision, made.accelerator.native_amp = "fp16", True
    made.accelerator.autocast = nullcontext
    return made


real_start = engine.start


def overflowing(*steps: int) -> Callable[..., Any]:
    """The trainer's door, through which one gradient of these steps comes out too large for fp16."""
    real = Trainer._gradients

    def gradients(trainer: Trainer, micro: Any) -> Any:
        if trainer.step + 1 not in steps:
            return real(trainer, micro)
        hook = list(trainer._parameters.values())[3].register_hook(lambda gradient: gradient * float("inf"))
        try:
            return real(trainer, micro)
        finally:
            hook.remove()

    return gradients


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_steps_that_overflow_are_skipped_and_no_schedule_counts_them(
    settings: Path, runs: Path, optimizer: str
) -> None:
    """F18, by an optimizer in one kernel, which is called all the same, and by one that is not."""
    changes = SHORT | {"train.schedule": "linear", "train.optimizer": optimizer, "family.dropout": 0.0}
    with replaced(engine, "start", in_fp16):
        train_here(settings, "smooth", runs, changes)
        with replaced(Trainer, "_gradients", overflowing(3, 7)):
            train_here(settings, "whole", runs, changes)
    told = [(row["code"], row["text"], row["step"]) for row in kinds(runs / "whole", "warning") if "step" in row]
    assert told == [("W-TRAIN-001", "An fp16 overflow: the step was skipped.", step) for step in (3, 7)]
    without_norm = [row["step"] for row in kinds(runs / "whole", "step") if row["norm"] is None]
    assert without_norm == [3, 7], "JSON has no infinity"
    rates = {name: [row["rate"] for row in kinds(runs / name, "step")] for name in ("smooth", "whole")}
    taken = rates["smooth"]
    assert rates["whole"] == [*taken[:3], *taken[2:6], *taken[5:10]]
    assert losses(runs / "whole")[2] == losses(runs / "smooth")[2]


def test_a_run_that_skipped_steps_goes_on_to_the_same_bits(settings: Path, runs: Path) -> None:
    """How many were skipped, and the scale that they have lowered, are part of a checkpoint."""
    changes = SHORT | {"train.schedule": "cosine"}
    with replaced(engine, "start", in_fp16), replaced(Trainer, "_gradients", overflowing(3, 4, 10)):
        train_here(settings, "whole", runs, changes)

        def stop(event: dict[str, Any]) -> None:
            if event["kind"] == "step" and event["step"] == 6:
                (runs / "run" / "stop").touch()

        train_here(settings, "run", runs, changes, report=stop)
        assert [row["step"] for row in kinds(runs / "run", "stopped")] == [6]
        train_here(settings, "run", runs, changes)
    assert_equal_runs(runs / "whole", runs / "run")
    rates = [[row["rate"] for row in current(runs / name / "events.jsonl") if row["kind"] == "step"]
             for name in ("whole", "run")]  # fmt: skip
    assert rates[0] == rates[1]


def test_ten_overflows_in_a_row_stop_the_run(settings: Path, runs: Path) -> None:
    """F18: nine do not; nothing of the skipped steps was learnt."""
    changes = SHORT | {"train.steps": 40, "checkpoint.every_steps": 5}
    nine, ten = range(2, 11), range(12, 40)
    with replaced(engine, "start", in_fp16), replaced(Trainer, "_gradients", overflowing(*nine, *ten)):
        fault = refused(settings, runs, changes)
    assert fault.exit_code == 7
    assert str(fault) == (
        "E-TRAIN-003 10 steps in a row overflowed in fp16: the training stopped; the last checkpoint is good.\n"
        "Where: step 21\n"
        "Do: Use --engine.precision bf16 or fp32, or a smaller learning rate."
    )
    saved = [checkpoint.read(path) for path in sorted((runs / "run" / "checkpoints").iterdir())]
    assert [(one.step, one.state["skipped"], one.state["scaler"]["scale"]) for one in saved] == [
        (10, 9, 1024 / 2**9), (15, 13, 1024 / 2**13), (20, 18, 1024 / 2**18),
    ]  # fmt: skip
    first, last = saved[1].tensors("trainable"), saved[2].tensors("trainable")
    assert all(torch.equal(first[name], last[name]) for name in first)


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
