"""A world of drawn faces in several styles: every attribute known, captions in two languages, faults on wish."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from fusain.data import cores
from fusain.data.scan import MASK_ENDING
from fusain.worlds.caricature_parts.attributes import (
    ATTRIBUTES,
    KEPT_BACK_STYLE,
    NONE_SHARES,
    STYLES,
    Face,
    unseen,
)
from fusain.worlds.caricature_parts.captions import caption, spoken
from fusain.worlds.caricature_parts.characters import CHARACTERS, character, is_character
from fusain.worlds.caricature_parts.combinations import is_kept_out
from fusain.worlds.caricature_parts.faults import COPY, FAULTS, spoil
from fusain.worlds.caricature_parts.portrait import SIDE, face_box, paint, silhouette
from fusain.worlds.dice import Dice
from fusain.worlds.folders import claim

__all__ = [
    "ATTRIBUTES",
    "CHARACTERS",
    "FAULTS",
    "KEPT_BACK_STYLE",
    "SIDE",
    "STYLES",
    "TAUGHT_STYLES",
    "Caricatures",
    "Face",
    "caption",
    "character",
    "draw",
    "face_box",
    "portraits",
    "spoken",
    "unseen",
    "world",
    "write_folder",
]

Combinations = Literal["seen", "kept out", "all"]

TAUGHT_STYLES: Final = tuple(style for style in STYLES if style != KEPT_BACK_STYLE)
_SEEDS_PER_WORLD: Final = 2**32
_FAULT_STREAM: Final = 24
_ORDER_STREAM: Final = 25
_FIRST_FACE_STREAM: Final = 1_000
_PIECE: Final = 256
"""Images that a process draws before it hands them over; up to so many need no other process."""


@dataclass(frozen=True)
class Caricatures:
    """N faces: images N x side x side x 3 uint8, what they show, captions, and each image's fault ("": good)."""

    images: npt.NDArray[np.uint8]
    faces: tuple[Face, ...]
    captions: tuple[str, ...]
    french: tuple[str, ...]
    faults: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.faces)


def draw(face: Face, scale: int = 1) -> npt.NDArray[np.uint8]:
    """One good image of 64 x 64 x 3 pixels, or drawn `scale` times larger: a pure function of the face."""
    return paint(face, scale)


def world(
    count: int,
    *,
    seed: int = 0,
    scale: int = 1,
    styles: Sequence[str] = TAUGHT_STYLES,
    combinations: Combinations = "seen",
    bad_share: float = 0.0,
) -> Caricatures:
    """`count` faces, each of which depends only on `seed`, its number, the styles and the combinations allowed.

    `bad_share` is exact, so which images are bad depends on how many there are as well; a copy is another good
    image of the same world, with its face and captions.
    """
    faces = [_face(seed, number, styles, combinations) for number in range(count)]
    return _drawn(faces, _faults(count, seed, bad_share), scale)


def portraits(
    name: str,
    count: int,
    *,
    seed: int = 0,
    scale: int = 1,
    styles: Sequence[str] | None = None,
    hats: Sequence[str] = ("none",),
    backgrounds: Sequence[str] | None = None,
    positions: Sequence[str] | None = None,
) -> Caricatures:
    """`count` pictures of one character, in the styles in turn (flat where none is named)."""
    around: dict[str, Any] = {"hats": hats, "backgrounds": backgrounds, "positions": positions}
    styles = styles or STYLES[:1]
    faces = [
        character(name, seed * _SEEDS_PER_WORLD + number, style=styles[number % len(styles)], **around)
        for number in range(count)
    ]
    return _drawn(faces, [""] * count, scale)


def _drawn(faces: Sequence[Face], faults: Sequence[str], scale: int) -> Caricatures:
    shown = [
        faces[_good_image_near(number, faults)] if fault == COPY else faces[number]
        for number, fault in enumerate(faults)
    ]
    pieces = [
        (shown[start : start + _PIECE], faults[start : start + _PIECE], scale) for start in range(0, len(shown), _PIECE)
    ]
    images = np.empty((len(shown), SIDE * scale, SIDE * scale, 3), dtype=np.uint8)
    english, french = list[str](), list[str]()
    for part in cores.spread(_piece, pieces):
        images[len(english) : len(english) + len(part.captions)] = part.images
        english += part.captions
        french += part.french
    return Caricatures(images, tuple(shown), tuple(english), tuple(french), tuple(faults))


def _piece(faces: Sequence[Face], faults: Sequence[str], scale: int) -> Caricatures:
    """A part of a world; a copy is its original, drawn once more."""
    images = np.stack([draw(face, scale) for face in faces])
    for image, face, fault in zip(images, faces, faults, strict=True):
        if fault and fault != COPY:
            image[:] = spoil(image, fault, Dice(_FAULT_STREAM, face.seed))
    captions = [(caption(face, face.seed), caption(face, face.seed, "fr")) for face in faces]
    english, french = zip(*captions, strict=True)
    return Caricatures(images, tuple(faces), english, french, tuple(faults))


def write_folder(world: Caricatures, folder: Path, *, with_masks: bool = False) -> None:
    """One PNG an image, their captions in `metadata.jsonl`, and the truth about each in `truth.json`.

    Masks lie beside the images that are not spoilt, white where the figure is.
    """
    claim(folder)
    lines, rows = [], []
    for number, face in enumerate(world.faces):
        file = f"{number:05d}.png"
        Pictures.fromarray(world.images[number]).save(folder / file, compress_level=1)
        if with_masks and not world.faults[number]:
            mask = silhouette(face, world.images.shape[1] // SIDE).astype(np.uint8) * 255
            Pictures.fromarray(mask).save(folder / f"{number:05d}{MASK_ENDING}")
        captions = {"file_name": file, "text": world.captions[number], "texte": world.french[number]}
        lines.append(json.dumps(captions, ensure_ascii=False))
        truth = {"attributes": dict(face.attributes), "unseen": sorted(unseen(face)), "fault": world.faults[number]}
        rows.append({"file": file, **truth})
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    truths = json.dumps({"attributes": dict(ATTRIBUTES), "images": rows}, indent=1)
    (folder / "truth.json").write_text(truths, encoding="utf-8")


def _face(seed: int, number: int, styles: Sequence[str], combinations: Combinations) -> Face:
    image_seed = seed * _SEEDS_PER_WORLD + number
    for attempt in numbers():
        face = Face(_values(Dice(_FIRST_FACE_STREAM + attempt, image_seed), styles), image_seed)
        if _is_allowed(face, combinations):
            return face
    raise AssertionError("numbers never end")


def _values(dice: Dice, styles: Sequence[str]) -> dict[str, str]:
    values = {}
    for name, choices in ATTRIBUTES.items():
        if name == "style":
            values[name] = dice.pick(styles)
        elif name in NONE_SHARES:
            values[name] = "none" if dice.chance(NONE_SHARES[name]) else dice.pick(choices[1:])
        else:
            values[name] = dice.pick(choices)
    return values


def _is_allowed(face: Face, combinations: Combinations) -> bool:
    if combinations == "all":
        return True
    return not is_character(face.attributes) and is_kept_out(face) == (combinations == "kept out")


def _faults(count: int, seed: int, share: float) -> list[str]:
    faults = [""] * count
    ranks = np.random.Generator(np.random.PCG64(np.random.SeedSequence((_ORDER_STREAM, seed)))).permutation(count)
    # One good image at least is left for the copies to be copies of.
    for place, number in enumerate(ranks[: min(round(count * share), count - 1)].tolist()):
        faults[number] = FAULTS[place % len(FAULTS)]
    return faults


def _good_image_near(number: int, faults: Sequence[str]) -> int:
    good = [other for other, fault in enumerate(faults) if not fault]
    return min(good, key=lambda other: abs(other - number))
