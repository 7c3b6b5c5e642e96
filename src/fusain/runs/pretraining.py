"""Makes a miniature base from nothing: drawings, words, fresh weights, autoencoder, UNet, judgement, card.

Every part that is done is found again, and a training that was stopped goes on: the same call resumes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fusain.data.batch import to_images, to_pixels
from fusain.generation import gallery
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models import bases, new_words, text
from fusain.models.bases import fresh
from fusain.models.family import Facts, Family
from fusain.runs import actions, miniature_card
from fusain.runs.miniature_card import Held, Quality
from fusain.runs.settings import FAMILIES
from fusain.settings.notice import Notice
from fusain.training.events import Listener
from fusain.training.stopping import Reason
from fusain.worlds import face_reader
from fusain.worlds.caricatures import STYLES, TAUGHT_STYLES, Caricatures, face_box, world, write_folder
from fusain.worlds.mini import framings, vocabulary, words
from fusain.worlds.mini.miniature import Bars, Miniature
from fusain.worlds.reader import Reader

CHUNK = 20
FOUR = 4


@dataclass(frozen=True)
class Pretrained:
    """A miniature's folder and quality; neither where a training was stopped before its end."""

    folder: Path | None
    quality: Quality | None
    bars: Bars
    stopped: Reason | None = None

    @property
    def held(self) -> dict[str, Held]:
        """What was measured against the bars, by their names."""
        return {} if self.quality is None else self.quality.held_against(self.bars)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """A word on what fell short."""
        missed = [one for one in self.held.values() if not one.is_reached]
        if not missed:
            return ()
        listed = "; ".join(f"{one.what} {one.measured}, asked {one.asked}" for one in missed)
        return (Notice("W-WORLD-001", where=str(self.folder), count=len(missed), total=len(self.held), listed=listed),)

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.quality is None:
            yield "Stopped; the same command goes on."
            return
        yield from (f"{name:<20} {share:.3f}" for name, share in self.quality.attributes.items())
        for one in self.held.values():
            yield f"{one.what:<20} {one.measured:<10} asked: {one.asked}" + ("" if one.is_reached else " (fell short)")
        yield str(self.folder)

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder) if self.folder else None,
            "quality": None if self.quality is None else {**asdict(self.quality), "mean": self.quality.mean},
            "bars": {
                name: {"asked": one.bar, "measured": one.value, "reached": one.is_reached}
                for name, one in self.held.items()
            },
            "stopped": self.stopped,
            "notices": [notice.as_json() for notice in self.notices],
        }


def pretrain(miniature: Miniature, folder: Path, *, report: Listener | None = None) -> Pretrained:
    """Make a miniature in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"runs_folder": str(folder), "weights_folder": "none", "train.seed": str(miniature.seed)}
    taught = _once(folder / "taught", lambda path: _taught(miniature, path))
    start = _once(folder / "fresh", lambda path: _fresh(miniature, path))
    done: list[actions.TrainResult] = []

    def train(name: str, settings: Path, base: Path, data: Path, changes: Mapping[str, str]) -> actions.TrainResult:
        own = {**shared, **changes, "family.base": str(base), "data.path": str(data)}
        return actions.train(settings, name=name, overrides=list(own.items()), report=report)

    if miniature.autoencoder is not None:
        every_style = _once(folder / "every-style", lambda path: write_folder(_drawings(miniature, STYLES), path))
        done.append(train("autoencoder", miniature.autoencoder, start, every_style, {}))
        if done[-1].stopped:
            return Pretrained(None, None, miniature.bars, done[-1].stopped)
        start = done[-1].folder / "weights"
    start = _once(folder / "started", lambda path: _with_words(miniature, start, path))
    changes = _of_family(miniature) | miniature.changes
    for name, settings in miniature.text_to_image.items():
        done.append(train(name, settings, start, taught, changes))
        if done[-1].stopped:
            return Pretrained(None, None, miniature.bars, done[-1].stopped)
        start = done[-1].folder / "weights"
    base = _once(folder / miniature.name, lambda path: _packed(start, path))
    if miniature.sizes.second is not None:
        framings_sheet(miniature, base).save(folder / "framings.png")
    quality = measure(miniature, base, _judge(miniature, folder / "judge.safetensors"))
    card = miniature_card.write(miniature, quality, base, trainings=[one.folder for one in done])
    (base / "README.md").write_text(card, encoding="utf-8")
    return Pretrained(base, quality, miniature.bars)


def _of_family(miniature: Miniature) -> dict[str, str]:
    return {
        "family.kind": miniature.kind,
        "family.size": str(miniature.sizes.image),
        "family.prediction": "v",  # at the noisiest times too there is something to learn
    }


def measure(miniature: Miniature, weights: Path, judge: Reader) -> Quality:
    """The quality of a miniature's weights."""
    family = _family(miniature, weights)
    unseen = world(miniature.judged, seed=miniature.seed + 1, styles=STYLES)
    given_back = _given_back(family, unseen.images)
    right = face_reader.answers(unseen.faces)
    read = [face_reader.accuracy(judge.read(images), right) for images in (unseen.images, given_back)]
    attributes, seconds = _drawn(miniature, family, judge)
    return Quality(
        face_psnr=_face_psnr(unseen, given_back),
        reading_lost=float(np.mean(list(read[0].values())) - np.mean(list(read[1].values()))),
        attributes=attributes,
        seconds_for_four=seconds,
    )


def _drawn(miniature: Miniature, family: Family, judge: Reader) -> tuple[dict[str, float], float]:
    """How pictures of combinations that were never trained together are read, and how many seconds four take."""
    asked = world(miniature.judged, seed=miniature.seed + 2, combinations="kept out")
    wanted = [Wanted(seed, prompt=caption) for seed, caption in enumerate(asked.captions)]
    sampler = SamplerSettings(steps=miniature.steps, guidance=miniature.guidance)
    started = time.perf_counter()
    list(generate(family, wanted[:FOUR], sampler, chunk=FOUR))
    seconds = time.perf_counter() - started
    pictures = np.stack([one.pixels for one in generate(family, wanted, sampler, chunk=CHUNK)])
    return face_reader.accuracy(judge.read(pictures), face_reader.told(asked.faces)), seconds


def _given_back(family: Family, images: np.ndarray) -> np.ndarray:
    autoencoder: Any = family.autoencoder
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), CHUNK):
            latents = autoencoder.encode(to_pixels(images[start : start + CHUNK])).latent_dist.mode()
            parts.append(to_images(autoencoder.decode(latents).sample.clamp(-1, 1)))
    return np.concatenate(parts)


def _face_psnr(drawn: Caricatures, given_back: np.ndarray) -> float:
    errors = [
        np.square(original[face_box(face)].astype(np.float64) - picture[face_box(face)])
        for face, original, picture in zip(drawn.faces, drawn.images, given_back, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.mean([error.mean() for error in errors])))


def _drawings(miniature: Miniature, styles: Sequence[str] = TAUGHT_STYLES) -> Caricatures:
    return world(miniature.drawings, seed=miniature.seed, styles=styles)


def _taught(miniature: Miniature, folder: Path) -> None:
    """What the UNet learns from; of one that is told of sizes and crops, some drawings are small or long."""
    write_folder(_drawings(miniature), folder)
    if miniature.sizes.second is not None:
        framings.vary(folder)


def _fresh(miniature: Miniature, folder: Path) -> None:
    if not miniature.shared:
        drawn = _drawings(miniature)
        tokenizer = vocabulary.tokenizer([*drawn.captions, *drawn.french])
        fresh.write(miniature.sizes, folder, tokenizer, seed=miniature.seed)
        return
    base = bases.open_base(miniature.shared)
    shared = {name: bases.build(base.components[name]) for name in ("vae", "text_encoder")}
    fresh.write(miniature.sizes, folder, bases.load_tokenizer(base), seed=miniature.seed, shared=shared)


def _with_words(miniature: Miniature, weights: Path, folder: Path) -> None:
    """The weights, with a last text encoder that knows what captions say."""
    family, drawn = _family(miniature, weights), _drawings(miniature)
    name, encoder = list(family.text_encoders().items())[-1]
    tokenizer = family.tokenizers()[name]
    tokens_NL = text.tokens(tokenizer, drawn.captions, windows=1)[:, 0]
    words.teach(encoder, tokens_NL, drawn.faces, tokenizer.eos_token_id, miniature.lesson)
    rare = tokenizer.convert_tokens_to_ids([word + new_words.END_OF_WORD for word in vocabulary.RARE_WORDS])
    words.make_audible(encoder, rare, tokens_NL)
    family.save(folder)


def framings_sheet(miniature: Miniature, weights: Path) -> Image.Image:
    """One face of one seed as if it had been small once, or a part of a wide or tall drawing."""
    family = _family(miniature, weights)
    (prompt,) = world(1, seed=miniature.seed).captions
    sampler = SamplerSettings(steps=miniature.steps, guidance=miniature.guidance)
    rows = {
        title: [image.pixels for image in generate(family, wanted, sampler, chunk=CHUNK)]
        for title, wanted in (
            (title, [Wanted(0, prompt=prompt, framing=framing) for framing in told])
            for title, told in framings.shown(miniature.sizes.image).items()
        )
    }
    return gallery.contact_sheet(rows, columns=max(len(row) for row in rows.values()))


def _family(miniature: Miniature, weights: Path) -> Family:
    kind = FAMILIES[miniature.kind]
    return kind(kind.Settings.model_validate({"base": str(weights), "size": miniature.sizes.image}), Facts())


def _packed(weights: Path, folder: Path) -> None:
    """What is shipped: the UNet in half precision, which is loaded in full again; all else is small."""
    shutil.copytree(weights, folder, ignore=shutil.ignore_patterns("fusain.json", "README.md"))
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(unet).items()}, unet, metadata={"format": "pt"})


def _judge(miniature: Miniature, path: Path) -> Reader:
    if miniature.judge == face_reader.plan():
        return face_reader.carried()
    if not path.exists():
        face_reader.train_reader(miniature.judge).save(path)
    return Reader.load(path)


def _once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, made whole or not at all."""
    if not folder.exists():
        waiting = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(waiting, ignore_errors=True)
        make(waiting)
        waiting.rename(folder)
    return folder
