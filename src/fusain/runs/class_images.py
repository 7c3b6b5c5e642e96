"""Draws class images from a run's base before training, and keeps them in the cache folder for every later run.

Each image is a file of its own, called by its seed and put there whole, so that whatever breaks off the drawing costs
what was being drawn and nothing else. Nothing here ever removes one: a run may be reading it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from fusain.data import index_cache, stored
from fusain.data.class_images import ClassImageSettings, DrawnImages, Together
from fusain.data.columns import Dataset
from fusain.errors import DataError
from fusain.generation import gallery
from fusain.generation.generator import Drawn, Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.messages import quantities
from fusain.models.family import Facts, Family
from fusain.runs.settings import FAMILIES, RunSettings
from fusain.training import engine as engines
from fusain.training.stopping import Stopped, StopRequest

VERSION: Final = 1
"""Counts up when the same prompt and seed would be drawn differently."""
CHUNK: Final = 4
"""Images drawn at once. Chunks begin at the same seeds always, so that a drawing that was broken off goes on alike."""
PRECISIONS: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}

Report = Callable[..., Any]


def folder() -> Path:
    """Where class images are kept."""
    return index_cache.folder() / "class_images"


def ready(settings: RunSettings, prompts: Sequence[str]) -> DrawnImages:
    """Those of the wanted class images that were drawn before."""
    seeds, facts = _seeds(settings.data.class_images), _facts(settings, _on_paper(settings))
    return _source({prompt: _kept(_place(facts, prompt), seeds) for prompt in prompts})


def missing(dataset: Dataset) -> int:
    """How many are still to be drawn for a data set."""
    wanted = dataset.settings.class_images
    if not isinstance(dataset.source, Together) or not isinstance(dataset.source.of_class, DrawnImages):
        return 0
    return wanted.count * len(dataset.source.of_class.names) - int(dataset.is_class_image.sum())


def drawn(settings: RunSettings, prompts: Sequence[str], report: Report, *, stop_file: Path) -> DrawnImages:
    """All wanted class images; those that are missing are drawn, which takes as long as `fusain plan` says.

    A stop is heard between two chunks, and leaves by `Stopped`.
    """
    seeds, facts = _seeds(settings.data.class_images), _facts(settings, _on_paper(settings))
    missing = {}
    for prompt in prompts:
        kept = _kept(_place(facts, prompt), seeds)
        if len(kept) < len(seeds):
            missing[prompt] = [seed for seed in seeds if seed not in kept]
    if missing:
        stop = StopRequest(stop_file)
        with stop.listening():
            _draw(settings, facts, missing, report, stop)
    return _source({prompt: {seed: _file(_place(facts, prompt), seed) for seed in seeds} for prompt in prompts})


def _draw(
    settings: RunSettings,
    facts: Mapping[str, Any],
    missing: Mapping[str, Sequence[int]],
    report: Report,
    stop: StopRequest,
) -> None:
    wanted, size = settings.data.class_images, settings.family.size
    sampler = SamplerSettings(sampler="ddim", steps=wanted.steps, guidance=wanted.guidance, eta=wanted.eta)
    total, done = sum(len(seeds) for seeds in missing.values()), 0
    _require_room(total * size**2 * 3)
    torch.set_num_threads(int(settings.engine.threads))
    family = FAMILIES[settings.family.kind](settings.family, Facts())
    family.to(torch.device(settings.engine.device))
    report("class_images", done=0, total=total)
    for prompt, seeds in missing.items():
        place = _place(facts, prompt)
        for chunk in _chunks(seeds, wanted.seed):
            _heed(stop, report, done, total)
            for image in _images(family, prompt, chunk, sampler, settings):
                if image.wanted.seed in seeds:
                    _keep(image, _file(place, image.wanted.seed), {"kind": "class image", **_told(sampler)})
                    done += 1
                    report("class_images", done=done, total=total)
    _heed(stop, report, done, total)
    del family
    engines.give_back()


def _require_room(needed: int) -> None:
    """Nothing is drawn that the disk could not hold to its end."""
    place = folder()
    free = shutil.disk_usage(next(parent for parent in place.parents if parent.exists())).free
    if needed > free:
        fault = f"they take up to {quantities.size(needed)}, and {quantities.size(free)} are free"
        raise DataError("E-DATA-068", where=str(place), fault=fault)


def _heed(stop: StopRequest, report: Report, done: int, total: int) -> None:
    if stop.reason:
        words = f"Stopped with {done:,} of {total:,} class images drawn; the same command goes on from there."
        report("note", text=words)
        raise Stopped(stop.reason)


def _images(
    family: Family, prompt: str, seeds: Sequence[int], sampler: SamplerSettings, settings: RunSettings
) -> list[Drawn]:
    """One chunk, in the precision of the run, which on a GPU takes half the time."""
    kind = PRECISIONS.get(settings.engine.precision)
    request = [Wanted(seed, prompt=prompt) for seed in seeds]
    with torch.autocast(settings.engine.device.partition(":")[0], kind, enabled=kind is not None):
        return list(generate(family, request, sampler, chunk=CHUNK))


def _chunks(seeds: Sequence[int], first: int) -> list[list[int]]:
    """The whole chunks that these seeds lie in, counted from the first."""
    starts = sorted({first + (seed - first) // CHUNK * CHUNK for seed in seeds})
    return [list(range(start, start + CHUNK)) for start in starts]


def _seeds(wanted: ClassImageSettings) -> range:
    return range(wanted.seed, wanted.seed + wanted.count)


def _on_paper(settings: RunSettings) -> Family:
    """The family without weights, which knows who its base is."""
    with torch.device("meta"):
        return FAMILIES[settings.family.kind](settings.family, Facts())


def _facts(settings: RunSettings, family: Family) -> dict[str, Any]:
    """Everything beside prompt and seed that an image depends on."""
    wanted = settings.data.class_images
    return {
        "version": VERSION,
        "base": family.base_id,
        "schedule": asdict(family.schedule),
        "size": settings.family.size,
        "precision": settings.engine.precision,
        **family.reading,
        **wanted.model_dump(include={"steps", "guidance", "eta"}),
    }


def _place(facts: Mapping[str, Any], prompt: str) -> Path:
    """A folder for each base, prompt and way to draw."""
    key = stored.key({**facts, "prompt": prompt}).hex()[:16]
    return folder() / f"{gallery.slug(prompt)[:40].strip('-.')}-{key}"


def _file(place: Path, seed: int) -> Path:
    return place / f"{seed:010d}.png"


def _kept(place: Path, seeds: range) -> dict[int, Path]:
    """The whole images among the wanted ones, by seed."""
    return {seed: _file(place, seed) for seed in seeds if _is_whole(_file(place, seed))}


def _is_whole(path: Path) -> bool:
    """A power cut may leave a file without its content, which the check sums of a PNG tell."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _source(files: Mapping[str, Mapping[int, Path]]) -> DrawnImages:
    root = folder()
    return DrawnImages(
        root, {prompt: [str(path.relative_to(root)) for path in of.values()] for prompt, of in files.items()}
    )


def _keep(drawn: Drawn, path: Path, facts: Mapping[str, Any]) -> None:
    """Put one image in its place whole."""
    waiting = path.with_name(f".{path.stem}.{os.getpid()}.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        gallery.write_png(drawn, waiting, facts)
        os.replace(waiting, path)
    except OSError as fault:
        with suppress(OSError):
            waiting.unlink(missing_ok=True)
        raise DataError("E-DATA-068", where=str(path.parent), fault=fault.strerror or fault) from fault


def _told(sampler: SamplerSettings) -> dict[str, Any]:
    return sampler.model_dump(include={"sampler", "steps", "guidance", "eta"})
