"""The drawn world and the settings that the benchmarks of training share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fusain.models.family import Family
from fusain.runs import assembly
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training.events import EventLog, Listener
from fusain.training.trainer import Trainer
from fusain.worlds.sprites import world, write_arrays

QUIET = {"samples.every_steps": "0", "train.held_out_every_steps": "1000000", "checkpoint.every_steps": "1000000"}
"""Only the loop itself: data, logging and the average stay on."""


@contextmanager
def drawn_world(count: int = 2_000) -> Iterator[Path]:
    """A temporary folder with a world as arrays in `sprites/`."""
    with TemporaryDirectory() as folder:
        os.environ["FUSAIN_CACHE"] = f"{folder}/cache"
        (Path(folder) / "sprites").mkdir()
        write_arrays(world(count), Path(folder) / "sprites")
        yield Path(folder)


def resolved(recipe: str, folder: Path, **changes: str) -> RunSettings:
    """The settings of a recipe on that world; keys with `__` for the dot."""
    overrides = {"data.path": str(folder / "sprites"), "runs_folder": str(folder / "runs"), **QUIET}
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    return assembly.resolved_engine(resolve(RunSettings, recipe=recipe, overrides=list(overrides.items())).settings)


def make_trainer(settings: RunSettings, name: str, *, listener: Listener) -> Trainer:
    """A trainer as `fusain train` builds it."""
    folder = RunFolder(Path(settings.runs_folder) / name)
    folder.create()
    log = EventLog(folder.events, (listener,))
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    return assembly.build_trainer(settings, folder, dataset, log)


class BareStep:
    """Forward, backward and step of a family's network on tensors that lie ready: the floor of every loop."""

    def __init__(self, family: Family, *, batch_size: int, precision: str, optimizer: Any = torch.optim.AdamW) -> None:
        size = family.network.unet.config.sample_size  # type: ignore[union-attr]
        channels = family.network.unet.config.in_channels  # type: ignore[union-attr]
        self.network = family.network.train()
        self.optimizer = optimizer(self.network.parameters(), lr=1e-4)
        self.noisy, self.target = torch.randn(2, batch_size, channels, size, size)
        self.times = torch.randint(0, family.schedule.steps, (batch_size,))
        classes = len(family.facts.classes)
        self.labels = torch.eye(classes)[torch.arange(batch_size) % classes] if family.condition == "class" else None
        self.is_bf16 = precision == "bf16"

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            predicted = self.network(self.noisy, self.times, self.labels)
        torch.nn.functional.mse_loss(predicted.float(), self.target).backward()
        self.optimizer.step()
