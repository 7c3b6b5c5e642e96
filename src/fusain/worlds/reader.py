"""An independent judge: a small network, trained on drawn sprites only, that says which class a sprite shows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from fusain.worlds.sprites import CLASSES, world

FEATURES: Final = 96

# Far from the seeds that people give their worlds, so that the judge has not seen what it judges.
_FIRST_DRAWING_SEED: Final = 7_000_000
_BATCH: Final = 128
_JUDGE_BATCH: Final = 1_000
_TOP_RATE: Final = 4e-3
_WEIGHT_DECAY: Final = 0.02
_MOST_NOISE: Final = 0.25
_MOST_BLUR: Final = 0.5
_SMOOTHING: Final = 0.02


class ReadingNetwork(nn.Module):
    """Three convolutions and a hidden layer; `hidden` gives that layer's activations."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 96, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.to_hidden = nn.Linear(96 * 4 * 4, FEATURES)
        self.to_classes = nn.Linear(FEATURES, len(CLASSES))

    def hidden(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.to_hidden(self.convolutions(pixels_BCHW)))

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.to_classes(self.hidden(pixels_BCHW))
        return logits


@dataclass(frozen=True)
class Training:
    """How a reader was trained, kept with its weights."""

    seed: int
    images_per_class: int
    steps: int
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Reader:
    """A trained judge of sprites given as N x 16 x 16 x 3 uint8."""

    network: ReadingNetwork
    training: Training

    def classify(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The probability of each class, N x 5."""
        with torch.inference_mode():
            parts = [self.network(pixels).softmax(1).numpy() for pixels in _pixel_batches(images_uint8)]
        return np.concatenate(parts) if parts else np.zeros((0, len(CLASSES)), dtype=np.float32)

    def features(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The activations of the last hidden layer, N x 96, as they are: not normalised to length one."""
        with torch.inference_mode():
            parts = [self.network.hidden(pixels).numpy() for pixels in _pixel_batches(images_uint8)]
        return np.concatenate(parts) if parts else np.zeros((0, FEATURES), dtype=np.float32)

    def save(self, path: Path) -> None:
        """One safetensors file, with how it was trained as JSON in its header."""
        save_file(self.network.state_dict(), path, metadata={"training": json.dumps(asdict(self.training))})

    @classmethod
    def load(cls, path: Path) -> Reader:
        with safe_open(path, framework="pt") as stored:
            written = json.loads((stored.metadata() or {})["training"])
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        if tuple(written.pop("classes")) != CLASSES:
            raise ValueError(f"{path} was trained on other classes than {', '.join(CLASSES)}")
        network = _new_network(torch.Generator())
        network.load_state_dict(weights)
        return cls(network.eval(), Training(**written))


def train_reader(seed: int = 0, images_per_class: int = 2000, steps: int = 400) -> Reader:
    """A reader trained on `images_per_class` drawings of each class; no global random state is touched."""
    drawn = world(images_per_class * len(CLASSES), seed=_FIRST_DRAWING_SEED + seed, balanced=True)
    pixels, labels = _to_pixels(drawn.images), torch.from_numpy(drawn.labels)
    generator = torch.Generator().manual_seed(seed)
    network = _new_network(generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_TOP_RATE, weight_decay=_WEIGHT_DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, _TOP_RATE, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (_BATCH,), generator=generator)
        logits = network(_roughened(pixels[chosen], generator))
        loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=_SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rates.step()
    return Reader(network.eval(), Training(seed, images_per_class, steps))


def _new_network(generator: torch.Generator) -> ReadingNetwork:
    """Weights drawn from `generator`: what the layers draw for themselves is thrown away with the forked state."""
    with torch.random.fork_rng(devices=[]):
        network = ReadingNetwork()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)
    return network


def _roughened(pixels_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some blur and noise, of another strength for each image, since generated images are never as crisp as drawn ones.

    The strengths are squared so that most images stay nearly clean.
    """
    blur, noise = (torch.rand(2, len(pixels_BCHW), 1, 1, 1, generator=generator) ** 2).unbind()
    padded = functional.pad(pixels_BCHW, (1, 1, 1, 1), value=1.0)
    pixels_BCHW = torch.lerp(pixels_BCHW, functional.avg_pool2d(padded, 3, stride=1), _MOST_BLUR * blur)
    return pixels_BCHW + _MOST_NOISE * noise * torch.randn(pixels_BCHW.shape, generator=generator)


def _to_pixels(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5
        - 1
    )


def _pixel_batches(images: npt.NDArray[np.uint8]) -> list[torch.Tensor]:
    return [_to_pixels(images[start : start + _JUDGE_BATCH]) for start in range(0, len(images), _JUDGE_BATCH)]
