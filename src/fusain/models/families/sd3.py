"""Stable Diffusion 3 and 3.5: a transformer that matches a flow over latents, steered by two CLIPs and maybe by T5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast

import torch
import torch.nn.functional as functional
from pydantic import Field

from fusain.data.batch import Batch
from fusain.errors import SettingsError, UsageError
from fusain.models import bases, latents, pipeline_folder, targets, text, weights
from fusain.models.family import Condition, DrawRequest, Facts, Fresh
from fusain.models.flow import Density, FlowSchedule
from fusain.models.latent_family import LatentFamily
from fusain.settings.notice import Notice
from fusain.settings.section import Section, basic

ENCODERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Each CLIP and what cuts captions to tokens for it."""
T5: Final = "text_encoder_3"
T5_TOKENS: Final = 256
"""As many as the pipeline of diffusers hands over; without T5 they are zeros."""
OTHERWISE: Final = ("use_dynamic_shifting", "invert_sigmas", "shift_terminal", "stochastic_sampling")
"""Entries of diffusers' scheduler by which times are no longer those of one shift."""


class StableDiffusion3Settings(Section):
    """Stable Diffusion 3 or 3.5, which match a flow."""

    kind: Literal["sd3"] = "sd3"
    condition: Literal["text"] = "text"
    """What steers the images: captions."""
    base: str = basic("stabilityai/stable-diffusion-3.5-medium")
    """The weights to start from: a hub id or a diffusers folder."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. A run keeps the commit that it began with."""
    size: int = basic(1024, ge=32, le=4096, multiple_of=16)
    """Side of the images in pixels; with buckets, the root of the area that no image exceeds."""
    t5: Literal["on", "off"] = "on"
    """Whether T5 reads captions beside the CLIPs; it is as large as all else. `off` puts zeros in its place, in
    training as in drawing, and leaves it out of the weights that are saved."""
    times: Density = "logit_normal"
    """Which times are learnt: the middle ones oftener, as the published models were, or all alike."""
    times_mean: float = Field(0.0, ge=-3, le=3)
    """Of `logit_normal`: above 0 noisy times are learnt oftener, below 0 clear ones."""
    times_spread: float = Field(1.0, gt=0, le=3)
    """Of `logit_normal`: how far from the middle times reach."""
    shift: float | None = Field(None, gt=0, le=20)
    """How far times are moved towards the noise, in training as in drawing; without it as the base has it. Larger
    images need more: 3 at 1024 pixels."""

    def silent_settings(self) -> Mapping[str, str]:
        reason = f'times are learnt otherwise (family.times = "{self.times}")'
        return {} if self.times == "logit_normal" else dict.fromkeys(("times_mean", "times_spread"), reason)


@dataclass(frozen=True)
class Read:
    """What captions become."""

    states_BLD: torch.Tensor
    """Of all tokens of both CLIPs side by side, as wide as both."""
    t5_BLD: torch.Tensor | None
    pooled_BP: torch.Tensor
    """Of whole captions, of both."""

    def row(self) -> torch.Tensor:
        """All of it as one row a caption."""
        parts = (self.states_BLD, *(() if self.t5_BLD is None else (self.t5_BLD,)), self.pooled_BP)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def hiding(self, dropped_B: torch.Tensor, hidden: Read) -> Read:
        """The same with another caption in place of some."""
        t5_BLD = self.t5_BLD
        if t5_BLD is not None and hidden.t5_BLD is not None:
            t5_BLD = torch.where(dropped_B[:, None, None], hidden.t5_BLD, t5_BLD)
        return Read(
            torch.where(dropped_B[:, None, None], hidden.states_BLD, self.states_BLD),
            t5_BLD,
            torch.where(dropped_B[:, None], hidden.pooled_BP, self.pooled_BP),
        )


@dataclass(frozen=True)
class Steering:
    """What steers a batch: captions that were read, or tokens whose CLIPs learn and what T5 read of them."""

    read: Read | None = None
    tokens_BWL: Sequence[torch.Tensor] = ()
    """For each CLIP."""
    t5_BLD: torch.Tensor | None = None


class StableDiffusion3Network(torch.nn.Module):
    """Transformer and CLIPs as one module, so that one wrapper holds them all."""

    def __init__(self, transformer: torch.nn.Module, encoders: Sequence[torch.nn.Module], times: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder: torch.nn.Module | None
        self.text_encoder_2: torch.nn.Module | None
        self.text_encoder, self.text_encoder_2 = encoders
        self.times = times

    def forward(self, noisy_BCHW: torch.Tensor, times_B: torch.Tensor, steering: Steering) -> torch.Tensor:
        read = steering.read or self.read(steering.tokens_BWL, steering.t5_BLD)
        found = self.transformer(
            hidden_states=noisy_BCHW,
            timestep=times_B * self.times,
            encoder_hidden_states=self.joined(read),
            pooled_projections=read.pooled_BP,
            return_dict=False,
        )
        return cast(torch.Tensor, found[0])

    def read(self, tokens_BWL: Sequence[torch.Tensor], t5_BLD: torch.Tensor | None) -> Read:
        """States and pooled texts of both CLIPs side by side."""
        assert self.text_encoder is not None, "captions are read while the encoders are awake"
        assert self.text_encoder_2 is not None, "captions are read while the encoders are awake"
        first, of_first = text.states_and_pooled(self.text_encoder, tokens_BWL[0], clip_skip=0)
        second, of_second = text.states_and_pooled(self.text_encoder_2, tokens_BWL[1], clip_skip=0)
        return Read(torch.cat([first, second], dim=-1), t5_BLD, torch.cat([of_first, of_second], dim=-1))

    def joined(self, read: Read) -> torch.Tensor:
        """What the transformer attends to: tokens of CLIP, filled up to the width of T5, then tokens of T5."""
        width = cast(Any, self.transformer).config.joint_attention_dim
        states = functional.pad(read.states_BLD, (0, width - read.states_BLD.shape[-1]))
        t5 = read.t5_BLD
        if t5 is None:
            t5 = states.new_zeros(len(states), T5_TOKENS, width)
        return torch.cat([states, t5], dim=1)


class StableDiffusion3(LatentFamily):
    kind: ClassVar[str] = "sd3"
    Settings: ClassVar[type[Section]] = StableDiffusion3Settings
    denoiser: ClassVar[str] = "transformer"
    convolves: ClassVar[bool] = False
    multiple = 16
    clips: ClassVar[Sequence[str]] = tuple(ENCODERS)
    """T5 never learns."""
    loads_words: ClassVar[bool] = False
    matches_flow: ClassVar[bool] = True
    _bare: StableDiffusion3Network
    lora_targets: ClassVar = {"transformer": targets.OF_MMDIT, **dict.fromkeys(ENCODERS, targets.OF_CLIP)}

    @classmethod
    def tiny(cls, condition: Condition, folder: Path) -> StableDiffusion3Settings:
        from fusain.models.bases import fresh_sd3

        fresh_sd3.write(folder, with_t5=True)
        return StableDiffusion3Settings(base=str(folder), size=32)

    @classmethod
    def conditions(cls) -> tuple[Condition, ...]:
        return ("text",)

    @classmethod
    def left_out(cls, settings: StableDiffusion3Settings) -> tuple[str, ...]:
        return (T5, "tokenizer_3") if settings.t5 == "off" else ()

    def __init__(self, settings: StableDiffusion3Settings, facts: Facts) -> None:
        self.settings, self.facts, self.condition = settings, facts, "text"
        base = bases.open_base(settings.base, revision=settings.revision, without=self.left_out(settings))
        bases.expect(base, "sd3")
        _refuse_others(base, reads_t5=settings.t5 == "on")
        self.base, self.architecture = base, base.architecture
        self.schedule = FlowSchedule.from_diffusers(
            base.scheduler,
            shift=settings.shift,
            density=settings.times,
            mean=settings.times_mean,
            spread=settings.times_spread,
        )
        self._refuse_too_large(settings.size, where="family.size")
        self._tokenizers = {name: bases.load_tokenizer(base, None, part) for name, part in ENCODERS.items()}
        self._t5_tokenizer = bases.load_tokenizer(base, None, "tokenizer_3") if self._reads_t5 else None
        self._autoencoder: torch.nn.Module | None = self._built("vae")
        self._t5: torch.nn.Module | None = self._built(T5) if self._reads_t5 else None
        self._hidden: Read | None = None
        transformer = bases.build(base.components["transformer"])
        encoders = [self._built(name) for name in ENCODERS]
        self._bare = StableDiffusion3Network(transformer, encoders, self.schedule.steps)
        self.network: torch.nn.Module = self._bare

    @property
    def _reads_t5(self) -> bool:
        return bool(self.settings.t5 == "on")

    def _refuse_too_large(self, *sides: int, where: str) -> None:
        transformer, vae = (self.base.components[name].config for name in ("transformer", "vae"))
        pixels_a_latent = 2 ** (len(vae["block_out_channels"]) - 1)
        largest = transformer["pos_embed_max_size"] * transformer["patch_size"] * pixels_a_latent
        if max(sides) > largest:
            raise UsageError("E-MODEL-064", where=where, largest=largest, side=max(sides))

    def tokenizers(self) -> dict[str, Any]:
        return self._tokenizers

    def cutters(self) -> list[Any]:
        return [*self._tokenizers.values(), *([self._t5_tokenizer] if self._reads_t5 else [])]

    def beside(self) -> list[torch.nn.Module]:
        return [*super().beside(), *([] if self._t5 is None else [self._t5])]

    def readers(self) -> Sequence[str]:
        return [*ENCODERS, *([T5] if self._reads_t5 else [])]

    def _keep_hidden(self) -> None:
        self._hidden = self._read([""])

    def _drop_readers(self) -> None:
        super()._drop_readers()
        self._t5 = None

    def _wake_readers(self) -> None:
        super()._wake_readers()
        self._t5 = self._built(T5).to(self.device) if self._reads_t5 else None

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        with latents.as_precise_as_needed(self._autoencoder):
            return latents.moments(self._autoencoder, pixels_BCHW)

    def encode_latents(self, stored: torch.Tensor, fresh: Fresh | None = None) -> torch.Tensor:
        shift, scale = self._shift_and_scale
        return (latents.sampled(stored, fresh) - shift) * scale

    @property
    def _shift_and_scale(self) -> tuple[float, float]:
        """What is taken from latents, and what they are multiplied with then."""
        config = self.base.components["vae"].config
        if self._autoencoder is not None:
            config = cast(Any, self._autoencoder).config
        return float(config.get("shift_factor") or 0.0), float(config.get("scaling_factor", latents.USUAL_SCALE))

    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> Steering:
        if batch.encoded_captions is not None:
            return Steering(self._hiding(self._unpacked(batch.encoded_captions), dropped_B))
        assert batch.captions is not None, "a data set for text has captions"
        encoders = self.text_encoders().values()
        if not any(one.requires_grad for encoder in encoders for one in encoder.parameters()):
            return Steering(self._hiding(self._read(batch.captions), dropped_B))
        captions = text.hiding(batch.captions, dropped_B)
        return Steering(tokens_BWL=self.tokens(captions), t5_BLD=self._read_by_t5(captions))

    def _hiding(self, read: Read, dropped_B: torch.Tensor | None) -> Read:
        """What was read, with what an empty caption becomes in place of some."""
        return read if dropped_B is None else read.hiding(dropped_B, self._hidden or self._read([""]))

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        return self._read(captions).row()

    def _unpacked(self, rows: torch.Tensor) -> Read:
        """The opposite of `Read.row`."""
        widths = [self.base.components[name].config["hidden_size"] for name in ENCODERS]
        pooled = sum(self.base.components[name].config["projection_dim"] for name in ENCODERS)
        t5 = T5_TOKENS * self.base.components[T5].config["d_model"] if self._reads_t5 else 0
        states, by_t5, pooled_BP = torch.split(rows, [rows.shape[1] - t5 - pooled, t5, pooled], dim=1)
        t5_BLD = by_t5.reshape(len(rows), T5_TOKENS, -1) if self._reads_t5 else None
        return Read(states.reshape(len(rows), -1, sum(widths)), t5_BLD, pooled_BP)

    def tokens(self, captions: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """For each CLIP."""
        found = (text.tokens(tokenizer, captions, windows=1) for tokenizer in self._tokenizers.values())
        return tuple(tokens_BWL.to(self.device) for tokens_BWL in found)

    def foreseen(self, names: Sequence[str], captions: Sequence[str]) -> Iterator[Notice]:
        yield from self.base.notes
        if not self._reads_t5:  # which reads more of a long caption
            yield from text.cuts(self._tokenizers["text_encoder"], names, captions, windows=1)

    def _read(self, captions: Sequence[str]) -> Read:
        with torch.no_grad():
            return self._bare.read(self.tokens(captions), self._read_by_t5(captions))

    def _read_by_t5(self, captions: Sequence[str]) -> torch.Tensor | None:
        if not self._reads_t5:
            return None
        assert self._t5 is not None, "captions are read while the encoders are awake"
        found = cast(Any, self._t5_tokenizer)(
            list(captions), padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            return cast(torch.Tensor, self._t5(found.input_ids.to(self.device))[0])

    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor:
        return cast(torch.Tensor, self.network(noisy, times_B, condition))

    def pipeline(self, scheduler: Any) -> Any:
        from diffusers import StableDiffusion3Pipeline

        pipeline = StableDiffusion3Pipeline(
            transformer=self._bare.transformer,
            scheduler=scheduler,
            vae=self._autoencoder,
            text_encoder=self._bare.text_encoder,
            tokenizer=self._tokenizers["text_encoder"],
            text_encoder_2=self._bare.text_encoder_2,
            tokenizer_2=self._tokenizers["text_encoder_2"],
            text_encoder_3=self._t5,
            tokenizer_3=self._t5_tokenizer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, request: DrawRequest) -> torch.Tensor:
        prompts = list(request.prompts or [""] * len(request.generators))
        negatives = list(request.negatives or [""] * len(prompts))
        height, width = request.size or (self.settings.size, self.settings.size)
        self._refuse_too_large(height, width, where="--size")
        with self._awake(), torch.no_grad():
            towards, away = self._read(prompts), self._read(negatives)
            found = self.pipeline(request.scheduler)(
                prompt_embeds=self._bare.joined(towards),
                pooled_prompt_embeds=towards.pooled_BP,
                negative_prompt_embeds=self._bare.joined(away),
                negative_pooled_prompt_embeds=away.pooled_BP,
                generator=list(request.generators),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                height=height,
                width=width,
                output_type="latent",
            ).images
            shift, scale = self._shift_and_scale
            with latents.as_precise_as_needed(self._autoencoder):
                pixels = cast(Any, self._autoencoder).decode(found.float() / scale + shift, return_dict=False)[0]
        return cast(torch.Tensor, pixels).float().div(2).add(0.5).clamp(0, 1).cpu()

    def save(self, folder: Path) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(**self.schedule.as_diffusers())
        with self._awake():
            pipeline_folder.save(self.pipeline(scheduler), folder)

    def load(self, folder: Path) -> None:
        weights.load_into(self._bare.transformer, folder / "transformer")
        assert self._autoencoder is not None, "weights are loaded before anything rests"
        latents.load_autoencoder(self._autoencoder, folder / "vae")
        for name, encoder in self.text_encoders().items():
            text.load_encoder(encoder, folder / name)


def _refuse_others(base: bases.Base, *, reads_t5: bool) -> None:
    """What has the name of Stable Diffusion 3 and is read or trained in another way."""
    if not base.components:
        raise SettingsError("E-MODEL-062", where="family.base")
    if reads_t5 and T5 not in base.components:
        raise SettingsError("E-MODEL-065", where="family.t5", base=base.source)
    unlike = next((f"its scheduler has {name}" for name in OTHERWISE if base.scheduler.get(name)), None)
    if base.components["vae"].config.get("latents_mean"):
        unlike = "its latents are scaled one by one"
    if unlike is not None:
        raise SettingsError("E-MODEL-063", where="family.base", base=base.source, what=unlike)
