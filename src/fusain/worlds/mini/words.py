"""The first training of a miniature's text encoder, as CLIP's came before Stable Diffusion: what a caption says.

From the state of a caption's end alone it must be told which attributes are spoken of, and how. Learnt from the loss of
pictures alone, small features would take many times as long: neither encoder nor UNet learns before the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from fusain.models import text
from fusain.training.muon import Muon
from fusain.worlds.caricatures import ATTRIBUTES, Face, spoken

UNSAID: Final = 0
_WARM_UP: Final = 30
_LONGEST_GRADIENT: Final = 1.0
_AT_ONCE: Final = 500


@dataclass(frozen=True)
class Lesson:
    """How long and how fast."""

    steps: int = 500
    captions: int = 64
    """A step."""
    rate: float = 5e-3
    seed: int = 0


class Understanding(torch.nn.Module):
    """A text encoder, and of the mean of its states from a caption's end on a guess for each attribute.

    Of an encoder with a projection the last states but one are read, as XL reads them, and its pooled text beside.
    """

    def __init__(self, encoder: torch.nn.Module, end: int) -> None:
        super().__init__()
        self.encoder, self.end = encoder, end
        self.counts = [1 + len(values) for values in ATTRIBUTES.values()]
        config: Any = encoder.config
        self.to_answers = torch.nn.Linear(config.hidden_size, sum(self.counts))
        self.pooled_to_answers: torch.nn.Linear | None = None
        if hasattr(encoder, "text_projection"):
            self.pooled_to_answers = torch.nn.Linear(config.projection_dim, sum(self.counts))

    def forward(self, tokens_BL: torch.Tensor) -> list[Sequence[torch.Tensor]]:
        """All guesses, of each thing that is read."""
        is_end_BL1 = (tokens_BL == self.end).unsqueeze(-1)
        if self.pooled_to_answers is None:
            return [self._guesses(self.to_answers, _mean(self.encoder(tokens_BL)[0], is_end_BL1))]
        states_BLD, pooled_BP = text.states_and_pooled(self.encoder, tokens_BL[:, None], clip_skip=0)
        mean_BD = _mean(states_BLD, is_end_BL1)
        return [self._guesses(self.to_answers, mean_BD), self._guesses(self.pooled_to_answers, pooled_BP)]

    def _guesses(self, to_answers: torch.nn.Module, read: torch.Tensor) -> Sequence[torch.Tensor]:
        found: torch.Tensor = to_answers(read)
        return found.split(self.counts, dim=1)  # type: ignore[no-any-return, no-untyped-call]


def _mean(states_BLD: torch.Tensor, is_end_BL1: torch.Tensor) -> torch.Tensor:
    return (states_BLD * is_end_BL1).sum(1) / is_end_BL1.sum(1)


def teach(encoder: torch.nn.Module, tokens_NL: torch.Tensor, faces: Sequence[Face], end: int, lesson: Lesson) -> None:
    """Train the encoder on the captions of faces; no global random state is touched."""
    right_NA = answers(faces)
    generator = torch.Generator().manual_seed(lesson.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lesson.seed)
        network = Understanding(encoder, end)
    network.requires_grad_(True).train()
    parameters: Mapping[str, Any] = dict(network.named_parameters())
    optimizer = Muon(parameters, lesson.rate)
    for step in range(lesson.steps):
        for group in optimizer.param_groups:
            group["lr"] = lesson.rate * min(1.0, (step + 1) / _WARM_UP, 2 * (1 - step / lesson.steps))
        chosen = torch.randint(len(tokens_NL), (lesson.captions,), generator=generator)
        found = network(tokens_NL[chosen])
        loss = torch.stack([
            functional.cross_entropy(logits, right)
            for guesses in found
            for logits, right in zip(guesses, right_NA[chosen].T, strict=True)
        ]).sum()  # fmt: skip
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LONGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    encoder.requires_grad_(False).eval()


@torch.no_grad()
def make_audible(encoder: Any, rare: Sequence[int], tokens_NL: torch.Tensor) -> None:
    """Make embeddings of rare words as long as those of the words of captions.

    Fresh ones are a fifth as long: a rare word that is to name somebody would hardly be heard. All else that no caption
    holds stays so, for what people write beside the words that are known should do no harm.
    """
    table = encoder.get_input_embeddings().weight
    lengths = table.norm(dim=1, keepdim=True)
    table[rare] *= lengths[torch.unique(tokens_NL)].median() / lengths[rare]


def answers(faces: Sequence[Face]) -> torch.Tensor:
    """For each face and attribute what its caption says: UNSAID, or one more than the number of the value."""
    rows = []
    for face in faces:
        said = spoken(face, face.seed)
        rows.append([
            1 + values.index(face.attributes[name]) if name in said else UNSAID for name, values in ATTRIBUTES.items()
        ])  # fmt: skip
    return torch.tensor(rows)
