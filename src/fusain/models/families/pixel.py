"""Diffusion on pixels: diffusers' UNet2DModel without a condition, or UNet2DConditionModel steered by class vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as functional
from pydantic import Field, model_validator

from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.models import attention, noise, weights
from fusain.models.family import Condition, DrawRequest, Facts, Family, NoiseSchedule
from fusain.settings.section import Section, basic


class PixelSettings(Section):
    """A network trained from scratch on small images."""

    kind: Literal["pixel"] = "pixel"
    condition: Literal["none", "class"] = basic("none")
    """What steers the images: nothing, or the class of each image (folder name or label)."""
    size: int = basic(16, ge=8, le=256, multiple_of=4)
    """Side of the images in pixels. Each doubling costs about four times the time."""
    channels: tuple[int, ...] = Field((64, 128, 256), min_length=1, max_length=6)
    """Width of the network at each resolution, from the finest; each further entry halves the resolution."""
    patch: Literal[1, 2, 4] = 1
    """Fold blocks of so many pixels a side into channels: the network works at a lower resolution, which is faster."""
    layers_per_block: int = Field(2, ge=1, le=4)
    """Residual layers at each resolution. More is slower and can draw finer detail."""
    attention_levels: tuple[int, ...] = ()
    """Resolutions that get attention, counted from the finest = 0. With classes the coarsest one always has it."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations dropped in training; 0.1 to 0.2 keeps small data sets from being learnt by heart."""
    class_width: int = Field(64, ge=2)
    """Length of the vector that a class becomes; a bottleneck of half of it comes first."""
    attention_heads: int = Field(8, ge=1, le=64)
    """Heads of each attention layer with classes. Narrow networks are faster with 1 or 2."""
    cross_attention_width: int = Field(1280, ge=8)
    """Length of the vectors that the attention reads."""
    class_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout inside the class network's bottleneck."""
    prediction: noise.Prediction = "epsilon"
    """What the network predicts: the noise, the velocity `v` (steadier with few sampling steps), or the image itself
    (`sample`)."""
    betas: noise.Betas = "linear"
    """How noise grows over time. `cosine` keeps more of small images."""
    train_timesteps: int = Field(1000, ge=10, le=10_000)
    """Number of noise levels in training."""
    zero_terminal_snr: bool = False
    """Leave nothing of the image at the last time, so that very dark and very bright images can be drawn. Not with
    `epsilon`."""

    def faults(self) -> Iterator[SettingsError]:
        if self.zero_terminal_snr and self.prediction == "epsilon":
            yield SettingsError("E-CFG-032", where="family.zero_terminal_snr")

    def silent_settings(self) -> dict[str, str]:
        if self.condition == "class":
            return {}
        reason = 'nothing steers this model (family.condition = "none")'
        return dict.fromkeys(("class_width", "attention_heads", "cross_attention_width", "class_dropout"), reason)

    @model_validator(mode="after")
    def _size_halves(self) -> PixelSettings:
        if self.size % (self.patch * 2 ** (len(self.channels) - 1)):
            raise ValueError(
                f"size {self.size} with patch {self.patch} cannot be halved {len(self.channels) - 1} times, "
                "as channels asks for"
            )
        if any(level >= len(self.channels) for level in self.attention_levels):
            raise ValueError(f"attention_levels {list(self.attention_levels)} must all be below {len(self.channels)}")
        return self


class ClassEmbedding(torch.nn.Module):
    """Class vectors to what the attention reads; no dropout at its end, where a zero means no class."""

    def __init__(self, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(classes, width // 2),
            torch.nn.Dropout(dropout),
            torch.nn.GELU(),
            torch.nn.Linear(width // 2, width),
        )

    def forward(self, labels_BK: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.layers(labels_BK)).unsqueeze(1)


class PixelNetwork(torch.nn.Module):
    """The UNet and, with classes, the network that reads them: one module, so that one wrapper holds both."""

    def __init__(self, unet: torch.nn.Module, class_embedding: ClassEmbedding | None) -> None:
        super().__init__()
        self.unet = unet
        self.class_embedding = class_embedding

    def forward(self, noisy_BCHW: torch.Tensor, times_B: torch.Tensor, labels_BK: torch.Tensor | None) -> torch.Tensor:
        if self.class_embedding is None:
            return cast(torch.Tensor, self.unet(noisy_BCHW, times_B, return_dict=False)[0])
        context = self.class_embedding(labels_BK)
        return cast(torch.Tensor, self.unet(noisy_BCHW, times_B, context, return_dict=False)[0])


class Pixel(Family):
    kind: ClassVar[str] = "pixel"
    Settings: ClassVar[type[Section]] = PixelSettings
    denoiser: ClassVar[str] = "unet"

    @classmethod
    def tiny(cls, condition: Condition, folder: Path) -> PixelSettings:
        return PixelSettings(
            condition="class" if condition == "class" else "none",
            size=8,
            channels=(8, 16),
            layers_per_block=1,
            dropout=0.1,
            class_width=8,
            cross_attention_width=8,
            train_timesteps=50,
        )

    @classmethod
    def conditions(cls) -> tuple[Condition, ...]:
        return ("none", "class")

    def __init__(self, settings: PixelSettings, facts: Facts) -> None:
        if settings.condition == "class" and not facts.classes:
            raise SettingsError("E-CFG-030", where="family.condition")
        self.settings = settings
        self.facts = facts
        self.condition = settings.condition
        self.schedule = NoiseSchedule(
            settings.betas,
            settings.train_timesteps,
            settings.prediction,
            zero_terminal_snr=settings.zero_terminal_snr,
        )
        self.network: torch.nn.Module = _build(settings, len(facts.classes))

    @property
    def _bare(self) -> PixelNetwork:
        return cast(PixelNetwork, getattr(self.network, "module", self.network))

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return functional.pixel_unshuffle(pixels_BCHW, self.settings.patch)

    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> torch.Tensor | None:
        if self.condition == "none" or batch.labels_BK is None or dropped_B is None:
            return batch.labels_BK if self.condition == "class" else None
        return batch.labels_BK.masked_fill(dropped_B.unsqueeze(1), 0.0)

    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.network(noisy, times_B, condition))

    def condition_parameters(self) -> Iterator[torch.nn.Parameter]:
        embedding = self._bare.class_embedding
        return embedding.parameters() if embedding is not None else iter(())

    def pipeline(self, scheduler: Any) -> Any:
        from fusain.models.pixel_pipeline import PixelPipeline

        pipeline = PixelPipeline(self._bare.unet, self._bare.class_embedding, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, request: DrawRequest) -> torch.Tensor:
        images = self.pipeline(request.scheduler)(
            request.labels_BK,
            generator=request.generators,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            eta=request.eta,
        ).images
        return functional.pixel_shuffle(torch.from_numpy(images).permute(0, 3, 1, 2), self.settings.patch)

    def save(self, folder: Path) -> None:
        from diffusers import DDPMPipeline, DDPMScheduler

        scheduler = DDPMScheduler(**self.schedule.as_diffusers())
        if self._bare.class_embedding is None:
            DDPMPipeline(self._bare.unet, scheduler).save_pretrained(folder)
            return
        cast(Any, self._bare.unet).save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
        weights.write(folder / "class_embedding.safetensors", self._bare.class_embedding.state_dict())

    def load(self, folder: Path) -> None:
        weights.load_into(self._bare.unet, folder / "unet")
        if self._bare.class_embedding is not None:
            weights.read_into(self._bare.class_embedding, folder / "class_embedding.safetensors")


def _build(settings: PixelSettings, classes: int) -> PixelNetwork:
    from diffusers import UNet2DConditionModel, UNet2DModel

    levels = range(len(settings.channels))
    with_class = settings.condition == "class"
    attending = set(settings.attention_levels) | ({max(levels)} if with_class else set())
    prefix = "CrossAttn" if with_class else "Attn"
    down = tuple(f"{prefix if level in attending else ''}DownBlock2D" for level in levels)
    up = tuple(f"{prefix if level in attending else ''}UpBlock2D" for level in reversed(levels))
    shared: dict[str, Any] = {
        "sample_size": settings.size // settings.patch,
        "in_channels": 3 * settings.patch**2,
        "out_channels": 3 * settings.patch**2,
        "layers_per_block": settings.layers_per_block,
        "block_out_channels": settings.channels,
        "down_block_types": down,
        "up_block_types": up,
        "dropout": settings.dropout,
        "norm_num_groups": math.gcd(32, *settings.channels),
    }
    if not with_class:
        return PixelNetwork(UNet2DModel(**shared), None)
    unet = UNet2DConditionModel(
        **shared,
        encoder_hid_dim=settings.class_width,
        cross_attention_dim=settings.cross_attention_width,
        attention_head_dim=settings.attention_heads,  # diffusers' name for the number of heads here
    )
    attention.suit(unet, settings.size // settings.patch)
    return PixelNetwork(unet, ClassEmbedding(classes, settings.class_width, settings.class_dropout))
