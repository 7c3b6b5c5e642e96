"""The table of samplers: plain names for diffusers' schedulers, what each is set to, and which models it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from fusain.errors import UsageError
from fusain.settings.section import Section, basic

if TYPE_CHECKING:  # the names are read without torch
    from fusain.models.family import Schedule

SamplerName = Literal[
    "ddim",
    "ddpm",
    "dpm++-2m",
    "dpm++-2m-karras",
    "dpm++-2m-sde",
    "dpm++-2m-sde-karras",
    "unipc",
    "euler",
    "euler-ancestral",
    "heun",
    "pndm",
    "lcm",
]

# The last time is where images start from, so few steps lose least when the times end there (Lin et al. 2024);
# the formulas of DDPM and PNDM assume the evenly led times that they were published with.
_TRAILING: Final = {"timestep_spacing": "trailing"}
_LEADING: Final = {"timestep_spacing": "leading"}
# Pixels end at -1 and 1, and so does each guess of the final image; "dynamic" thresholds of at most 1 are just that.
_CLIPPED: Final = {"clip_sample": True}
_THRESHOLDED: Final = {"thresholding": True, "sample_max_value": 1.0}
_LCM_STEPS: Final = 50


@dataclass(frozen=True)
class Sampler:
    """One row of the table."""

    scheduler: str
    """diffusers' name of it."""
    settings: Mapping[str, Any]
    """How it is set; all that other bases may have set otherwise is said."""
    of_pixels: Mapping[str, Any] = field(default_factory=dict)
    """What holds pixels in their range, and is off for latents."""
    takes: tuple[str, ...] = ()
    """What its step asks for beside the prediction: the generator of fresh noise, DDIM's eta."""
    reads_images: bool = True
    """Whether it draws from models that predict the image itself."""
    begins_at_zero: bool = True
    """Whether it can begin where nothing of the image is left."""
    most_steps: int | None = None
    of_flow: str = ""
    """diffusers' name of it for models that match a flow; empty where it does not draw from them."""


_DPM: Final = "DPMSolverMultistepScheduler"
_SDE: Final = {**_TRAILING, "algorithm_type": "sde-dpmsolver++"}
# Its noise levels grow with the last one; where that has no end, several fall on one time.
_KARRAS: Final = {"use_karras_sigmas": True}
_PNDM: Final = {**_LEADING, "skip_prk_steps": True, "set_alpha_to_one": False}
_FRESH: Final = ("generator",)
# Along a flow the step of DDIM is that of Euler.
_EULER: Final = "FlowMatchEulerDiscreteScheduler"
_HEUN: Final = "FlowMatchHeunDiscreteScheduler"

SAMPLERS: Final[dict[SamplerName, Sampler]] = {
    "ddim": Sampler(
        "DDIMScheduler", _TRAILING | {"set_alpha_to_one": True}, _CLIPPED, takes=("generator", "eta"), of_flow=_EULER
    ),
    "ddpm": Sampler("DDPMScheduler", _LEADING, _CLIPPED, _FRESH),
    "dpm++-2m": Sampler(_DPM, _TRAILING, _THRESHOLDED, _FRESH),
    "dpm++-2m-karras": Sampler(_DPM, _TRAILING | _KARRAS, _THRESHOLDED, _FRESH, begins_at_zero=False),
    "dpm++-2m-sde": Sampler(_DPM, _SDE, _THRESHOLDED, _FRESH),
    "dpm++-2m-sde-karras": Sampler(_DPM, _SDE | _KARRAS, _THRESHOLDED, _FRESH, begins_at_zero=False),
    "unipc": Sampler("UniPCMultistepScheduler", _TRAILING, _THRESHOLDED),
    "euler": Sampler("EulerDiscreteScheduler", _TRAILING, takes=_FRESH, of_flow=_EULER),
    "euler-ancestral": Sampler("EulerAncestralDiscreteScheduler", _TRAILING, takes=_FRESH, reads_images=False),
    "heun": Sampler("HeunDiscreteScheduler", _TRAILING, _CLIPPED, begins_at_zero=False, of_flow=_HEUN),
    "pndm": Sampler("PNDMScheduler", _PNDM, reads_images=False, begins_at_zero=False),
    "lcm": Sampler("LCMScheduler", {"set_alpha_to_one": True}, _CLIPPED, _FRESH, most_steps=_LCM_STEPS),
}
ELSEWHERE: Final[dict[str, SamplerName]] = {
    "euler-a": "euler-ancestral",
    "k-euler": "euler",
    "k-euler-a": "euler-ancestral",
    "k-dpm-2m": "dpm++-2m",
    "dpmsolver": "dpm++-2m",
    "dpmsolver++": "dpm++-2m",
    "dpm++-sde": "dpm++-2m-sde",
    "dpm++-sde-karras": "dpm++-2m-sde-karras",
    "plms": "pndm",
    **{row.scheduler.lower(): name for name, row in reversed(SAMPLERS.items())},
}
"""What other tools call them, in small letters and with hyphens: for the help when a name is not known."""


class SamplerSettings(Section):
    """How images are drawn from a model."""

    sampler: SamplerName = basic("ddim", json_schema_extra={"elsewhere": ELSEWHERE})
    """`ddim`, `dpm++-2m`, `unipc`, `euler` and `heun` (twice the work a step) draw well in 10 to 30 steps;
    `euler-ancestral` and those with `sde` add fresh noise; `ddpm` needs hundreds of steps, `lcm` a model made for
    it."""
    steps: int = basic(20, ge=1, le=10_000)
    """Denoising steps an image. More is slower; beyond 50, most samplers gain little."""
    eta: float = Field(0.0, ge=0, le=1)
    """Fresh noise in each `ddim` step: 0 draws the same image for a seed, 1 behaves like `ddpm`."""
    guidance: float = basic(1.0, ge=0, le=30)
    """How hard the condition pulls. 1 asks it alone; classes take 1.5 to 4, prompts 4 to 10: clearer, less varied."""

    def silent_settings(self) -> dict[str, str]:
        return {} if "eta" in SAMPLERS[self.sampler].takes else {"eta": f"sampler {self.sampler} has no eta"}


def check(settings: SamplerSettings, schedule: Schedule, *, where: str = "--") -> None:
    """Whether the sampler fits the model, before anything is drawn; `where` stands before the names of settings."""
    if reason := _unfit(SAMPLERS[settings.sampler], schedule):
        fitting = ", ".join(name for name, row in SAMPLERS.items() if not _unfit(row, schedule))
        raise UsageError("E-GEN-012", where=f"{where}sampler", sampler=settings.sampler, reason=reason, fitting=fitting)
    if schedule.prediction == "flow" and settings.eta and "eta" in SAMPLERS[settings.sampler].takes:
        raise UsageError("E-GEN-014", where=f"{where}eta", eta=settings.eta)
    most = min(schedule.steps, SAMPLERS[settings.sampler].most_steps or schedule.steps)
    if settings.steps > most:
        raise UsageError(
            "E-GEN-013", where=f"{where}steps", sampler=settings.sampler, most=f"{most:,}", steps=settings.steps
        )


def _unfit(row: Sampler, schedule: Schedule) -> str:
    if schedule.prediction == "flow":
        return "" if row.of_flow else "it cannot draw from a model that matches a flow"
    if schedule.prediction == "sample" and not row.reads_images:
        return "it cannot read a model that predicts the image itself (prediction = sample)"
    if schedule.zero_terminal_snr and not row.begins_at_zero:
        return "it cannot begin where nothing of the image is left (zero terminal SNR)"
    return ""


def make_scheduler(settings: SamplerSettings, schedule: Schedule) -> Any:
    """A fresh diffusers scheduler."""
    import diffusers

    check(settings, schedule)
    if schedule.prediction == "flow":
        return getattr(diffusers, SAMPLERS[settings.sampler].of_flow)(**schedule.as_diffusers())
    given = in_diffusers(
        settings,
        of_latents=schedule.of_latents,
        times=schedule.steps,
        zero_terminal_snr=schedule.zero_terminal_snr,
    )
    # Times of latent models are counted from 1 in what is published of them.
    offset = {"steps_offset": int(schedule.of_latents)}
    return getattr(diffusers, SAMPLERS[settings.sampler].scheduler)(**schedule.as_diffusers(), **offset, **given)


def in_diffusers(settings: SamplerSettings, *, of_latents: bool, times: int, zero_terminal_snr: bool) -> dict[str, Any]:
    """What the scheduler is set to beside the noise that the model was trained with."""
    row = SAMPLERS[settings.sampler]
    given = {**row.settings, **row.of_pixels}
    if of_latents:
        given = {**row.settings, **{name: False for name in row.of_pixels if name in ("clip_sample", "thresholding")}}
    if row.most_steps:
        given["original_inference_steps"] = min(row.most_steps, times)
    elif zero_terminal_snr or settings.steps == times:
        given |= _TRAILING  # else the time that images start from is never visited, or one after the last is
    return given
