"""Draws the pictures of the concepts page, from the very functions that train and draw: `python -m tests.diagrams`.

Names after it draw those alone: `python -m tests.diagrams losses schedules`. Each file says in its own text what it
shows, and which weights the base had that drew it: the tests hold it against what there is now.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SAMPLERS, SamplerSettings
from fusain.models import flow, noise
from fusain.models.bases import opening
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from fusain.models.flow import Density, FlowSchedule
from fusain.training import noises
from fusain.training.averaging import Average
from fusain.training.losses import LossSettings, distance
from fusain.training.schedules import ScheduleName, learning_rate
from fusain.training.trainer import TrainSettings
from fusain.worlds.caricatures import world
from tests.charts import chart, sheet, small_charts

PICTURES = Path(__file__).parents[1] / "docs" / "pictures" / "concepts"
BASE = "fusain:mini-sd"
TIMES, SIDE = 1000, 64
PROMPT = "an ink drawing of someone with green skin and pointed ears, on a yellow background"
CLEAR_TO_NOISY = ("clear", "pure noise")


def _face() -> torch.Tensor:
    """One drawn face as a network sees it: from -1 to 1, channels first."""
    return torch.from_numpy(world(1, seed=5).images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1


def _fresh(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pixels(image_BCHW: torch.Tensor) -> np.ndarray:
    return ((image_BCHW[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def _levels(schedule: noise.Betas) -> torch.Tensor:
    # The two linear ones begin and end as in the papers that they are of.
    ends = {"start": 0.00085, "end": 0.012} if schedule == "scaled_linear" else {}
    return noise.signal_levels(noise.betas(schedule, TIMES, **ends))


def betas() -> Image.Image:
    """How much of an image is left, as images."""
    clean, fresh = _face(), _fresh(0, 1, 3, SIDE, SIDE)
    times = [0, 100, 250, 400, 600, 800, 999]
    rows = {
        name: [_pixels(noise.add_noise(clean, fresh, _levels(name)[time : time + 1])) for time in times]
        for name in get_args(noise.Betas)
    }
    return sheet(rows, [f"t = {time}" for time in times], side=72)


def signal() -> Image.Image:
    """The same as curves, and the stretched one that ends at nothing."""
    lines = {name: _levels(name).sqrt().numpy() for name in get_args(noise.Betas)}
    stretched = noise.betas("scaled_linear", TIMES, start=0.00085, end=0.012)
    lines["zero terminal SNR"] = noise.signal_levels(noise.zero_terminal(stretched)).sqrt().numpy()
    return chart(lines, across="time", up="how much of the image is left", ends=("0", "1000"))


def predictions() -> Image.Image:
    """What the network is given, and what it is asked for."""
    clean, fresh, levels = _face(), _fresh(0, 1, 3, SIDE, SIDE), _levels("scaled_linear")
    times = [50, 250, 500, 750, 950]
    rows = {"what it is given": [_pixels(noise.add_noise(clean, fresh, levels[time : time + 1])) for time in times]}
    for name in get_args(noise.Prediction):
        asked = [noise.target(name, clean, fresh, levels[time : time + 1]) for time in times]
        rows[f"asked for {name}"] = [_pixels(one if name == "sample" else one / 2) for one in asked]
    return sheet(rows, [f"t = {time}" for time in times], side=84)


def lines_of_flow() -> Image.Image:
    """What a network that matches a flow is given, and what it is asked for."""
    clean, fresh = _face(), _fresh(0, 1, 3, SIDE, SIDE)
    times = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    rows = {
        "what it is given": [_pixels(flow.add_noise(clean, fresh, time)) for time in times.split(1)],
        "asked for": [_pixels(flow.target(clean, fresh) / 2)] * len(times),
    }
    return sheet(rows, [f"t = {time:g}" for time in times.tolist()], side=84)


def times_of_flow() -> Image.Image:
    """How often each time of a flow is drawn."""
    quantiles, lines = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000, {}
    for density in get_args(Density):
        for shift in (1.0, 3.0):
            times = FlowSchedule(shift=shift, density=density).times(quantiles)
            lines[f"{density}, shift {shift:g}"] = (torch.histc(times, 80, 0, 1) * 80 / len(quantiles)).numpy()
    return chart(lines, across="time", up="how often it is drawn", ends=CLEAR_TO_NOISY)


def losses() -> Image.Image:
    """What an error of one pixel costs."""
    errors = torch.linspace(-1.4, 1.4, 301)
    names = get_args(LossSettings.model_fields["kind"].annotation)
    kinds = {name: LossSettings(kind=name, huber_delta=0.5) for name in names}
    lines = {name: distance(errors, torch.zeros(301), settings).numpy() for name, settings in kinds.items()}
    return chart(lines, across="error of a pixel", up="loss", ends=("-1.4", "1.4"), limits=(0.0, 2.0))


def weights() -> Image.Image:
    """How much a time counts in the loss of epsilon."""
    levels = _levels("scaled_linear")
    lines = {
        "none": np.ones(TIMES),
        "min_snr_gamma = 5": noise.min_snr_weight("epsilon", levels, 5.0).numpy(),
        "p2_gamma = 1": noise.p2_weight("epsilon", levels, 1.0).numpy(),
        "debiased, up to 15": noise.debiased_weight("epsilon", levels).numpy(),
    }
    return chart(lines, across="time", up="weight", ends=CLEAR_TO_NOISY, limits=(0.0, 4.0))


def kinds_of_noise() -> Image.Image:
    """Six draws of each kind of noise."""
    seeds = range(6)
    plain = [_fresh(seed, 1, 3, SIDE, SIDE) for seed in seeds]
    shifted = [noises.offset(one, _fresh(50 + seed, 1, 3, 1, 1), 0.3) for seed, one in zip(seeds, plain, strict=True)]
    coarse = [
        noises.pyramid(one, lambda shape, seed=seed: _fresh(100 + seed + shape[-1], 1, *shape), 0.7)
        for seed, one in zip(seeds, plain, strict=True)
    ]
    seen = [
        noises.perturbed(one, _fresh(200 + seed, 1, 3, SIDE, SIDE), 1.0) for seed, one in zip(seeds, plain, strict=True)
    ]
    rows = {
        "plain": plain,
        "noise_offset = 0.3": shifted,
        "pyramid_discount = 0.7": coarse,
        "input_perturbation = 1": seen,
    }
    shown = {name: [_pixels(one / 2.5) for one in images] for name, images in rows.items()}
    return sheet(shown, [f"draw {seed + 1}" for seed in seeds], side=84)


def times() -> Image.Image:
    """How often each time is drawn."""
    quantiles = np.linspace(0, 1, 201)
    lines = {f"time_bias = {bias:g}": (1 + bias) * quantiles**bias for bias in (0.0, 1.0, 3.0)}
    return chart(lines, across="time", up="how often it is drawn", ends=CLEAR_TO_NOISY)


def rates() -> Image.Image:
    """Every schedule over one run, with a warm-up of a tenth of it."""
    lines = {}
    for name in get_args(ScheduleName):
        settings = TrainSettings(steps=400, schedule=name, warmup_steps=40)
        lines[name] = np.array([learning_rate(settings, 1.0, step=step, total=400) for step in range(400)])
    return small_charts(lines, columns=4)


def averages() -> Image.Image:
    """One weight that wanders about its goal, and the average that follows it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    average, wandering, found = Average({"weight": parameter}, 0.98), _fresh(3, 400), []
    for step in range(400):
        with torch.no_grad():
            parameter.fill_(1 - 0.985**step + 0.12 * float(wandering[step]))
        average.update(step)
        with average.in_place():
            found.append(float(parameter.detach()))
    raw = np.array([1 - 0.985**step + 0.12 * float(wandering[step]) for step in range(400)])
    lines = {"last step's weights": raw, "average": np.array(found)}
    return chart(
        lines, across="steps", up="one weight", ends=("0", "400"), limits=(0.0, 1.6), soft="last step's weights"
    )


def _drawn(settings: SamplerSettings, seeds: range) -> list[np.ndarray]:
    family = StableDiffusion(StableDiffusionSettings(base=BASE, size=SIDE), Facts())
    wanted = [Wanted(seed, prompt=PROMPT) for seed in seeds]
    return [one.pixels for one in generate(family, wanted, settings, chunk=len(wanted))]


def guidance() -> Image.Image:
    """The same seeds, pulled harder and harder."""
    rows = {
        f"guidance = {pull:g}": _drawn(SamplerSettings(steps=20, guidance=pull), range(7))
        for pull in (1.0, 2.0, 4.0, 8.0, 16.0)
    }
    return sheet(rows, [f"seed {seed}" for seed in range(7)], side=72)


def samplers() -> Image.Image:
    """One seed by each sampler, in few and in many steps."""
    counts = (2, 4, 8, 16, 32, 50)
    rows = {
        name: [_drawn(SamplerSettings(sampler=name, steps=steps, guidance=4.0), range(2, 3))[0] for steps in counts]
        for name in SAMPLERS
    }
    return sheet(rows, [f"{steps} steps" for steps in counts], side=64)


ALL: dict[str, Callable[[], Image.Image]] = {
    "betas": betas,
    "signal": signal,
    "predictions": predictions,
    "flow": lines_of_flow,
    "flow_times": times_of_flow,
    "losses": losses,
    "weights": weights,
    "noises": kinds_of_noise,
    "times": times,
    "schedules": rates,
    "average": averages,
    "guidance": guidance,
    "samplers": samplers,
}

BY_BASE = ("guidance", "samplers")
"""Drawn by the miniature, which takes minutes."""


def weights_of_base() -> str:
    """A digest of all that the miniature has learnt."""
    digest = hashlib.sha256()
    for path in sorted(opening.miniature(BASE.removeprefix(opening.MINIATURE)).rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def keep(name: str) -> None:
    """Draw a picture and keep it, with what it shows as text in its file."""
    drawn, told = ALL[name](), PngInfo()
    told.add_text("shows", drawn.info["shows"])
    if name in BY_BASE:
        told.add_text("base", weights_of_base())
    drawn.save(PICTURES / f"{name}.png", optimize=True, pnginfo=told)


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or ALL:
        keep(name)
