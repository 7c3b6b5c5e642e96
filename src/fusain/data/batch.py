"""The named fields that every family and method may rely on in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fusain.data.chance import Draws


@dataclass(frozen=True)
class Batch:
    """Some draws of the data set: B images of one shape with what is known of them.

    Shapes: pixels_BCHW float32 in [-1, 1]; labels_BK one vector of K classes an image (mixtures allowed); weights_B;
    framings_B4 int32.
    """

    draws: Draws
    """The running number n of each draw in the run; noise, time and every other choice are functions of it."""
    items: Draws
    """Which image of the data set each draw uses."""
    pixels_BCHW: torch.Tensor
    weights_B: torch.Tensor
    labels_BK: torch.Tensor | None = None
    captions: tuple[str, ...] | None = None
    """As they are learnt, with the trigger word and all else that `data.captions` says."""
    encoded_images: torch.Tensor | None = None
    """What the family's `encode_pixels` made of the images before; their pixels are left out then."""
    encoded_captions: torch.Tensor | None = None
    """What the family's `encode_captions` made of the captions before."""
    masks_B1HW: torch.Tensor | None = None
    """How much each pixel counts, where masks say which part of an image is learnt."""
    framings_B4: torch.Tensor | None = None
    """Height and width before resizing, then top and left of the crop in the resized and mirrored image."""

    def __len__(self) -> int:
        return len(self.draws)

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)


def joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one shape and with the same fields as one."""
    if len(parts) == 1:
        return parts[0]
    return Batch(**{name: _joined([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return None if values[0] is None else tuple(one for value in values for one in value)


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 images N x H x W x C as float pixels N x C x H x W in [-1, 1]."""
    return (
        torch.from_numpy(images)
        .permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div_(127.5)
        .sub_(1.0)
    )


def to_images(pixels_BCHW: torch.Tensor) -> np.ndarray:
    """The opposite: pixels in [-1, 1] as uint8 images N x H x W x C."""
    return pixels_BCHW.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
