"""The processes that train one run together: the part of each batch that one takes, and how they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch

from fusain.data.batch import Batch
from fusain.training.stopping import Reason

T = TypeVar("T")

PATIENCE: Final = timedelta(days=30)
"""One process may draw or encode for hours while the others wait; one that dies is noticed without a clock."""


@dataclass(frozen=True)
class Team:
    """One of the processes of a run; the first alone writes files, draws and measures. Most runs have no other."""

    rank: int = 0
    size: int = 1
    store: Any = None
    """Where processes tell each other what is no matter of a step."""
    aside: list[dict[str, Any]] = field(default_factory=list)
    """What a process that is not the first has to say of its images, until the first has written it down."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def meet(self, device: str) -> None:
        """Connect with the others; all must come."""
        from torch import distributed

        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("group", self.store),  # type: ignore[attr-defined]
            rank=self.rank,
            world_size=self.size,
            timeout=PATIENCE,
        )

    def share(self, count: int) -> slice:
        """Its part of a batch of so many images."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def weight(self, own: int, count: int) -> float:
        """How much the mean over its part counts, so that the mean over all processes is that over the batch."""
        return own * self.size / count

    def gathered(self, own: T) -> list[T]:
        """What each process has, in their order."""
        if self.size == 1:
            return [own]
        from torch import distributed

        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, own)
        return found

    def everyones(self, own: list[Batch]) -> list[Batch]:
        """Which images all processes have, without the images themselves."""
        if self.size == 1:
            return own
        nothing = torch.zeros(0)
        named = self.gathered([Batch(batch.draws, batch.items, nothing, nothing) for batch in own])
        return [batch for part in named for batch in part]

    def rows(self, own: torch.Tensor) -> torch.Tensor:
        """Rows of all processes, one for each image of the batch."""
        return own if self.size == 1 else torch.cat(self.gathered(own.cpu()))

    def mean(self, own: float) -> float:
        return sum(self.gathered(own)) / self.size

    def firsts(self, make: Callable[[], T]) -> T:
        """What the first process makes; the others wait for it."""
        if self.size == 1:
            return make()
        from torch import distributed

        found: list[Any] = [make() if self.is_first else None]
        distributed.broadcast_object_list(found, src=0)
        made: T = found[0]
        return made

    def agreed(self, own: Reason | None, report: Callable[..., None]) -> Reason | None:
        """Whether one of the processes was asked to stop; on the way the first hears the warnings of the others."""
        if self.size == 1:
            return own
        told = self.gathered((own, list(self.aside)))
        self.aside.clear()
        if self.is_first:
            for warning in (one for _, aside in told for one in aside):
                report("warning", **warning)
        return next((reason for reason, _ in told if reason), None)
