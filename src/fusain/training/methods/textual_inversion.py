"""A new word learns what it stands for; not one weight of the model changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast

import numpy as np
import torch
from pydantic import Field, field_validator

from fusain.data import chance
from fusain.data import lock as locks
from fusain.data.batch import Batch
from fusain.errors import DataError, SettingsError
from fusain.models import new_words, weights
from fusain.models.bases.stored import read_header, read_tensors
from fusain.models.family import Condition, Family
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced, basic
from fusain.training.losses import Loss, LossSettings, denoising_loss
from fusain.training.method import Method
from fusain.training.usual import BySize, Usual

FILE: Final = "learned_embeds.safetensors"
"""What diffusers looks for in a folder."""
KEYS: Final = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
"""What others call the parts of an embedding for several text encoders."""
LOADED_BY_EACH: Final = f"""\
words = load_file(hf_hub_download("{{repo}}", "{FILE}"))
pipeline.load_textual_inversion(
    words["clip_l"], token="{{token}}", text_encoder=pipeline.text_encoder, tokenizer=pipeline.tokenizer
)
pipeline.load_textual_inversion(
    words["clip_g"], token="{{token}}", text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2
)"""
LOADED_BY_HAND: Final = """\
words = load_file(hf_hub_download("{repo}", "learned_embeds.safetensors"))
parts = ["{token}", *(f"{token}_{{number}}" for number in range(1, len(words["clip_l"])))]
for key, number in (("clip_l", ""), ("clip_g", "_2")):
    tokenizer, encoder = getattr(pipeline, f"tokenizer{{number}}"), getattr(pipeline, f"text_encoder{{number}}")
    tokenizer.add_tokens(parts)
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.get_input_embeddings().weight.data[-len(parts) :] = words[key]"""
SENTENCES: Final = (
    "a photo of a {}",
    "a picture of a {}",
    "a rendering of a {}",
    "a close-up of a {}",
    "an image of one {}",
    "a bright photo of the {}",
    "a cropped photo of the {}",
    "the {}",
)
"""They say nothing of an image but that the word is in it, after Gal et al. 2022."""
NAMES_SHOWN: Final = 5


class TextualInversionSettings(Section):
    """A new word learns what it stands for; the model stays as it is."""

    kind: Literal["textual_inversion"] = "textual_inversion"
    token: str = basic("<sks>", max_length=64)
    """The new word, as captions and prompts write it: in small letters, and none that the text encoder knows."""
    vectors: int = basic(1, ge=1, le=32)
    """Tokens that the word is read as. More hold more of a subject and leave less room in a prompt; 1 to 8."""
    start_word: str = basic("*")
    """What the new word means at first: a plain word for the subject, such as "dog". Of several words each starts a
    vector if there are as many of both; else their mean starts all."""
    start: Path | None = None
    """An embedding that learns on, a `.safetensors` file, in place of `start_word`."""
    sentences: tuple[str, ...] = advanced(SENTENCES, min_length=1)
    """What images without a caption are learnt with, one of them in each draw; {} stands for the word. For a style
    they say so, as in "a picture in the style of {}"."""
    condition_dropout: float = Field(0.0, ge=0, le=1)
    """Share of images whose caption is hidden. Such an image teaches the word nothing, so 0 is usual."""
    loss: LossSettings = LossSettings()

    @field_validator("token")
    @classmethod
    def _token_is_one_word(cls, token: str) -> str:
        if not token or not token.isprintable() or len(token.split()) != 1 or token != token.strip():
            raise ValueError("it must be one word, without spaces")
        if token != token.lower():
            raise ValueError(f"text encoders read small letters only; write {token.lower()}")
        return token

    @field_validator("start_word")
    @classmethod
    def _start_word_is_given(cls, words: str) -> str:
        if not words.split():
            raise ValueError("it must be a word")
        return words

    @field_validator("sentences")
    @classmethod
    def _sentences_hold_the_word(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        for sentence in sentences:
            if "{}" not in sentence:
                raise ValueError(f"'{sentence}' holds no {{}} for the word")
        return sentences

    def silent_settings(self) -> Mapping[str, str]:
        return {} if self.start is None else {"start_word": "method.start takes its place"}


class TextualInversion(Method):
    """Gal et al. 2022, with several vectors a word."""

    kind: ClassVar[str] = "textual_inversion"
    Settings: ClassVar[type[Section]] = TextualInversionSettings
    needs: ClassVar[frozenset[Condition]] = frozenset({"text"})
    leaves_base: ClassVar[bool] = True
    usual: ClassVar[Usual] = Usual(
        rates=BySize(small=(1e-4, 5e-2), medium=(1e-4, 5e-2), large=(1e-4, 5e-2)), times=(50, 5000)
    )
    loaded_by: ClassVar[str] = 'load_textual_inversion("{repo}")'
    loaded_by_each: ClassVar[str] = LOADED_BY_EACH
    loaded_by_hand: ClassVar[str] = LOADED_BY_HAND

    def __init__(self, settings: TextualInversionSettings) -> None:
        self.settings = settings
        self.rows: dict[str, torch.nn.Parameter] = {}
        """What was learnt, vectors x width, by the name of the text encoder that reads it."""

    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        stored = self._stored(self.settings.start) if self.settings.start else None
        self._teach(family, self._fitting(family, stored) if stored is not None else self._from_words(family))
        return {f"{name}.token_embedding.rows": rows for name, rows in self.rows.items()}

    def encoders_at_work(self) -> frozenset[str]:
        return frozenset({"text_encoder"})

    def wording(self, captions: Sequence[str]) -> tuple[str, ...]:
        said = self._sentences()
        return tuple(caption or said[place % len(said)] for place, caption in enumerate(captions))

    def foreseen_in(self, names: Sequence[str], captions: Sequence[str]) -> Iterable[Notice]:
        without = [
            name for name, caption in zip(names, captions, strict=True) if self.settings.token not in caption.lower()
        ]
        facts: dict[str, Any] = {"count": f"{len(captions):,}", "token": self.settings.token}
        if len(without) == len(captions):
            raise DataError("E-TI-003", where="method.token", **facts)
        if without:
            shown = locks.some(without, NAMES_SHOWN)
            return (Notice("W-TI-001", where="method.token", without=f"{len(without):,}", names=shown, **facts),)
        return ()

    def loss(self, family: Family, batch: Batch, *, seed: int, quantiles: np.ndarray | None = None) -> Loss:
        dropout = self.settings.condition_dropout if quantiles is None else 0.0
        return denoising_loss(
            family,
            self._worded(batch, seed),
            self.settings.loss,
            seed=seed,
            condition_dropout=dropout,
            quantiles=quantiles,
        )

    def save(self, family: Family, folder: Path) -> None:
        """As diffusers' own script: the word with its vectors. With several encoders as A1111 and ComfyUI want it."""
        folder.mkdir(parents=True, exist_ok=True)
        is_one = len(self.rows) == 1
        tensors = {self.settings.token if is_one else KEYS[name]: rows for name, rows in self.rows.items()}
        weights.write(folder / FILE, {key: rows.float() for key, rows in tensors.items()})

    def attach(self, family: Family, folder: Path) -> None:
        self._teach(family, self._fitting(family, self._stored(folder / FILE)))

    def _teach(self, family: Family, starts: Mapping[str, torch.Tensor]) -> None:
        """The word is known from here on, and of the whole network only its rows may learn."""
        words = self._new_parts(family)
        family.network.requires_grad_(False)
        encoders, tokenizers = family.text_encoders(), family.tokenizers()
        self.rows = {
            name: new_words.add(tokenizers[name], encoders[name], words, rows) for name, rows in starts.items()
        }

    def _new_parts(self, family: Family) -> list[str]:
        token = self.settings.token
        tokenizers = family.tokenizers().values()

        def is_known(word: str) -> bool:
            parts = new_words.parts(word, max(2, self.settings.vectors))
            return any(new_words.is_known(tokenizer, part) for tokenizer in tokenizers for part in parts)

        if is_known(token):
            plain = token.strip("<|>") or "new"
            choices = (f"<{plain}>", *(f"<{plain}-{number}>" for number in range(1, 100)))
            nearest = [word for word in choices if not is_known(word)][:2]
            raise SettingsError("E-TI-001", where="method.token", token=token, nearest="' or '".join(nearest))
        return new_words.parts(token, self.settings.vectors)

    def _from_words(self, family: Family) -> dict[str, torch.Tensor]:
        words, vectors = self.settings.start_word.split(), self.settings.vectors
        encoders, starts = family.text_encoders(), {}
        for name, tokenizer in family.tokenizers().items():
            for word in words:
                pieces = new_words.pieces(tokenizer, word)
                if len(pieces) != 1:
                    raise SettingsError("E-TI-002", where="method.start_word", word=word, pieces=" + ".join(pieces))
            found = new_words.embeddings(tokenizer, encoders[name], words)
            starts[name] = found if len(words) == vectors else found.mean(0, keepdim=True).repeat(vectors, 1)
        return starts

    def _stored(self, path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
        path = path.expanduser()
        tensors = read_tensors(read_header(path).tensors)
        return path, {key: rows[None] if rows.ndim == 1 else rows for key, rows in tensors.items()}

    def _fitting(self, family: Family, stored: tuple[Path, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The vectors of a file by text encoder; they must be as many and as wide as they are needed."""
        path, tensors = stored
        encoders, starts = family.text_encoders(), {}
        for name, encoder in encoders.items():
            if len(encoders) > 1 and KEYS[name] not in tensors:
                shown = locks.some(sorted(tensors), NAMES_SHOWN)
                raise SettingsError("E-TI-005", where=str(path), key=KEYS[name], found=shown)
            is_one = len(tensors) == len(encoders) == 1
            rows = next(iter(tensors.values())) if is_one else tensors.get(KEYS[name], torch.empty(0, 0))
            wanted = (self.settings.vectors, cast(Any, encoder).config.hidden_size)
            if tuple(rows.shape) != wanted:
                raise SettingsError("E-TI-004", where=str(path), found=_shape(rows.shape), wanted=_shape(wanted))
            # A copy, for what is read may be a view of the file.
            starts[name] = rows.to(next(encoder.parameters()).device, torch.float32, copy=True)
        return starts

    def _worded(self, batch: Batch, seed: int) -> Batch:
        """Images without a caption get a sentence, another one in each draw."""
        assert batch.captions is not None, "a data set for text has captions"
        if all(batch.captions):
            return batch
        said = self._sentences()
        chosen = (chance.uniform(seed, batch.draws, "sentence") * len(said)).astype(np.int64).tolist()
        captions = (caption or said[number] for caption, number in zip(batch.captions, chosen, strict=True))
        return replace(batch, captions=tuple(captions))

    def _sentences(self) -> list[str]:
        return [sentence.replace("{}", self.settings.token) for sentence in self.settings.sentences]


def _shape(shape: Sequence[int]) -> str:
    vectors, width = prod(shape[:-1]), shape[-1] if shape else 0
    if not vectors:
        return "no vectors"
    return f"{vectors} vector{'s' * (vectors != 1)} of {width} numbers"
