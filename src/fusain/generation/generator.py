"""From a loaded family, labels and seeds to a stream of images with their facts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusain.errors import UsageError
from fusain.generation.samplers import SamplerSettings, make_scheduler
from fusain.models.family import DrawRequest, Family, Framing, at_rest

LARGEST_SEED = 2**32 - 1  # torch's generator on the CPU reads 32 bits of a seed; larger ones would repeat images


@dataclass(frozen=True)
class Wanted:
    """One image to draw."""

    seed: int
    label: Mapping[str, float] | None = None
    """Classes with their shares; None leaves the class open."""
    prompt: str | None = None
    negative: str = ""
    """What the image is drawn away from."""
    size: tuple[int, int] | None = None
    """Height and width; None is the family's own size."""
    framing: Framing | None = None
    """What it is to look as if it had been, for families that are told so: small once, or a part of a larger one."""

    @property
    def title(self) -> str:
        if self.prompt is not None:
            return self.prompt
        if not self.label:
            return ""
        return ",".join(name if share == 1 else f"{name}={share:g}" for name, share in self.label.items())


@dataclass(frozen=True)
class Drawn:
    """One image that was drawn, with what it was drawn from."""

    wanted: Wanted
    pixels: np.ndarray
    """uint8, H x W x 3."""


def parse_label(text: str, classes: Sequence[str]) -> dict[str, float]:
    """`spell`, or a mixture such as `spell=0.6,food=0.4`."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        if name not in classes:
            raise UsageError("E-GEN-001", where="--label", name=name, classes=", ".join(classes) or "none")
        try:
            shares[name] = float(share) if share else 1.0
        except ValueError:
            raise UsageError("E-GEN-002", where="--label", share=share, name=name) from None
    return shares


def vector(label: Mapping[str, float] | None, classes: Sequence[str]) -> list[float]:
    """The class vector that a family reads; zeros mean no class."""
    return [float((label or {}).get(name, 0.0)) for name in classes]


def generate(family: Family, wanted: Sequence[Wanted], settings: SamplerSettings, *, chunk: int) -> Iterator[Drawn]:
    """Draw every wanted image, `chunk` at a time. Neither training nor torch's own generator is disturbed."""
    for image in wanted:
        if not 0 <= image.seed <= LARGEST_SEED:
            raise UsageError("E-GEN-003", where="--seed", seed=image.seed, largest=LARGEST_SEED)
    for _, of_one_size in itertools.groupby(wanted, key=lambda image: (image.size, image.framing)):
        rows = list(of_one_size)
        for part in (rows[start : start + chunk] for start in range(0, len(rows), chunk)):
            for image, drawn in zip(part, _draw(family, part, settings), strict=True):
                yield Drawn(image, drawn)


def _draw(family: Family, part: Sequence[Wanted], settings: SamplerSettings) -> np.ndarray:
    classes, is_text = family.facts.classes, family.condition == "text"
    labels = torch.tensor([vector(image.label, classes) for image in part]) if family.condition == "class" else None
    request = DrawRequest(
        scheduler=make_scheduler(settings, family.schedule),
        generators=[torch.Generator().manual_seed(image.seed) for image in part],
        steps=settings.steps,
        eta=settings.eta,
        guidance=settings.guidance,
        labels_BK=labels,
        framing=part[0].framing,
        prompts=[image.prompt or "" for image in part] if is_text else None,
        negatives=[image.negative for image in part] if is_text else None,
        size=part[0].size,
    )
    with at_rest(family.network):
        images = family.draw(request)
    return images.permute(0, 2, 3, 1).mul(255).round().to(torch.uint8).numpy()
