"""Which model a file or a folder holds, told by the names and shapes of its weights or by its pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fusain.errors import SettingsError, UnsafeFileError
from fusain.models.bases.opened import Base

ARCHITECTURES: Final = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sdxl-refiner": "the refiner of Stable Diffusion XL",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux",
}
"""Every architecture that is told apart, in words."""

COMPONENTS: Final[dict[str, tuple[str, ...]]] = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sd2": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
}
"""What is read of each; of the others nothing is."""
OPTIONAL: Final = ("text_encoder_3",)
"""What a model may lack: T5 is as large as all else together."""

PIPELINES: Final = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionImg2ImgPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl-refiner",
    "StableDiffusionXLInpaintPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}


def plain(architecture: str) -> str:
    """An architecture without its purpose: 'sd1-inpainting' is made as 'sd1' is."""
    return architecture if architecture in ARCHITECTURES else architecture.partition("-")[0]


def in_words(architecture: str) -> str:
    """An architecture for people: 'sd1-inpainting' is Stable Diffusion 1.x for inpainting."""
    made_as = plain(architecture)
    if architecture == made_as or made_as not in ARCHITECTURES:
        return ARCHITECTURES.get(architecture, architecture)
    return f"{ARCHITECTURES[made_as]} for {architecture.removeprefix(f'{made_as}-')}"


def components(architecture: str, index: Mapping[str, Any]) -> list[str]:
    """What is read of a pipeline; `index` says what it has of the rest."""
    return [name for name in COMPONENTS.get(architecture, ()) if name not in OPTIONAL or is_there(index.get(name))]


def is_there(named: Any) -> bool:
    """Whether the entry of a component in `model_index.json` names a class."""
    return isinstance(named, list) and bool(named) and named[0] is not None


def of_folder(index: Mapping[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> str:
    """The architecture of a diffusers folder.

    1.x and 2.x have one pipeline; whatever their size, their text encoders differ in the activation: OpenAI's CLIP
    has 'quick_gelu', OpenCLIP 'gelu'.
    """
    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        if not isinstance(pipeline, str):
            raise UnsafeFileError("E-SEC-002", where=str(folder), what="a `_class_name` that is no name")
        raise SettingsError("E-MODEL-036", where=str(folder), found=pipeline)
    found = PIPELINES[pipeline]
    if found == "sd":
        activation = read(folder / "text_encoder" / "config.json").get("hidden_act", "quick_gelu")
        found = "sd1" if activation == "quick_gelu" else "sd2"
    if "unet" in COMPONENTS.get(found, ()):
        found += purpose_of(read(folder / "unet" / "config.json").get("in_channels", 4))
    return found


def purpose_of(channels: int) -> str:
    """What a UNet is for, by the number of channels that enter."""
    return {9: "-inpainting", 8: "-editing", 5: "-depth", 7: "-upscaling"}.get(channels, "")


def expect(base: Base, *wanted: str) -> None:
    """The base is of one of the `wanted` architectures, or it is an error that says what it is and what told."""
    if base.architecture not in wanted:
        names = " or ".join(ARCHITECTURES[name] for name in wanted)
        raise wrong(base.source, in_words(base.architecture), names, base.evidence)


def wrong(where: str, found: str, wanted: str, evidence: str) -> SettingsError:
    """The error for a model of another kind."""
    return SettingsError("E-MODEL-044", where=where, found=found, wanted=wanted, key=evidence)
