"""What each process of a run holds, written down by itself when its run ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.runs import assembly
from fusain.training.sharding import own_part

NAME = "held-{rank}.json"
ELSEWHERE = "from pathlib import Path\nfrom tests.runs import held_parts\nheld_parts.write_down(Path({folder!r}))\n"


def write_down(folder: Path) -> None:
    """Have this process count numbers, in all and its own, of weights and of what the optimizer remembers."""
    real = assembly.finished

    @contextmanager
    def finished(trainer: Any) -> Iterator[None]:
        denoiser = trainer.parts.family.network.get_submodule(trainer.parts.family.denoiser)
        remembered = [one for state in trainer._optimizer.state.values() for one in state.values() if one.ndim]
        averaged = list(trainer.average.tensors().values()) if trainer.average else []
        kinds = {"weights": list(denoiser.parameters()), "optimizer": remembered, "average": averaged}
        rank = trainer.parts.engine.team.rank
        found = {kind: _counts(tensors) for kind, tensors in kinds.items()}
        (folder / NAME.format(rank=rank)).write_text(json.dumps(found))
        with real(trainer):
            yield

    assembly.finished = finished


def _counts(tensors: list[torch.Tensor]) -> tuple[int, int]:
    return sum(one.numel() for one in tensors), sum(own_part(one).numel() for one in tensors)


def everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process and in those that a run starts; Python runs `sitecustomize` when it starts."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "sitecustomize.py").write_text(ELSEWHERE.format(folder=str(folder)))
    monkeypatch.syspath_prepend(folder / "elsewhere")
    monkeypatch.setattr(assembly, "finished", assembly.finished)  # to be as it was afterwards
    write_down(folder)


def read(folder: Path, rank: int) -> dict[str, tuple[int, int]]:
    return {
        kind: (whole, own) for kind, (whole, own) in json.loads((folder / NAME.format(rank=rank)).read_text()).items()
    }
