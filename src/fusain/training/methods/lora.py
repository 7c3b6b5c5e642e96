"""Small matrices beside the frozen weights learn (LoRA): a file of a few megabytes that loads into other tools too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
from pydantic import Field

from fusain.data.batch import Batch
from fusain.data.lock import some
from fusain.errors import SettingsError
from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank
from fusain.models.family import Condition, Family
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced, basic
from fusain.training import low_rank
from fusain.training.encoder_stop import EncoderStop
from fusain.training.losses import Loss, LossSettings, denoising_loss
from fusain.training.low_rank import TEXT, Place
from fusain.training.method import Lesson, Method, Progress
from fusain.training.read_back import ReadBack
from fusain.training.usual import BySize, Usual

Plain = Literal["attention", "attention+feed_forward", "all"]
FILES: Final[dict[adapters.Style, str]] = {"diffusers": "lora.safetensors", "kohya": "lora_kohya.safetensors"}
"""The same LoRA for diffusers, and for A1111, Forge and ComfyUI."""
TYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
USUAL_SCALES: Final = (0.1, 4.0)
NAMES_SHOWN: Final = 5


class LoraSettings(Section):
    """Small matrices beside the frozen weights learn: little memory, and a small file."""

    kind: Literal["lora"] = "lora"
    rank: int = basic(16, ge=1, le=1024, usual=(2, 128))
    """How much the matrices can hold: 4 to 16 for a subject or a simple style, 32 to 128 for a world of images."""
    alpha: float | None = Field(None, gt=0, le=4096)
    """Weights change by alpha / rank times what is learnt. Without it, as much as the rank: a factor of 1."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a layer's inputs that the matrices do not see at each step: against learning by heart, 0 to 0.1."""
    targets: Plain | tuple[str, ...] = advanced("attention", union_mode="left_to_right")
    """Where: the `attention` layers, `attention+feed_forward` (what kohya's trainer does by default), `all` linear and
    convolution layers, or patterns such as `["attn2.to_k", "unet.mid_block.*"]`."""
    rank_stabilised: bool = False
    """Divide alpha by the root of the rank instead (rsLoRA), so that high ranks learn as fast as low ones."""
    dora: bool = False
    """Learn the length of each weight row apart from its direction (DoRA): closer to training all weights, slower."""
    plus_ratio: float = Field(1.0, ge=1, le=64)
    """How many times faster the second matrix of each layer learns (LoRA+): 1 is off, 16 is its authors' value."""
    text_encoder: bool = False
    """Whether the text encoder learns as well: closer to new words, slower, and sooner overtrained."""
    text_encoder_rate: float = Field(0.5, gt=0, le=10)
    """Learning rate of the text encoder, as a factor of `train.learning_rate`."""
    text_encoder_steps: int | None = Field(None, ge=1)
    """After so many steps the text encoder learns no more, while the rest goes on; without it it learns to the end."""
    start: Path | None = None
    """A LoRA file to go on from, in the style of diffusers or kohya. Its rank must be this one."""
    condition_dropout: float = Field(0.0, ge=0, le=1)
    """Share of images whose caption is hidden. The base can do without captions; more lets a style into every image."""
    file_dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    """Numbers in the saved files: `fp16` is what other tools save, `fp32` is exact and twice as large."""
    loss: LossSettings = LossSettings()

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied with."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def silent_settings(self) -> dict[str, str]:
        if self.text_encoder:
            return {}
        return dict.fromkeys(("text_encoder_rate", "text_encoder_steps"), "the text encoder does not learn")

    def notices(self) -> Iterable[Notice]:
        low, high = USUAL_SCALES
        if self.alpha is not None and not low <= self.scale <= high:
            way = "weaker" if self.scale < low else "stronger"
            yield Notice(
                "W-LORA-020", where="method.alpha", alpha=f"{self.alpha:g}", scale=f"{self.scale:.3g}", way=way
            )


class Lora(Method):
    """Hu et al. 2021; with Kalajdzievski 2023 (rsLoRA), Liu et al. 2024 (DoRA), Hayou et al. 2024 (LoRA+)."""

    kind: ClassVar[str] = "lora"
    Settings: ClassVar[type[Section]] = LoraSettings
    needs: ClassVar[frozenset[Condition]] = frozenset({"text"})
    leaves_base: ClassVar[bool] = True
    may_be_split: ClassVar[bool] = True
    usual: ClassVar[Usual] = Usual(
        rates=BySize(small=(1e-4, 5e-3), medium=(1e-5, 1e-3), large=(1e-5, 5e-4)),
        times=(1, 500),
        own={"rank": BySize(small=(2, 32), medium=(2, 128), large=(2, 128))},
    )
    loaded_by: ClassVar[str] = f'load_lora_weights("{{repo}}", weight_name="{FILES["diffusers"]}")'

    def __init__(self, settings: LoraSettings) -> None:
        self.settings = settings
        self.strength = 1.0
        self.step = 0
        self.encoder_stop = EncoderStop(settings.text_encoder_steps if settings.text_encoder else None)
        self._layers: dict[str, Any] = {}
        self._fresh: list[str] = []
        """Layers that the file to go on from says nothing of."""
        self._assumed: tuple[Notice, ...] = ()
        """What had to be assumed to read that file."""

    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        self._put_in(family)
        if self.settings.start is not None and torch.get_default_device().type != "meta":
            self._begin_from(self.settings.start)
        return low_rank.parameters(self._layers)

    def _put_in(self, family: Family) -> None:
        settings = self.settings
        family.network.requires_grad_(False)
        self._layers = low_rank.put_in(
            family.network,
            self._wanted(family),
            r=settings.rank,
            lora_alpha=settings.rank if settings.alpha is None else settings.alpha,
            lora_dropout=settings.dropout,
            use_rslora=settings.rank_stabilised,
            use_dora=settings.dora,
        )

    def _wanted(self, family: Family) -> list[Place]:
        """The layers that the settings name, as the family has them."""
        if not family.lora_targets:
            raise SettingsError("E-LORA-051", where="method.kind", family=family.kind)
        parts = [part for part in family.lora_targets if self.settings.text_encoder or not part.startswith(TEXT)]
        places, targets = low_rank.places(family.network, parts), self.settings.targets
        if targets == "all":
            return list(places.values())
        covered: set[str] = set()
        for pattern in self._patterns(family, parts):
            found = low_rank.matching(places, pattern)
            if not found and not isinstance(targets, str):
                near = ", ".join(low_rank.near(places, pattern))
                raise SettingsError("E-LORA-052", where="method.targets", pattern=pattern, near=near)
            covered.update(found)
        if self.settings.text_encoder and not any(name.startswith(TEXT) for name in covered):
            raise SettingsError("E-LORA-053", where="method.text_encoder")
        return [place for name, place in places.items() if name in covered]

    def _patterns(self, family: Family, parts: list[str]) -> list[str]:
        targets = self.settings.targets
        if not isinstance(targets, str):
            return list(targets)
        kinds = targets.split("+")
        return [f"{part}.{path}" for part in parts for kind in kinds for path in family.lora_targets[part][kind]]

    def _begin_from(self, path: Path) -> None:
        found = adapters.read(path)
        fits = {name: layer for name, layer in found.layers.items() if name in self._layers}
        own = low_rank.read_out(self._layers)
        unlike = [name for name, layer in fits.items() if layer.matrix != own[name].matrix]
        if not fits or unlike:
            raise SettingsError("E-LORA-054", where=str(path), **_first_unlike(found, own, unlike))
        foreign = sorted(found.layers.keys() - fits.keys())
        if foreign:
            facts: dict[str, Any] = {"count": len(foreign), "total": len(found.layers), "matched": len(fits)}
            raise SettingsError("E-LORA-055", where=str(path), first=some(foreign, NAMES_SHOWN), **facts)
        for name, layer in fits.items():
            if not isinstance(layer, LowRank) or (layer.magnitude is not None) != self.settings.dora:
                raise SettingsError("E-LORA-057", where=str(path), kind=_kind(layer), wanted=_kind(own[name]))
            if layer.rank != self.settings.rank:
                raise SettingsError("E-LORA-056", where=str(path), rank=layer.rank, wanted=self.settings.rank)
            low_rank.begin_from(self._layers[name], layer.plain())
        self._fresh = [name for name in self._layers if name not in fits]
        self._assumed = found.notes

    def rates(self, names: Iterable[str]) -> Mapping[str, float]:
        settings = self.settings
        return {
            name: (settings.text_encoder_rate if name.startswith(TEXT) else 1.0)
            * (settings.plus_ratio if name.endswith(".lora_B.weight") else 1.0)
            for name in names
        }

    def encoders_at_work(self) -> frozenset[str]:
        return frozenset({"text_encoder"}) if self.settings.text_encoder else frozenset()

    def foreseen(self, family: Family, epochs: float) -> Iterable[Notice]:
        yield from self._assumed
        if self._fresh:
            facts = {"count": len(self._fresh), "total": len(self._layers), "first": self._fresh[0]}
            yield Notice("W-LORA-022", where="method.start", **facts)
        nameless = adapters.nameless(self._layers, family.architecture)
        if nameless:
            facts = {"count": len(nameless), "total": len(self._layers), "first": nameless[0]}
            yield Notice("W-LORA-023", where="family.base", file=FILES["kohya"], **facts)

    def loss(self, family: Family, batch: Batch, *, seed: int, quantiles: np.ndarray | None = None) -> Loss:
        dropout = self.settings.condition_dropout if quantiles is None else 0.0
        return denoising_loss(
            family, batch, self.settings.loss, seed=seed, condition_dropout=dropout, quantiles=quantiles
        )

    def after_step(self, family: Family, progress: Progress) -> str | None:
        self.step = progress.step
        return self.encoder_stop.in_time(family, progress.step)

    def state(self) -> dict[str, Any]:
        lesson = asdict(self.lesson) if self.lesson else None
        return {"step": self.step, "encoder_stopped_at": self.encoder_stop.stopped_at, "lesson": lesson}

    def restore(self, family: Family, state: dict[str, Any]) -> None:
        self.step = state["step"]
        if self.lesson is None and (lesson := state.get("lesson")) is not None:
            self.lesson = Lesson(**lesson)
        if (stopped_at := state.get("encoder_stopped_at")) is not None:
            self.encoder_stop.stop(family, stopped_at)

    def save(self, family: Family, folder: Path) -> ReadBack:
        """One file for each style that can hold it, read back and held against what was learnt."""
        learnt = low_rank.read_out(self._layers)
        if self.settings.file_dtype == "fp16":
            learnt = {name: low_rank.balanced(layer) for name, layer in learnt.items()}
        adapter, dtype = Adapter(learnt, self._told(family)), TYPES[self.settings.file_dtype]
        folder.mkdir(parents=True, exist_ok=True)
        files = {style: FILES[style] for style in adapters.styles_for(adapter)}
        for style, file in files.items():
            adapters.write(adapter, folder / file, style, dtype=dtype)
        weight_of = partial(low_rank.weight_of, self._layers)
        found = adapters.verify(adapter, *(folder / file for file in files.values()), weight_of=weight_of)
        return ReadBack(tuple(files.values()), found.matched, len(self._layers), found.largest)

    def _told(self, family: Family) -> dict[str, str]:
        """What the header of a file says of the training."""
        settings = self.settings
        form = {"rank_stabilised": settings.rank_stabilised, "dora": settings.dora, "plus_ratio": settings.plus_ratio}
        told = {
            "ss_steps": str(self.step),
            "ss_network_dropout": f"{settings.dropout:g}",
            "ss_network_args": json.dumps(form),
            "ss_resolution": f"({family.settings.size}, {family.settings.size})",
            "modelspec.resolution": f"{family.settings.size}x{family.settings.size}",
            "modelspec.prediction_type": family.schedule.prediction,
            **adapters.for_model(family.architecture, family.schedule.prediction),
            **(_of_lesson(self.lesson, self.step) if self.lesson else {}),
        }
        return told | ({"ss_sd_model_name": family.base_name} if family.base_name else {})

    def at_strength(self, strength: float) -> None:
        self.strength = strength

    def attach(self, family: Family, folder: Path) -> None:
        self._into_weights(family, adapters.read(folder / FILES["diffusers"]))

    def take_up(self, family: Family, parameters: Mapping[str, torch.Tensor]) -> None:
        self._put_in(family)
        with torch.no_grad():
            for name, parameter in low_rank.parameters(self._layers).items():
                parameter.copy_(parameters[name])

    def attach_parameters(self, family: Family, parameters: Mapping[str, torch.Tensor]) -> None:
        self.take_up(family, parameters)
        adapter = Adapter(low_rank.read_out(self._layers))
        low_rank.take_away(family.network, family.lora_targets)
        self._into_weights(family, adapter)

    def _into_weights(self, family: Family, adapter: Adapter) -> None:
        """The base then draws as fast as ever; at strength 0 it stays what it was, to the last bit."""
        if self.strength:
            parts = {part: family.network.get_submodule(part) for part in family.lora_targets}
            adapters.apply(adapter, parts, strength=self.strength)


def _of_lesson(lesson: Lesson, step: int) -> dict[str, str]:
    """As kohya's trainer calls it, which counts each image as often as it is repeated."""
    told = {
        "ss_num_train_images": str(lesson.images),
        "ss_num_reg_images": str(lesson.class_images),
        "ss_num_epochs": str(math.ceil(step / lesson.steps_per_epoch)),
        "ss_learning_rate": f"{lesson.learning_rate:g}",
    }
    return told | ({"modelspec.trigger_phrase": lesson.trigger} if lesson.trigger else {})


def _kind(layer: adapters.Layer) -> str:
    if not isinstance(layer, LowRank):
        return "LoHa" if isinstance(layer, adapters.Hadamard) else "LoKr"
    return "LoRA" if layer.magnitude is None else "DoRA"


def _first_unlike(found: Adapter, own: Mapping[str, LowRank], unlike: list[str]) -> dict[str, Any]:
    """The layer that shows that a file was made for another network."""
    if not unlike:
        return {"layer": next(iter(sorted(found.layers)), "none"), "found": "is in the file", "wanted": "is not here"}
    there, here = found.layers[unlike[0]].matrix, own[unlike[0]].matrix
    spelt = [f"{outputs} x {inputs}" for outputs, inputs in (there, here)]
    return {"layer": unlike[0], "found": f"is {spelt[0]} in the file", "wanted": f"{spelt[1]} here"}
