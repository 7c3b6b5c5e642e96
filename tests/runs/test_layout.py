"""Channels last: it reaches weights and images, learns the same, leaves no trace in what is saved, and resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.models.family import Facts
from fusain.runs import actions, assembly
from fusain.runs.settings import FAMILIES, RunSettings
from fusain.settings.read import resolve
from fusain.worlds.caricatures import portraits, write_folder
from tests.runs.faults import SHORT, refused, replaced
from tests.runs.test_compile import BASES, assert_saved_alike
from tests.runs.test_recipes_on_the_miniature import SMALL
from tests.runs.training import assert_equal_runs, losses, train_here

ON: dict[str, Any] = {"engine.channels_last": "on"}
NO_DROPOUT = {"family.dropout": 0.0, "family.class_dropout": 0.0}
"""It is dealt out in the order of the memory, and so drops others."""


class Watch:
    """Whether what the convolutions that learn see has its channels last, of what could lie otherwise."""

    def __init__(self) -> None:
        self.images, self.weights, self.real = list[bool](), list[bool](), torch.nn.functional.conv2d

    def __call__(self, given: torch.Tensor, weight: torch.Tensor, *more: Any) -> torch.Tensor:
        for seen, found in ((given, self.images), (weight, self.weights)):
            if torch.is_grad_enabled() and min(seen.shape[1], seen.shape[2]) > 1:
                found.append(seen.is_contiguous(memory_format=torch.channels_last))
        return self.real(given, weight, *more)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_it_reaches_the_network_and_learns_the_same(kind: str, tmp_path: Path) -> None:
    """With gradient checkpointing, an average and the text encoder."""
    write_folder(portraits("Ada", 4), tmp_path / "images")
    BASES[kind](tmp_path / "base")
    own = {"family.kind": kind, "family.base": str(tmp_path / "base"), "family.size": "32", "train.ema_decay": "0.5"}
    own |= {"data.path": str(tmp_path / "images"), "runs_folder": str(tmp_path), "train.steps": "4"}
    own |= {"engine.gradient_checkpointing": "true", "method.text_encoder": "true", "checkpoint.every_steps": "4"}
    seen = {}
    for name, changes in (("plain", {}), ("turned", ON)):
        seen[name] = Watch()
        with replaced(torch.nn.functional, "conv2d", seen[name]):
            actions.train("text-to-image", name=name, overrides=list((SMALL | own | changes).items()))
    assert all(seen["turned"].weights)
    assert seen["turned"].images[0], "as it comes into the network; attention turns it in between"
    assert not any(seen["plain"].weights + seen["plain"].images)
    assert len(seen["turned"].weights) == len(seen["plain"].weights) > 20
    assert losses(tmp_path / "turned") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert_saved_alike(tmp_path / "plain", tmp_path / "turned")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_same_bits(settings: Path, runs: Path, optimizer: str) -> None:
    """What an optimizer remembers comes back as the weights lie, or one in one kernel would take numbers for others."""
    changes = SHORT | ON | NO_DROPOUT | {"train.optimizer": optimizer}
    train_here(settings, "whole", runs, changes)
    train_here(settings, "run", runs, changes | {"train.steps": 8})
    train_here(settings, "run", runs, changes)
    assert_equal_runs(runs / "whole", runs / "run")
    train_here(settings, "plain", runs, changes | {"engine.channels_last": "off"})
    assert losses(runs / "run") == pytest.approx(losses(runs / "plain"), rel=1e-3)


def test_another_layout_needs_the_users_word(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT | ON | {"train.steps": 8})
    fault = refused(settings, runs, {"engine.channels_last": "off"})
    assert (fault.code, "engine.channels_last: on -> off" in str(fault)) == ("E-RESUME-003", True)


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_say_whether_they_convolve(kind: str, tmp_path: Path) -> None:
    family_of = FAMILIES[kind]
    settings = family_of.tiny(family_of.conditions()[0], tmp_path / "base")
    family = family_of(settings, Facts(("a", "b")))
    layers = family.network.get_submodule(family.denoiser).modules()
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    assert (len(convolutions) > 1) is family_of.convolves, "one alone cuts an image into patches"


def chosen(engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str, method: str = "full") -> str:
    """What `auto` means, where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    values = {"family.kind": kind, "method.kind": method, "data.path": "x", "train.steps": 1} | {
        f"engine.{name}": value for name, value in engine.items()
    }
    text = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    settings = resolve(RunSettings, text=text + "\nengine.precision = 'fp32'\n").settings
    return str(assembly.resolved_engine(settings).engine.channels_last)


def test_auto_is_for_convolutions_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = {"channels_last": "auto"}
    assert chosen(auto, monkeypatch, "sd") == chosen(auto, monkeypatch, "pixel") == "on"
    assert chosen(auto, monkeypatch, "sd3") == "off"
    assert chosen(auto, monkeypatch, "sd", "autoencoder") == "off"
    assert chosen(auto | {"device": "cpu"}, monkeypatch, "sd") == "off"
    assert chosen({}, monkeypatch, "sd") == "off"


def test_it_is_said_where_it_has_no_effect() -> None:
    text = "data.path = 'x'\ntrain.steps = 1\nengine.channels_last = 'on'\n"

    def told(more: str) -> list[str]:
        notices = resolve(RunSettings, text=text + more).notices
        return [notice.message.what for notice in notices if "channels_last" in str(notice)]

    nowhere = "'engine.channels_last' has no effect in this run: "
    assert told("family.kind = 'sd3'") == [f"{nowhere}this model is no network of convolutions."]
    assert told("family.kind = 'sd'\nmethod.kind = 'autoencoder'") == [
        f"{nowhere}the denoiser, which it is for, does not learn."
    ]
    assert told("family.kind = 'sd'") == []
