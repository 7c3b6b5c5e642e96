"""Small real trainings for tests: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from fusain.training import events

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.runs.preload"])

TINY = """
[family]
condition = "class"
size = 8
channels = [8, 16]
layers_per_block = 1
dropout = 0.1
class_width = 8
cross_attention_width = 8
train_timesteps = 50

[data]
path = "{data}"
held_out = "auto"

[train]
steps = 30
batch_size = 4
learning_rate = 1e-3
held_out_every_steps = 10

[checkpoint]
every_steps = 5
keep = 3

[samples]
every_steps = 0
steps = 2
count = 1

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


def write_settings(folder: Path, data: Path) -> Path:
    """A settings file of a tiny run."""
    path = folder / "tiny.toml"
    path.write_text(TINY.format(data=data))
    return path


def as_overrides(changes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in changes.items()]


def train_here(settings: Path, name: str, runs_folder: Path, changes: dict[str, Any] | None = None, **more: Any) -> Any:
    """Train in this process."""
    from fusain.runs import actions

    overrides = as_overrides({"runs_folder": str(runs_folder), **(changes or {})})
    return actions.train(settings, name=name, overrides=overrides, **more)


def start_training(
    settings: Path,
    name: str,
    runs_folder: Path,
    changes: dict[str, Any] | None = None,
    *,
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Any:
    """Train in a process of its own; `prepare(*arguments)` runs in it first."""
    process = PROCESSES.Process(target=_child, args=(settings, name, runs_folder, changes, prepare, arguments))
    process.start()
    return process


def _child(
    settings: Path, name: str, runs_folder: Path, changes: dict[str, Any] | None, prepare: Any, arguments: Any
) -> None:
    from fusain.errors import FusainError

    sys.stderr = (runs_folder / f"{name}.stderr").open("a")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, wherever the tests run
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in the command; not this one's
    if prepare is not None:
        prepare(*arguments)
    try:
        result = train_here(settings, name, runs_folder, changes)
    except FusainError as fault:
        print(fault, file=sys.stderr, flush=True)
        os._exit(fault.exit_code)
    except KeyboardInterrupt:  # as the command does
        os._exit(130)
    stopped = {None: 0, "asked": 75, "interrupted": 130, "terminated": 143}[result.stopped]
    sys.stderr.flush()
    os._exit(stopped)


def wait_for(
    folder: Path, is_reached: Callable[[list[dict[str, Any]]], bool], process: Any, *, seconds: float = 300
) -> None:
    """Until the events of a run say so; a process that ended before is the test's failure."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_reached(list(events.read(folder / "events.jsonl"))):
            return
        assert process.is_alive(), (folder.parent / f"{folder.name}.stderr").read_text()
        time.sleep(0.005)
    raise AssertionError("the run never came there")


def kill(process: Any, number: int = signal.SIGKILL) -> int:
    os.kill(process.pid, number)
    process.join(300)
    assert process.exitcode is not None
    return int(process.exitcode)


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's newest checkpoint: weights, optimizer, average."""
    newest = max((folder / "checkpoints").glob("step-*"))
    return {
        f"{path.stem}/{name}": tensor
        for path in sorted(newest.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def losses(folder: Path) -> dict[int, float]:
    """The loss of each step that counts."""
    return {
        event["step"]: event["loss"] for event in events.current(folder / "events.jsonl") if event["kind"] == "step"
    }


def kinds(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in events.read(folder / "events.jsonl") if event["kind"] == kind]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Bit-equal weights, optimizer, average and losses."""
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, f"{len(different)} of {len(first)} tensors differ, such as {different[0]}"
    assert losses(one) == losses(other)
    assert losses(one), "a run without a step proves nothing"


def sprites_folder(folder: Path, count: int = 100) -> Path:
    """A small drawn world as a folder per class."""
    from fusain.worlds.sprites import world, write_folder

    write_folder(world(count, seed=3), folder)
    return folder


def flat(images: Iterable[Path]) -> list[np.ndarray]:
    from PIL import Image

    return [np.asarray(Image.open(path).convert("RGB")) for path in images]
