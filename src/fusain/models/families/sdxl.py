"""Stable Diffusion XL: a larger UNet, two text encoders, and the size and crop of each image beside its caption."""

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

ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Each text encoder and what cuts captions to tokens for it."""
Read = tuple[torch.Tensor, torch.Tensor]
"""What captions become: states_BLD of all tokens, pooled_BP of the whole."""


class StableDiffusionXLSettings(Section):
    """Stable Diffusion XL, or a miniature of it."""

    kind: Literal["sdxl"] = "sdxl"
    condition: Literal["text"] = "text"
    """What steers the images: captions."""
    base: str = basic("stabilityai/stable-diffusion-xl-base-1.0")
    """The weights to start from: a hub id, a diffusers folder, or a `.safetensors` file."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. A run keeps the commit that it began with."""
    vae: str | None = None
    """Another autoencoder in place of the base's: a diffusers folder or a single file."""
    tokenizer: str | None = None
    """Folder of tokenizer files, for single files that bring none; it may hold `tokenizer` and `tokenizer_2`."""
    base_weights: Literal["ema", "raw"] = "ema"
    """Which weights of an original single file are read, where it holds both."""
    size: int = basic(1024, ge=32, le=4096, multiple_of=8)
    """Side of the images in pixels; with buckets, the root of the area that no image exceeds."""
    prediction: Literal["auto", "epsilon", "v", "sample"] = "auto"
    """What the base predicts; `auto` believes the base. Another one than the base's makes it learn that one anew."""
    zero_terminal_snr: Literal["auto", "on", "off"] = "auto"
    """Leave nothing of the image at the last time, so that very dark and very bright images can be drawn; `auto`
    believes the base. Not with `epsilon`."""
    clip_skip: int = Field(0, ge=0, le=10)
    """Layers of the text encoders left out beside the last, which this model never reads."""
    text_windows: int = Field(1, ge=1, le=8)
    """Windows of 75 tokens that a caption may fill; what exceeds them is cut off and listed."""


@dataclass(frozen=True)
class Steering:
    """What steers a batch: sizes, and captions as states and pooled text, or as tokens whose encoders learn."""

    framings_B6: torch.Tensor
    """Height and width before resizing, top and left of the crop, height and width of what is learnt or drawn."""
    states_BLD: torch.Tensor | None = None
    pooled_BP: torch.Tensor | None = None
    tokens_BWL: Sequence[torch.Tensor] = ()
    """For each text encoder."""
    dropped_B: torch.Tensor | None = None
    """Which captions are hidden by zeros, of those that are tokens."""


class StableDiffusionXLNetwork(torch.nn.Module):
    """UNet and text encoders as one module, so that one wrapper holds them all."""

    def __init__(self, unet: torch.nn.Module, encoders: Sequence[torch.nn.Module], clip_skip: int) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder: torch.nn.Module | None
        self.text_encoder_2: torch.nn.Module | None
        self.text_encoder, self.text_encoder_2 = encoders
        self.clip_skip = clip_skip

    def forward(self, noisy_BCHW: torch.Tensor, times_B: torch.Tensor, steering: Steering) -> torch.Tensor:
        states_BLD, pooled_BP = steering.states_BLD, steering.pooled_BP
        if states_BLD is None or pooled_BP is None:
            states_BLD, pooled_BP = self.read(steering.tokens_BWL)
            if steering.dropped_B is not None:
                states_BLD = states_BLD.masked_fill(steering.dropped_B[:, None, None], 0)
                pooled_BP = pooled_BP.masked_fill(steering.dropped_B[:, None], 0)
        beside = {"text_embeds": pooled_BP, "time_ids": steering.framings_B6}
        found = self.unet(noisy_BCHW, times_B, states_BLD, added_cond_kwargs=beside, return_dict=False)
        return cast(torch.Tensor, found[0])

    def read(self, tokens_BWL: Sequence[torch.Tensor]) -> Read:
        """States of both encoders side by side, and the pooled text of the second."""
        assert self.text_encoder is not None, "captions are read while the encoders are awake"
        assert self.text_encoder_2 is not None, "captions are read while the encoders are awake"
        first, _ = text.states_and_pooled(self.text_encoder, tokens_BWL[0], clip_skip=self.clip_skip)
        second, pooled_BP = text.states_and_pooled(self.text_encoder_2, tokens_BWL[1], clip_skip=self.clip_skip)
        return torch.cat([first, second], dim=-1), pooled_BP


class StableDiffusionXL(LatentFamily):
    kind: ClassVar[str] = "sdxl"
    Settings: ClassVar[type[Section]] = StableDiffusionXLSettings
    denoiser: ClassVar[str] = "unet"
    multiple = 8
    skips_by_itself: ClassVar[bool] = True
    reads_framings: ClassVar[bool] = True
    clips: ClassVar[Sequence[str]] = tuple(ENCODERS)
    _bare: StableDiffusionXLNetwork
    lora_targets: ClassVar = {"unet": targets.OF_UNET, **dict.fromkeys(ENCODERS, targets.OF_CLIP)}

    @classmethod
    def tiny(cls, condition: Condition, folder: Path) -> StableDiffusionXLSettings:
        from fusain.models.bases import fresh

        fresh.write(fresh.TINY_XL, folder)
        return StableDiffusionXLSettings(base=str(folder), size=32)

    @classmethod
    def conditions(cls) -> tuple[Condition, ...]:
        return ("text",)

    def __init__(self, settings: StableDiffusionXLSettings, facts: Facts) -> None:
        self.settings, self.facts, self.condition = settings, facts, "text"
        base = bases.open_base(
            settings.base,
            revision=settings.revision,
            vae=settings.vae,
            weights=settings.base_weights,
            tokenizer=settings.tokenizer,
        )
        bases.expect(base, "sdxl")
        self.base, self.architecture = base, base.architecture
        prediction = base.prediction if settings.prediction == "auto" else settings.prediction
        if prediction is None or base.components["vae"].config.get("latents_mean"):
            raise SettingsError("E-MODEL-061", where="family.base", base=settings.base)
        zero = {"auto": None, "on": True, "off": False}[settings.zero_terminal_snr]
        self.schedule = NoiseSchedule.from_diffusers(base.scheduler, prediction, zero_terminal_snr=zero)
        self._tokenizers = {
            name: bases.load_tokenizer(base, settings.tokenizer, part) for name, part in ENCODERS.items()
        }
        self._autoencoder: torch.nn.Module | None = self._built("vae")
        self._hidden: Read | None = None
        unet = bases.build(base.components["unet"])
        attention.suit(unet, settings.size // self._pixels_a_latent)
        self._bare = StableDiffusionXLNetwork(unet, [self._built(name) for name in ENCODERS], settings.clip_skip)
        self.network: torch.nn.Module = self._bare

    @property
    def reading(self) -> dict[str, Any]:
        own = {"clip_skip": self.settings.clip_skip, "windows": self.settings.text_windows}
        return super().reading | own

    def tokenizers(self) -> dict[str, Any]:
        return self._tokenizers

    def _keep_hidden(self) -> None:
        self._hidden = self._hidden_caption()

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        with latents.as_precise_as_needed(self._autoencoder):
            return latents.moments(self._autoencoder, pixels_BCHW)

    def encode_latents(self, stored: torch.Tensor, fresh: Fresh | None = None) -> torch.Tensor:
        return latents.sampled(stored, fresh) * self._scale

    @property
    def _scale(self) -> float:
        if self._autoencoder is None:
            return float(self.base.components["vae"].config.get("scaling_factor", latents.USUAL_SCALE))
        return float(cast(Any, self._autoencoder).config.scaling_factor)

    @property
    def _pixels_a_latent(self) -> int:
        return 1 << len(self.base.components["vae"].config["block_out_channels"]) - 1

    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> Steering:
        framings_B6 = self._framings(batch)
        if batch.encoded_captions is not None:
            return Steering(framings_B6, *self._hiding(self._unpacked(batch.encoded_captions), dropped_B))
        assert batch.captions is not None, "a data set for text has captions"
        encoders = self.text_encoders().values()
        if not any(one.requires_grad for encoder in encoders for one in encoder.parameters()):
            return Steering(framings_B6, *self._hiding(self._read(batch.captions), dropped_B))
        by_zeros, by_words = (dropped_B, None) if self.base.hides_by_zeros else (None, dropped_B)
        found = self.tokens(text.hiding(batch.captions, by_words))
        return Steering(framings_B6, tokens_BWL=found, dropped_B=by_zeros)

    def _hiding(self, read: Read, dropped_B: torch.Tensor | None) -> Read:
        """What was read, with the hidden caption in place of some."""
        if dropped_B is None:
            return read
        states, pooled = self._hidden or self._hidden_caption()
        return torch.where(dropped_B[:, None, None], states, read[0]), torch.where(dropped_B[:, None], pooled, read[1])

    def _framings(self, batch: Batch) -> torch.Tensor:
        """Of each image what it was and what was cut of it; of one that nothing is known of, that it is whole."""
        encoded = batch.encoded_images
        height, width = batch.pixels_BCHW.shape[-2:] if encoded is None else encoded.shape[-2:]
        sides = [int(side) * (1 if encoded is None else self._pixels_a_latent) for side in (height, width)]
        framings_B4 = batch.framings_B4
        if framings_B4 is None:
            framings_B4 = torch.tensor([[*sides, 0, 0]]).expand(len(batch), 4)
        framings_B6 = torch.cat([framings_B4, framings_B4.new_tensor([sides]).expand(len(batch), 2)], dim=1)
        return framings_B6.to(self.device, torch.float32)

    def _hidden_caption(self) -> Read:
        """What stands for a caption that is hidden: by the base's own word zeros, or what an empty one becomes."""
        states, pooled = self._read([""])
        return (states * 0, pooled * 0) if self.base.hides_by_zeros else (states, pooled)

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """States of all tokens, then the pooled text, as one row a caption."""
        states_BLD, pooled_BP = self._read(captions)
        return torch.cat([states_BLD.flatten(1), pooled_BP], dim=1)

    def _unpacked(self, rows: torch.Tensor) -> Read:
        width = self.base.components["unet"].config["cross_attention_dim"]
        pooled = self.base.components["text_encoder_2"].config["projection_dim"]
        states_BLD = rows[:, :-pooled].reshape(len(rows), -1, width)
        return states_BLD.contiguous(), rows[:, -pooled:]  # else each layer that reads the states keeps its own copy

    def tokens(self, captions: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """For each text encoder."""
        windows = self.settings.text_windows
        found = (text.tokens(tokenizer, captions, windows=windows) for tokenizer in self._tokenizers.values())
        return tuple(tokens_BWL.to(self.device) for tokens_BWL in found)

    def foreseen(self, names: Sequence[str], captions: Sequence[str]) -> Iterator[Notice]:
        yield from self.base.notes
        yield from text.cuts(self._tokenizers["text_encoder"], names, captions, windows=self.settings.text_windows)

    def _read(self, captions: Sequence[str]) -> Read:
        with torch.no_grad():
            return self._bare.read(self.tokens(captions))

    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.network(noisy, times_B, condition))

    def pipeline(self, scheduler: Any) -> Any:
        from diffusers import StableDiffusionXLPipeline

        pipeline = StableDiffusionXLPipeline(
            vae=self._autoencoder,
            text_encoder=self._bare.text_encoder,
            text_encoder_2=self._bare.text_encoder_2,
            tokenizer=self._tokenizers["text_encoder"],
            tokenizer_2=self._tokenizers["text_encoder_2"],
            unet=self._bare.unet,
            scheduler=scheduler,
            force_zeros_for_empty_prompt=self.base.hides_by_zeros,
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, request: DrawRequest) -> torch.Tensor:
        prompts = list(request.prompts or [""] * len(request.generators))
        negatives = list(request.negatives or [""] * len(prompts))
        height, width = request.size or (self.settings.size, self.settings.size)
        with self._awake(), torch.no_grad():
            states_BLD, pooled_BP = self._read(prompts)
            # Nothing to draw away from is as a hidden caption: so the pipeline has it where none is given.
            says_nothing_B = torch.tensor([not words for words in negatives], device=self.device)
            away_BLD, away_BP = self._hiding(self._read(negatives), says_nothing_B)
            found = self.pipeline(request.scheduler)(
                prompt_embeds=states_BLD,
                pooled_prompt_embeds=pooled_BP,
                negative_prompt_embeds=away_BLD,
                negative_pooled_prompt_embeds=away_BP,
                generator=list(request.generators),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                eta=request.eta,
                height=height,
                width=width,
                original_size=request.framing[:2] if request.framing else None,
                crops_coords_top_left=request.framing[2:] if request.framing else (0, 0),
                output_type="latent",
            ).images
            with latents.as_precise_as_needed(self._autoencoder):
                pixels = cast(Any, self._autoencoder).decode(found.float() / self._scale, return_dict=False)[0]
        return cast(torch.Tensor, pixels).float().div(2).add(0.5).clamp(0, 1).cpu()

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
        assert self._autoencoder is not None, "weights are loaded before anything rests"
        latents.load_autoencoder(self._autoencoder, folder / "vae")
        for name, encoder in self.text_encoders().items():
            text.load_encoder(encoder, folder / name)
