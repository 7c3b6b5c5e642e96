"""A world of 16 x 16 sprites in five classes, drawn from a seed, with known labels and, on wish, known faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from fusain.worlds.dice import Dice
from fusain.worlds.folders import claim
from fusain.worlds.sprite_parts.canvas import SIDE, Image
from fusain.worlds.sprite_parts.creatures import draw_creature
from fusain.worlds.sprite_parts.faults import spoil
from fusain.worlds.sprite_parts.foods import draw_food
from fusain.worlds.sprite_parts.people import draw_person
from fusain.worlds.sprite_parts.profiles import draw_profile
from fusain.worlds.sprite_parts.spells import draw_spell

CLASSES: Final[tuple[str, ...]] = ("human", "non-human", "food", "spell", "side-facing")
SHARES: Final[Mapping[str, int]] = {
    "human": 8_000,
    "non-human": 32_400,
    "food": 6_000,
    "spell": 35_000,
    "side-facing": 8_000,
}

_DRAWERS: Final[tuple[Callable[[Dice], Image], ...]] = (
    draw_person,
    draw_creature,
    draw_food,
    draw_spell,
    draw_profile,
)
_SEEDS_PER_WORLD: Final = 2**32
_FAULT_STREAM: Final = len(CLASSES)
_ORDER_STREAM: Final = _FAULT_STREAM + len(CLASSES)


@dataclass(frozen=True)
class Sprites:
    """N sprites: images N x 16 x 16 x 3 uint8, labels N int64, and the name of each image's fault ("": good)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    faults: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def draw(label: int, seed: int) -> npt.NDArray[np.uint8]:
    """One good image, 16 x 16 x 3: a pure function of its label and seed."""
    return _DRAWERS[label](Dice(label, seed))


def world(
    count: int, *, seed: int = 0, bad_share: float | Mapping[str, float] = 0.0, balanced: bool = False
) -> Sprites:
    """`count` sprites in a shuffled order; each depends only on `seed`, its label and its place within its class.

    `bad_share` is exact in each class, so which images are bad depends on how many there are as well.
    """
    per_class = _counts(count, balanced)
    images = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int64), per_class)
    faults = [""] * count
    places = _order(count, seed)
    row = 0
    for label, class_count in enumerate(per_class):
        bad = _bad_indices(label, class_count, seed, _share_of(bad_share, CLASSES[label]))
        for index in range(class_count):
            image_seed = seed * _SEEDS_PER_WORLD + index
            image = draw(label, image_seed)
            if index in bad:
                spoilt = spoil(image, Dice(_FAULT_STREAM + label, image_seed))
                image, faults[places[row]] = spoilt.image, spoilt.fault
            images[places[row]] = image
            row += 1
    shuffled = np.empty_like(labels)
    shuffled[places] = labels
    return Sprites(images, shuffled, tuple(faults))


def write_folder(sprites: Sprites, folder: Path) -> None:
    """One PNG an image in `folder/<class>/`, and the truth about each in `folder/truth.json`."""
    claim(folder)
    for name in CLASSES:
        (folder / name).mkdir()
    files = []
    for number, (image, label) in enumerate(zip(sprites.images, sprites.labels.tolist(), strict=True)):
        files.append(f"{CLASSES[label]}/{number:05d}.png")
        Pictures.fromarray(image).save(folder / files[-1], compress_level=1)
    _write_truth(sprites, folder, files)


def write_arrays(sprites: Sprites, folder: Path) -> None:
    """`sprites.npy` with the images, `labels.npy` with one-hot rows, their names in `classes.txt`, and `truth.json`."""
    claim(folder)
    np.save(folder / "sprites.npy", sprites.images, allow_pickle=False)
    np.save(folder / "labels.npy", np.eye(len(CLASSES))[sprites.labels], allow_pickle=False)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    _write_truth(sprites, folder, [f"sprites.npy[{number}]" for number in range(len(sprites))])


def _counts(count: int, balanced: bool) -> list[int]:
    """Whole numbers in the proportion of the shares, by largest remainder, none of them 0 where that is possible."""
    weights = np.ones(len(CLASSES)) if balanced else np.asarray([SHARES[name] for name in CLASSES], dtype=np.float64)
    exact = count * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    remainders = np.argsort(counts - exact, kind="stable")
    counts[remainders[: count - int(counts.sum())]] += 1
    while count >= len(CLASSES) and counts.min() == 0:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return [int(class_count) for class_count in counts]


def _share_of(bad_share: float | Mapping[str, float], name: str) -> float:
    return bad_share.get(name, 0.0) if isinstance(bad_share, Mapping) else bad_share


def _bad_indices(label: int, class_count: int, seed: int, share: float) -> frozenset[int]:
    if share <= 0.0:
        return frozenset()
    ranks = _generator(_FAULT_STREAM + label, seed).permutation(class_count)
    return frozenset(ranks[: round(class_count * share)].tolist())


def _order(count: int, seed: int) -> list[int]:
    places: list[int] = _generator(_ORDER_STREAM, seed).permutation(count).tolist()
    return places


def _generator(stream: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((stream, seed))))


def _write_truth(sprites: Sprites, folder: Path, files: list[str]) -> None:
    rows = [
        {"file": file, "label": CLASSES[label], "fault": fault}
        for file, label, fault in zip(files, sprites.labels.tolist(), sprites.faults, strict=True)
    ]
    (folder / "truth.json").write_text(json.dumps({"classes": CLASSES, "images": rows}, indent=1), encoding="utf-8")
