"""An independent judge: a small network, trained on drawings only, that answers what an image shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

CANNOT_TELL: Final = -1
"""The answer where an image does not show it, and of a judge that is not sure."""

_BATCH: Final = 128
_JUDGE_BATCH: Final = 500
_WEIGHT_DECAY: Final = 0.02
_MOST_NOISE: Final = 0.25
_MOST_BLUR: Final = 0.5
_SMOOTHING: Final = 0.02
_SMEARS_TOLD: Final = 0.02
_LEAST_SURE: Final = 0.5
_TEMPERATURES: Final = tuple(0.5 * 1.1**step for step in range(20))

Images = npt.NDArray[np.uint8]
Answers = Mapping[str, npt.NDArray[np.int64]]
"""For each question the number of the right answer of every image, or CANNOT_TELL."""


@dataclass(frozen=True)
class Plan:
    """How a reader is built and trained; kept with its weights."""

    side: int
    questions: Mapping[str, tuple[str, ...]]
    """What is asked of an image, with the possible answers."""
    widths: tuple[int, ...]
    """Channels of each convolution; all but the first halve the resolution."""
    hidden: int
    fold: int
    """Blocks of so many pixels a side are folded into channels first: nothing is lost, and it is faster."""
    rate: float
    steps: int
    drawings: int
    seed: int = 0
    smears: float = 0.0
    """Share of smeared images in training, of which nothing can be told."""
    checked: int = 2_000
    """Drawings that it was not trained on, from which a calibrated one learns how sure it may be."""


@dataclass(frozen=True)
class Sureness:
    """What makes the answers to one question honest."""

    temperature: float = 1.0
    """Logits are divided by it, so that of answers given at 0.9 about nine in ten are right; never by less than 0.5,
    so where sharper ones would be true (10 of 16 attributes of caricatures) more are right than they say."""
    threshold: float = 0.0
    """Below it nothing is said: at most one smear in fifty is told above it."""


class ReadingNetwork(nn.Module):
    """Convolutions and a hidden layer; `hidden` gives that layer's activations."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        folded = 3 * plan.fold**2
        for number, (before, width) in enumerate(zip((folded, *plan.widths), plan.widths, strict=False)):
            layers += [nn.Conv2d(before, width, 3, stride=2 if number else 1, padding=1), nn.ReLU()]
        end = plan.side // plan.fold // 2 ** (len(plan.widths) - 1)
        fold = [nn.PixelUnshuffle(plan.fold)] if plan.fold > 1 else []
        self.convolutions = nn.Sequential(*fold, *layers, nn.Flatten())
        self.to_hidden = nn.Linear(plan.widths[-1] * end * end, plan.hidden)
        self.to_answers = nn.Linear(plan.hidden, sum(map(len, plan.questions.values())))
        self._counts = [len(answers) for answers in plan.questions.values()]

    def hidden(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.to_hidden(self.convolutions(pixels_BCHW)))

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of each question."""
        return self.to_answers(self.hidden(pixels_BCHW)).split(self._counts, dim=1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Reader:
    """A trained judge of images given as N x side x side x 3 uint8."""

    network: ReadingNetwork
    plan: Plan
    sureness: Mapping[str, Sureness] = field(default_factory=dict)

    def probabilities(self, images: Images) -> dict[str, npt.NDArray[np.float32]]:
        """For each question the probability of each answer."""
        return {
            name: (logits / self._sure(name).temperature).softmax(1).numpy()
            for name, logits in zip(self.plan.questions, self._logits(images), strict=True)
        }

    def read(self, images: Images) -> dict[str, npt.NDArray[np.int64]]:
        """For each question the number of the answer, or CANNOT_TELL."""
        return {
            name: np.where(found.max(1) >= self._sure(name).threshold, found.argmax(1), CANNOT_TELL)
            for name, found in self.probabilities(images).items()
        }

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """The activations of the hidden layer as they are: not normalised to length one."""
        with torch.inference_mode():
            parts = [self.network.hidden(pixels).numpy() for pixels in _pixel_batches(images)]
        return np.concatenate(parts) if parts else np.zeros((0, self.plan.hidden), dtype=np.float32)

    def _logits(self, images: Images) -> list[torch.Tensor]:
        with torch.inference_mode():
            parts = [self.network(pixels) for pixels in _pixel_batches(images)]
        if not parts:
            return [torch.zeros(0, len(answers)) for answers in self.plan.questions.values()]
        return [torch.cat(logits) for logits in zip(*parts, strict=True)]

    def _sure(self, name: str) -> Sureness:
        return self.sureness.get(name, Sureness())

    def save(self, path: Path) -> None:
        """One safetensors file, with how it was trained as JSON in its header."""
        facts = {
            "plan": json.dumps(asdict(self.plan)),
            "sureness": json.dumps({name: asdict(sure) for name, sure in self.sureness.items()}),
        }
        save_file({name: tensor.half() for name, tensor in self.network.state_dict().items()}, path, metadata=facts)

    @classmethod
    def load(cls, path: Path) -> Reader:
        with safe_open(path, framework="pt") as stored:
            facts = stored.metadata() or {}
            weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118 - no mapping
        written = json.loads(facts["plan"])
        questions = {name: tuple(answers) for name, answers in written.pop("questions").items()}
        plan = Plan(questions=questions, widths=tuple(written.pop("widths")), **written)
        network = _new_network(plan, torch.Generator())
        network.load_state_dict(weights)
        sureness = {name: Sureness(**sure) for name, sure in json.loads(facts["sureness"]).items()}
        return cls(network.eval(), plan, sureness)


def train(plan: Plan, images: Images, answers: Answers) -> Reader:
    """A reader trained on drawings with their answers; no global random state is touched."""
    right = {name: torch.from_numpy(answers[name]) for name in plan.questions}
    generator = torch.Generator().manual_seed(plan.seed)
    network = _new_network(plan, generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=_WEIGHT_DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps)
    smeared = round(_BATCH * plan.smears)
    for _ in range(plan.steps):
        chosen = torch.randint(len(images), (_BATCH,), generator=generator)
        pixels = to_pixels(images[chosen.numpy()])
        wanted = {name: values[chosen].clone() for name, values in right.items()}
        if smeared:
            pixels[:smeared] = smears(pixels[:smeared], generator)
        logits = network(_roughened(pixels, generator))
        loss = torch.stack([
            _loss(found, wanted[name], smeared) for name, found in zip(plan.questions, logits, strict=True)
        ]).sum()  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rates.step()
    return Reader(network.eval(), plan)


def calibrated(reader: Reader, images: Images, answers: Answers) -> Reader:
    """The reader with a temperature and a threshold for each question, from drawings that it was not trained on."""
    generator = torch.Generator().manual_seed(reader.plan.seed)
    smeared = np.concatenate([
        ((smears(pixels, generator) + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        for pixels in _pixel_batches(images)
    ])  # fmt: skip
    sureness = {}
    told, untold = reader._logits(images), reader._logits(smeared)
    for name, logits, of_smears in zip(reader.plan.questions, told, untold, strict=True):
        right = torch.from_numpy(answers[name])
        is_seen = right != CANNOT_TELL
        logits, right = logits[is_seen], right[is_seen]
        temperature = min(_TEMPERATURES, key=lambda heat: functional.cross_entropy(logits / heat, right).item())
        surest = (of_smears / temperature).softmax(1).amax(1)
        threshold = max(_LEAST_SURE, float(surest.quantile(1 - _SMEARS_TOLD)))
        sureness[name] = Sureness(temperature, threshold)
    return Reader(reader.network, reader.plan, sureness)


def smears(pixels_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a model that has learnt nothing draws: blur beyond reading, means of many images, noise."""
    count, side = len(pixels_BCHW), pixels_BCHW.shape[-1]
    shuffled = pixels_BCHW[torch.randperm(count, generator=generator)]
    mixed = sum(torch.roll(shuffled, shift, 0) for shift in range(6)) / 6
    blurred = functional.interpolate(functional.avg_pool2d(pixels_BCHW, side // 4), size=side, mode="bilinear")
    noise = torch.randn(pixels_BCHW.shape, generator=generator).clamp(-2, 2) / 2
    kind = torch.randint(3, (count, 1, 1, 1), generator=generator)
    return torch.where(kind == 0, mixed, torch.where(kind == 1, blurred, (mixed + noise).clamp(-1, 1)))


def to_pixels(images: Images) -> torch.Tensor:
    """N x H x W x 3 uint8 as pixels in [-1, 1]."""
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5
        - 1
    )


def _loss(logits: torch.Tensor, right: torch.Tensor, smeared: int) -> torch.Tensor:
    """Of seen answers the usual loss; of the first `smeared` images every answer must be as likely as the others."""
    right[:smeared] = CANNOT_TELL
    total = functional.cross_entropy(
        logits, right, ignore_index=CANNOT_TELL, label_smoothing=_SMOOTHING, reduction="sum"
    )
    total = total - logits[:smeared].log_softmax(1).mean(1).sum()
    return total / len(logits)


def _new_network(plan: Plan, generator: torch.Generator) -> ReadingNetwork:
    """Weights drawn from `generator`: what the layers draw for themselves is thrown away with the forked state."""
    with torch.random.fork_rng(devices=[]):
        network = ReadingNetwork(plan)
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


def _pixel_batches(images: Images) -> list[torch.Tensor]:
    return [to_pixels(images[start : start + _JUDGE_BATCH]) for start in range(0, len(images), _JUDGE_BATCH)]
