"""Encodes images and captions once, ahead of a training, where no step would encode them otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusain.data import index_cache, stored
from fusain.data.batch import Batch
from fusain.data.columns import Dataset
from fusain.data.encoded import IMAGES_AT_ONCE, EncodedCaptions, EncodedImages, few
from fusain.data.shapes import Shape
from fusain.data.stored import Stored
from fusain.models.family import Family, at_rest
from fusain.settings.notice import Notice
from fusain.training.method import Method

PROGRESS_EVERY = 64
ENCODERS = {"images": "autoencoder", "captions": "text_encoder"}
"""What encodes each part of the data."""


def ahead(family: Family, method: Method, dataset: Dataset, *, report: Callable[..., Any]) -> None:
    """Store what can be stored, hand it to the data set, and let the encoders rest whose work is done."""
    if not _may_store(family, method, dataset):
        return
    reasons = dict(_hindrances(method, dataset))
    for part, reason in reasons.items():
        notice = Notice("W-DATA-012", part=part, reason=reason)
        report("warning", code=notice.code, text=str(notice))
    with torch.no_grad(), at_rest(family.network):
        # One after the other, for encoding large images wants the room that text encoders took.
        if "captions" not in reasons:
            if dataset.captions is not None:
                dataset.encoded_captions = _captions(family, dataset, report)
            family.rest({ENCODERS["captions"]})
        if "images" not in reasons:
            dataset.encoded_images = _images(family, dataset, report)
            family.rest({ENCODERS["images"]})


def as_stored(family: Family, method: Method, dataset: Dataset, some: Iterator[Batch]) -> Iterator[Batch]:
    """A few batches as they will be handed over once everything is stored, for whoever measures a step before that."""
    if not _may_store(family, method, dataset):
        return some
    batches, parts = list(some), ENCODERS.keys() - dict(_hindrances(method, dataset)).keys()
    with torch.no_grad(), at_rest(family.network):
        if "images" in parts:
            batches = [replace(one, encoded_images=_encoded(family, one.pixels_BCHW)) for one in batches]
        if "captions" in parts:
            batches = [replace(one, encoded_captions=family.encode_captions(one.captions or ())) for one in batches]
    family.rest({ENCODERS[part] for part in parts})
    return iter(batches)


def _encoded(family: Family, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """As many at once as where they are stored, for more would take memory that no training takes."""
    at_once = few(IMAGES_AT_ONCE, pixels_BCHW.shape[2] * pixels_BCHW.shape[3])
    return torch.cat([family.encode_pixels(part) for part in torch.split(pixels_BCHW, at_once)])


def size(family: Family, method: Method, dataset: Dataset) -> int:
    """Bytes that all of a data set takes once it is stored, from shapes: the family may be without weights."""
    if not _may_store(family, method, dataset):
        return 0
    parts, count = ENCODERS.keys() - dict(_hindrances(method, dataset)).keys(), 0
    rows, device = _rows(dataset), family.device
    with torch.no_grad():
        if "images" in parts:
            for (height, width), images in Counter(map(tuple, dataset.shapes[rows].tolist())).items():
                pixels = torch.zeros(1, 3, height, width, device=device)
                forms = 2 if dataset.settings.flip else 1
                count += images * forms * stored.bytes_of(family.encode_pixels(pixels).shape[1:])
        if "captions" in parts:
            count += len(set(dataset.said(rows) or ())) * stored.bytes_of(family.encode_captions([""]).shape[1:])
    return count


def _rows(dataset: Dataset) -> Any:
    return np.concatenate([dataset.train, dataset.held_out])


def _may_store(family: Family, method: Method, dataset: Dataset) -> bool:
    """A method that does not read the condition works on the pixels themselves; of a stream nothing is kept."""
    is_wanted = dataset.settings.cache != "none" and dataset.stream is None
    return family.autoencoder is not None and method.reads_condition and is_wanted


def _hindrances(method: Method, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """What cannot be stored, and why."""
    at_work = method.encoders_at_work()
    if "autoencoder" in at_work:
        yield "images", "the autoencoder learns"
    elif dataset.settings.crop == "random":
        yield "images", 'every draw is cropped anew (data.crop = "random")'
    if "text_encoder" in at_work:
        yield "captions", "the text encoder learns"
    elif dataset.settings.captions.shuffle_tokens:
        yield "captions", "every draw shuffles its caption (data.captions.shuffle_tokens)"


def _images(family: Family, dataset: Dataset, report: Callable[..., Any]) -> EncodedImages:
    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return family.encode_pixels(pixels.to(family.device))

    identity = {"base": family.encoder_id("autoencoder")}

    def open_store(shape: Shape) -> Stored:
        example = encode(torch.zeros(1, 3, shape.height, shape.width))
        return Stored(_folder(identity), tuple(example.shape[1:]))

    images = EncodedImages(dataset, identity, open_store)
    images.fill(_rows(dataset), encode, _progress(report, "images"))
    return images


def _captions(family: Family, dataset: Dataset, report: Callable[..., Any]) -> EncodedCaptions:
    captions = list(dict.fromkeys(dataset.said(_rows(dataset)) or ()))
    identity = {"base": family.encoder_id("text_encoder"), **family.reading}
    store = Stored(_folder(identity), tuple(family.encode_captions([""]).shape[1:]))
    encoded = EncodedCaptions(identity, store)
    encoded.fill(captions, family.encode_captions, _progress(report, "captions"))
    return encoded


def _folder(identity: dict[str, Any]) -> Path:
    """A folder for each encoder and way to read captions, so that those of encoders that are used no more can go."""
    parent = index_cache.folder() / "encoded"
    stored.prune(parent)
    return parent / stored.key(identity).hex()[:16]


def _progress(report: Callable[..., Any], part: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done % PROGRESS_EVERY < 8 or done == total:
            report("encoding", part=part, done=done, total=total)

    return tell
