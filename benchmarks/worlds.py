"""The drawn world and the settings that the benchmarks of training share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fusain.data.batch import Batch
from fusain.models.families.sd import TextCondition
from fusain.models.family import Family
from fusain.runs import assembly
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training.events import EventLog, Listener
from fusain.training.optimizers import OptimizerName, make_optimizer
from fusain.training.trainer import Trainer
from fusain.worlds.sprites import world, write_arrays

QUIET = {"samples.every_steps": "0", "train.held_out_every_steps": "1000000", "checkpoint.every_steps": "1000000"}
"""Only the loop itself: data, logging and the average stay on."""


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A temporary folder, with the cache in it too."""
    with TemporaryDirectory() as folder:
        os.environ["FUSAIN_CACHE"] = f"{folder}/cache"
        yield Path(folder)


@contextmanager
def drawn_world(count: int = 2_000) -> Iterator[Path]:
    """A temporary folder with a world as arrays in `sprites/`."""
    with empty_folder() as folder:
        (folder / "sprites").mkdir()
        write_arrays(world(count), folder / "sprites")
        yield folder


def resolved(recipe: str, folder: Path, **changes: str) -> RunSettings:
    """The settings of a recipe on that world; keys with `__` for the dot."""
    overrides = {"data.path": str(folder / "sprites"), "runs_folder": str(folder / "runs"), **QUIET}
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    return assembly.resolved_engine(resolve(RunSettings, recipe=recipe, overrides=list(overrides.items())).settings)


def make_trainer(settings: RunSettings, name: str, *listeners: Listener) -> Trainer:
    """A trainer as `fusain train` builds it."""
    folder = RunFolder(Path(settings.runs_folder) / name)
    folder.create()
    log = EventLog(folder.events, listeners)
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    return assembly.build_trainer(settings, folder, dataset, log)


def our_optimizer(name: OptimizerName) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer of the loop, to be called as those of torch are."""
    return lambda named, lr: make_optimizer(name, dict(named), learning_rate=lr, weight_decay=0.0)


@dataclass(frozen=True)
class Ready:
    """Tensors that lie ready for a bare step; what they are takes no time."""

    noisy_BCHW: torch.Tensor
    target_BCHW: torch.Tensor
    times_B: torch.Tensor
    condition: Any


def made_up(family: Family, batch_size: int) -> Ready:
    """In the shapes of the network's own configuration."""
    config = family.network.unet.config  # type: ignore[union-attr]
    noisy_BCHW, target_BCHW = torch.randn(2, batch_size, config.in_channels, config.sample_size, config.sample_size)
    times_B = torch.randint(0, family.schedule.steps, (batch_size,))
    return Ready(noisy_BCHW, target_BCHW, times_B, steering(family, batch_size))


def as_a_batch(family: Family, batch: Batch) -> Ready:
    """In the shapes of a batch whose encodings are stored, and steered as it is."""
    assert batch.encoded_images is not None, "the autoencoder is no part of a bare step"
    clean = family.encode_latents(batch.encoded_images)
    times_B = family.times(torch.rand(len(batch), device=clean.device))
    return Ready(torch.randn_like(clean), torch.randn_like(clean), times_B, family.encode_condition(batch, None))


class BareStep:
    """Forward, backward and step of a family's network on tensors that lie ready: the floor of every loop."""

    def __init__(
        self,
        family: Family,
        ready: Ready,
        *,
        precision: str,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
        clip_norm: float = 0.0,
    ) -> None:
        self.network, self.ready = family.network.train(), ready
        learning = {name: one for name, one in self.network.named_parameters() if one.requires_grad}
        self.weights, self.clip_norm = list(learning.values()), clip_norm
        self.optimizer = optimizer(learning.items(), lr=1e-4)
        self.is_bf16 = precision == "bf16"

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.gradients()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.weights, self.clip_norm)
        self.optimizer.step()

    def gradients(self) -> None:
        ready, device = self.ready, self.ready.noisy_BCHW.device.type
        with torch.autocast(device, torch.bfloat16) if self.is_bf16 else nullcontext():
            predicted = self.network(ready.noisy_BCHW, ready.times_B, ready.condition)
        torch.nn.functional.mse_loss(predicted.float(), ready.target_BCHW).backward()


def steering(family: Family, batch_size: int) -> Any:
    """What the network is steered by, as the loop hands it over: labels, text states, or nothing."""
    if family.condition == "class":
        classes = len(family.facts.classes)
        return torch.eye(classes)[torch.arange(batch_size) % classes]
    if family.condition == "text":
        states_1LD = family.encode_captions([""])
        return TextCondition(states_BLD=torch.randn(batch_size, *states_1LD.shape[1:]))
    return None
