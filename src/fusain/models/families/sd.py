"""Stable Diffusion 1.x and 2.x: a UNet over the latents of an autoencoder, steered by a CLIP text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field

from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.models import attention, bases, latents, pipeline_folder, targets, text, weights
from fusain.models.family import Condition, DrawRequest, Facts, Fresh, NoiseSchedule
from fusain.models.latent_family import LatentFamily
from fusain.settings.notice import Notice
from fusain.settings.section import Section, basic

ARCHITECTURES = ("sd1", "sd2")


class StableDiffusionSettings(Section):
    """Stable Diffusion 1.x or 2.x, or a miniature of it."""

    kind: Literal["sd"] = "sd"
    condition: Literal["text"] = "text"
    """What steers the images: captions."""
    base: str = basic("stable-diffusion-v1-5/stable-diffusion-v1-5")
    """The weights to start from: a hub id, a diffusers folder, or a `.safetensors` file."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. A run keeps the commit that it began with."""
    vae: str | None = None
    """Another autoencoder in place of the base's: a diffusers folder or a single file."""
    tokenizer: str | None = None
    """Folder of tokenizer files, for single files that bring none."""
    base_weights: Literal["ema", "raw"] = "ema"
    """Which weights of an original single file are read, where it holds both."""
    size: int = basic(512, ge=32, le=4096, multiple_of=8)
    """Side of the images in pixels; with buckets, the root of the area that no image exceeds."""
    prediction: Literal["auto", "epsilon", "v", "sample"] = "auto"
    """What the base predicts; `auto` believes the base. Single files of version 2 do not say. Another one than the
    base's makes it learn that one anew."""
    zero_terminal_snr: Literal["auto", "on", "off"] = "auto"
    """Leave nothing of the image at the last time, so that very dark and very bright images can be drawn; `auto`
    believes the base. Not with `epsilon`."""
    clip_skip: int = Field(0, ge=0, le=11)
    """Layers of the text encoder left out at its end. 1 here is what other tools call clip skip 2."""
    text_windows: int = Field(1, ge=1, le=8)
    """Windows of 75 tokens that a caption may fill; what exceeds them is cut off and listed."""


@dataclass(frozen=True)
class TextCondition:
    """What steers a batch: states that were made before, or tokens whose encoder learns and so runs in the network."""

    states_BLD: torch.Tensor | None = None
    tokens_BWL: torch.Tensor | None = None


class StableDiffusionNetwork(torch.nn.Module):
    """UNet and text encoder as one module, so that one wrapper holds both."""

    def __init__(self, unet: torch.nn.Module, text_encoder: torch.nn.Module, clip_skip: int) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder: torch.nn.Module | None = text_encoder
        self.clip_skip = clip_skip

    def forward(self, noisy_BCHW: torch.Tensor, times_B: torch.Tensor, condition: TextCondition) -> torch.Tensor:
        states = condition.states_BLD
        if states is None:
            assert condition.tokens_BWL is not None, "a batch is steered by states or by tokens"
            assert self.text_encoder is not None, "an encoder that learns never rests"
            states = text.states(self.text_encoder, condition.tokens_BWL, clip_skip=self.clip_skip)
        return cast(torch.Tensor, self.unet(noisy_BCHW, times_B, states, return_dict=False)[0])


class StableDiffusion(LatentFamily):
    kind: ClassVar[str] = "sd"
    Settings: ClassVar[type[Section]] = StableDiffusionSettings
    denoiser: ClassVar[str] = "unet"
    multiple = 8
    _bare: StableDiffusionNetwork
    lora_targets: ClassVar = {"unet": targets.OF_UNET, "text_encoder": targets.OF_CLIP}

    @classmethod
    def tiny(cls, condition: Condition, folder: Path) -> StableDiffusionSettings:
        from fusain.models.bases import fresh

        fresh.write(fresh.TINY, folder)
        return StableDiffusionSettings(base=str(folder), size=32)

    @classmethod
    def conditions(cls) -> tuple[Condition, ...]:
        return ("text",)

    def __init__(self, settings: StableDiffusionSettings, facts: Facts) -> None:
        self.settings, self.facts, self.condition = settings, facts, "text"
        base = bases.open_base(
            settings.base,
            revision=settings.revision,
            vae=settings.vae,
            weights=settings.base_weights,
            tokenizer=settings.tokenizer,
        )
        bases.expect(base, *ARCHITECTURES)
        self.base, self.architecture = base, base.architecture
        prediction = base.prediction if settings.prediction == "auto" else settings.prediction
        if prediction is None:
            raise SettingsError("E-MODEL-058", where="family.prediction", base=settings.base)
        zero = {"auto": None, "on": True, "off": False}[settings.zero_terminal_snr]
        self.schedule = NoiseSchedule.from_diffusers(base.scheduler, prediction, zero_terminal_snr=zero)
        self.tokenizer = bases.load_tokenizer(base, settings.tokenizer)
        self._autoencoder: torch.nn.Module | None = self._built("vae")
        self._hidden_caption: torch.Tensor | None = None
        unet = bases.build(base.components["unet"])
        attention.suit(unet, settings.size >> len(base.components["vae"].config["block_out_channels"]) - 1)
        self._bare = StableDiffusionNetwork(unet, self._built("text_encoder"), settings.clip_skip)
        self.network: torch.nn.Module = self._bare

    @property
    def reading(self) -> dict[str, Any]:
        own = {"clip_skip": self.settings.clip_skip, "windows": self.settings.text_windows}
        return super().reading | own

    def tokenizers(self) -> dict[str, Any]:
        return {"text_encoder": self.tokenizer}

    def _keep_hidden(self) -> None:
        self._hidden_caption = self._states(self.tokens([""]))

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return latents.moments(self._autoencoder, pixels_BCHW)

    def encode_latents(self, stored: torch.Tensor, fresh: Fresh | None = None) -> torch.Tensor:
        return latents.sampled(stored, fresh) * self._scale

    @property
    def _scale(self) -> float:
        if self._autoencoder is None:
            return float(self.base.components["vae"].config.get("scaling_factor", latents.USUAL_SCALE))
        return float(cast(Any, self._autoencoder).config.scaling_factor)

    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> TextCondition:
        if batch.encoded_captions is not None:
            states_BLD = batch.encoded_captions
            if dropped_B is not None:
                assert self._hidden_caption is not None, "whoever stored captions let the encoder rest"
                states_BLD = torch.where(dropped_B[:, None, None], self._hidden_caption, states_BLD)
            return TextCondition(states_BLD=states_BLD)
        assert batch.captions is not None, "a data set for text has captions"
        found = self.tokens(text.hiding(batch.captions, dropped_B))
        encoder = self._bare.text_encoder
        if encoder is not None and any(parameter.requires_grad for parameter in encoder.parameters()):
            return TextCondition(tokens_BWL=found)
        return TextCondition(states_BLD=self._states(found))

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        return self._states(self.tokens(captions))

    def tokens(self, captions: Sequence[str]) -> torch.Tensor:
        return text.tokens(self.tokenizer, captions, windows=self.settings.text_windows).to(self.device)

    def foreseen(self, names: Sequence[str], captions: Sequence[str]) -> Iterator[Notice]:
        yield from self.base.notes
        yield from text.cuts(self.tokenizer, names, captions, windows=self.settings.text_windows)

    def _states(self, tokens_BWL: torch.Tensor) -> torch.Tensor:
        assert self._bare.text_encoder is not None, "captions are encoded while the encoder is awake"
        with torch.no_grad():
            return text.states(self._bare.text_encoder, tokens_BWL, clip_skip=self.settings.clip_skip)

    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.network(noisy, times_B, condition))

    def pipeline(self, scheduler: Any) -> Any:
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            vae=self._autoencoder,
            text_encoder=self._bare.text_encoder,
            tokenizer=self.tokenizer,
            unet=self._bare.unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, request: DrawRequest) -> torch.Tensor:
        prompts = list(request.prompts or [""] * len(request.generators))
        negatives = list(request.negatives or [""] * len(prompts))
        height, width = request.size or (self.settings.size, self.settings.size)
        with self._awake():
            images = self.pipeline(request.scheduler)(
                prompt_embeds=self.encode_captions(prompts),
                negative_prompt_embeds=self.encode_captions(negatives),
                generator=list(request.generators),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                eta=request.eta,
                height=height,
                width=width,
                output_type="pt",
            ).images
        return cast(torch.Tensor, images).float().cpu()

    def save(self, folder: Path) -> None:
        from diffusers import DDIMScheduler

        # What plain diffusers then draws with is what `generate` draws with by default.
        scheduler = DDIMScheduler(
            **self.schedule.as_diffusers(), clip_sample=False, steps_offset=1, timestep_spacing="trailing"
        )
        with self._awake():
            pipeline_folder.save(self.pipeline(scheduler), folder)

    def load(self, folder: Path) -> None:
        weights.load_into(self._bare.unet, folder / "unet")
        encoder = self._bare.text_encoder
        assert self._autoencoder is not None, "weights are loaded before anything rests"
        assert encoder is not None, "weights are loaded before anything rests"
        latents.load_autoencoder(self._autoencoder, folder / "vae")
        text.load_encoder(encoder, folder / "text_encoder")
