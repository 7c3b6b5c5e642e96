"""The named fields that every family and method may rely on in a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from fusain.data.chance import Draws


@dataclass(frozen=True)
class Batch:
    """Some draws of the data set: B images of one shape with what is known of them.

    Shapes: pixels_BCHW float32 in [-1, 1]; labels_BK one vector of K classes an image (mixtures allowed); weights_B.
    """

    draws: Draws
    """The running number n of each draw in the run; noise, time and every other choice are functions of it."""
    items: Draws
    """Which image of the data set each draw uses."""
    pixels_BCHW: torch.Tensor
    weights_B: torch.Tensor
    labels_BK: torch.Tensor | None = None
    captions: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.draws)

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        labels = self.labels_BK.to(device, non_blocking=True) if self.labels_BK is not None else None
        return replace(
            self,
            pixels_BCHW=self.pixels_BCHW.to(device, non_blocking=True),
            weights_B=self.weights_B.to(device, non_blocking=True),
            labels_BK=labels,
        )


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 images N x H x W x C as float pixels N x C x H x W in [-1, 1]."""
    return (
        torch.from_numpy(images)
        .permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div_(127.5)
        .sub_(1.0)
    )
