"""What a miniature base is made from and must reach, apart from how that is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fusain.models.bases.fresh import Second, Sizes
from fusain.worlds import face_reader
from fusain.worlds.mini.words import Lesson
from fusain.worlds.reader import Plan

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Bars:
    """What a miniature must reach."""

    face_psnr: float = 24.0
    reading_lost: float = 0.02
    mean: float = 0.90
    worst: float = 0.75
    seconds_for_four: float = 3.0


@dataclass(frozen=True)
class Miniature:
    """One miniature: sizes, drawings, the settings of its trainings, and the judge of its pictures."""

    name: str
    sizes: Sizes
    drawings: int
    seed: int
    autoencoder: Path | None
    """Settings of the training of the autoencoder, on all styles: it must give back whatever is taught later. None
    where a `shared` one had it."""
    text_to_image: Mapping[str, Path]
    """Settings of the trainings of the UNet by their names, one after the other, on captions, without the style and the
    characters that are kept back."""
    judge: Plan
    lesson: Lesson
    """Of the last text encoder, before it reads captions for the UNet."""
    kind: str = "sd"
    """The family."""
    changes: dict[str, str] = field(default_factory=dict)
    """What the settings of the UNet's trainings are changed by, beside the family."""
    shared: str = ""
    """A base whose tokenizer, autoencoder and first text encoder it has, with all that they learnt."""
    judged: int = 200
    """Faces of kept-out combinations that it is judged on."""
    guidance: float = 4.0
    steps: int = 20
    bars: Bars = Bars()


MINI_SD: Final = Miniature(
    name="mini-sd",
    sizes=Sizes(
        image=64,
        vae_channels=(16, 32, 64),
        vae_layers=1,
        latents=6,
        unet_channels=(64, 96, 96),
        unet_attends=(False, True, False),  # at 16 x 16 it would cost more than all else; in the middle it does anyway
        unet_layers=1,
        unet_heads=4,
        text_width=128,
        text_layers=2,
        text_heads=4,
    ),
    drawings=12_000,
    seed=1,
    autoencoder=HERE / "autoencoder.toml",
    text_to_image={"hearing": HERE / "hearing.toml", "drawing": HERE / "drawing.toml"},
    judge=face_reader.plan(),
    lesson=Lesson(),
)
MINI_SDXL: Final = Miniature(
    name="mini-sdxl",
    sizes=replace(
        MINI_SD.sizes,
        unet_channels=(64, 96, 112),
        unet_attends=(False, True, True),
        unet_layers=2,  # the blocks of the published model, by whose numbers its LoRAs are named elsewhere
        second=Second(width=128, layers=3, heads=4, pooled=64, sizes=32),
    ),
    drawings=12_000,
    seed=1,
    autoencoder=None,
    # What is no wider than a moustache comes last: it wants the second lesson twice.
    text_to_image={**MINI_SD.text_to_image, "finishing": HERE / "drawing.toml"},
    judge=face_reader.plan(),
    lesson=Lesson(),
    kind="sdxl",
    changes={"data.crop": "random"},
    shared="fusain:mini-sd",
    bars=Bars(seconds_for_four=4.0),
)
MINIATURES: Final = {miniature.name: miniature for miniature in (MINI_SD, MINI_SDXL)}
