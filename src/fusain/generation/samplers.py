"""The table of samplers: plain names for diffusers' schedulers and what each is set to."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fusain.models.family import NoiseSchedule
from fusain.settings.section import Section, basic

SamplerName = Literal["ddim", "ddpm"]

# The last time is where images start from, so few steps lose least when the times end there ("trailing",
# Lin et al. 2024); DDPM's formula assumes the evenly led times that it was published with.
_TABLE: dict[SamplerName, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "ddpm": ("DDPMScheduler", {}),
}


class SamplerSettings(Section):
    """How images are drawn from a model."""

    sampler: SamplerName = basic("ddim")
    """`ddim` draws well in 10 to 50 steps; `ddpm` needs hundreds."""
    steps: int = basic(20, ge=1, le=10_000)
    """Denoising steps an image. More is slower; beyond 50, `ddim` gains little."""
    eta: float = Field(0.0, ge=0, le=1)
    """Fresh noise in each `ddim` step: 0 draws the same image for a seed, 1 behaves like `ddpm`."""
    guidance: float = basic(1.0, ge=0, le=30)
    """How hard the condition pulls. 1 asks it alone; classes take 1.5 to 4, prompts 4 to 10: clearer, less varied."""

    def silent_settings(self) -> dict[str, str]:
        return {} if self.sampler == "ddim" else {"eta": f"sampler {self.sampler} has no eta"}


def make_scheduler(name: SamplerName, schedule: NoiseSchedule) -> Any:
    """A fresh diffusers scheduler."""
    import diffusers

    class_name, settings = _TABLE[name]
    # Times of latent models are counted from 1 in what is published of them.
    space = {"clip_sample": not schedule.of_latents, "steps_offset": int(schedule.of_latents)}
    return getattr(diffusers, class_name)(**schedule.as_diffusers(), **space, **settings)
