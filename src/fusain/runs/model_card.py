"""The model card: what a model is, what it was made of and how it is used, in the form that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticUndefined

from fusain.runs import assembly, card_code, privacy
from fusain.runs.folder import RunFolder, read_json
from fusain.runs.origin import HUB, Licence, Origin
from fusain.runs.settings import METHODS, RunSettings
from fusain.settings.section import Section
from fusain.training import events

PICTURE: Final = "samples.png"
OF_THIS_MACHINE: Final = (
    *("checkpoint.", "track.", "runs_folder", "weights_folder"),
    *("engine.device", "engine.threads", "data.workers", "data.memory_gb"),
)
TOLD_APART: Final = ("family.base", "family.revision", "family.vae", "family.tokenizer", "data.caption_column")
TASKS: Final = {"text": "text-to-image"}
UNSTEERED: Final = "unconditional-image-generation"
"""What the hub calls models of images that no text steers; it has no word for those steered by class."""
KINDS: Final = {
    "text": "Draws images of about {size} × {size} pixels from a text.",
    "class": "Draws images of {size} × {size} pixels, each of a chosen class: {classes}.",
    "none": "Draws images of {size} × {size} pixels like those that it learnt from. Nothing steers it.",
}


@dataclass(frozen=True)
class Contents:
    """What a card tells of."""

    run: RunFolder
    settings: RunSettings
    origin: Origin
    licence: Licence
    repo: str | None
    has_picture: bool
    facts: dict[str, Any]
    """What was written beside the final weights."""

    @property
    def title(self) -> str:
        return self.repo.partition("/")[2] if self.repo else self.run.name

    @property
    def task(self) -> str:
        return TASKS.get(self.settings.family.condition, UNSTEERED)


@dataclass(frozen=True)
class Course:
    """How the training went, up to the weights that are published."""

    images: int
    """Drawn in all, each as often as it was used."""
    seconds: float
    losses: list[float]
    held_out: list[float]


def write(contents: Contents) -> str:
    """The whole text, header and all."""
    family, lock = contents.settings.family, read_json(contents.run.data_lock)
    classes = contents.facts["classes"]
    kind = KINDS[family.condition].format(size=family.size, classes=", ".join(classes))
    sections = {
        "": [kind, _made_with(contents)],
        "Samples": [f"![Samples]({PICTURE})", "Drawn while it trained, from fixed seeds; none was picked."],
        "Use": [*_on_base(contents), _fenced(_code(contents)), *_long(family)],
        "Training": [*_training(contents, lock), _settings_table(contents.settings)],
        "Data": [_data(lock)],
        "Licence": [_licence(contents)],
        "Versions": [_versions(contents.run)],
    }
    if not contents.has_picture:
        del sections["Samples"]
    body = [f"## {title}\n\n" * bool(title) + "\n\n".join(texts) for title, texts in sections.items()]
    return f"---\n{_header(contents)}\n---\n\n# {contents.title}\n\n" + "\n\n".join(body) + "\n"


def _code(contents: Contents) -> str:
    base = contents.origin.name if contents.origin.is_hub_id else "BASE"
    return card_code.code_for(contents.settings, contents.repo or "OWNER/NAME", contents.facts["classes"], base)


def _on_base(contents: Contents) -> Iterator[str]:
    """What to know of files that are no whole model."""
    if METHODS[contents.settings.method.kind].loaded_by:
        where = "" if contents.origin.is_hub_id else " BASE stands for where you have that model."
        yield f"It goes on top of the model that it was trained on.{where}"


def _header(contents: Contents) -> str:
    from huggingface_hub import ModelCardData

    licence, origin = contents.licence, contents.origin
    prompts = [{"text": prompt} for prompt in contents.settings.samples.prompts[:3] if contents.task == TASKS["text"]]
    header = ModelCardData(
        license=licence.id,
        license_name=licence.name,
        license_link=licence.link,
        base_model=origin.name if origin.is_hub_id else None,
        library_name="diffusers",
        pipeline_tag=contents.task,
        tags=["diffusers", contents.task, "fusain"],
    )
    if METHODS[contents.settings.method.kind].loaded_by:
        header["tags"] = [*header["tags"], contents.settings.method.kind]
        if origin.is_hub_id:
            header["base_model_relation"] = "adapter"
    if prompts:
        header["widget"] = prompts
    return header.to_yaml()


def _made_with(contents: Contents) -> str:
    family, method, origin = contents.settings.family, contents.settings.method, contents.origin
    start = "from scratch" if not (origin.name or origin.is_local) else f"from {_base(origin)}"
    vae = " Its autoencoder was replaced by another one." if getattr(family, "vae", None) else ""
    return f"Trained with Fusain {start}: family `{family.kind}`, method `{method.kind}`.{vae}"


def _base(origin: Origin) -> str:
    if not origin.is_hub_id:
        return f"`{origin.name}`, a miniature that Fusain carries" if origin.name else "a model that is not on the hub"
    at = f"at commit `{origin.commit}`" if origin.commit else "(its commit was not written down)"
    return f"[{origin.name}]({HUB}/{origin.name}) {at}"


def course_of(run: RunFolder, step: int) -> Course:
    """What the events say up to a step."""
    per_step, seconds = 0, 0.0
    losses: list[float] = []
    held_out: list[float] = []
    for row in events.current(run.events):
        if row.get("step", 0) > step:
            continue
        if row["kind"] == "start":
            per_step = row["images_per_step"]
        elif row["kind"] == "step":
            losses.append(row["loss"])
            seconds += row["seconds"]
        elif row["kind"] == "held_out":
            held_out.append(row["loss"])
    return Course(per_step * step, seconds, losses, held_out)


def _training(contents: Contents, lock: dict[str, Any]) -> Iterator[str]:
    step = contents.facts["step"]
    course = course_of(contents.run, step)
    images = _learnt(lock)
    yield (
        f"{step:,} steps on {images:,} images: {course.images:,} draws, {course.images / max(images, 1):.3g} for each "
        f"image; {_duration(course.seconds)}."
    )
    rows = []
    if course.losses:
        part = max(1, len(course.losses) // 10)
        first, last = course.losses[:part], course.losses[-part:]
        rows.append(("training (mean of the first and the last tenth)", sum(first) / part, sum(last) / part))
    if course.held_out:
        rows.append(("on images that were held out", course.held_out[0], course.held_out[-1]))
    if rows:
        yield _table(("loss", "start", "end"), [(name, f"{start:.4g}", f"{end:.4g}") for name, start, end in rows])


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _settings_table(settings: RunSettings) -> str:
    rows = [(f"`{key}`", f"`{_shown(value)}`") for key, value in differing(settings)]
    return "Settings that differ from the defaults:\n\n" + _table(("setting", "value"), rows)


def differing(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that were chosen, without those of this machine and its files."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), prefix + name
        if isinstance(value, Section):
            yield from differing(value, f"{key}.")
            continue
        default = field.get_default(call_default_factory=True)
        is_default = value == (None if default is PydanticUndefined else default)
        if is_default or key in TOLD_APART or key.startswith(OF_THIS_MACHINE) or _holds_a_path(value):
            continue
        yield key, value


def _holds_a_path(value: Any) -> bool:
    parts = value if isinstance(value, tuple | list) else (value,)
    return any(privacy.looks_like_a_path(part) for part in parts)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _learnt(lock: dict[str, Any]) -> int:
    """Of a stream the lock names no more than what was looked at."""
    return int(lock["stream"]["learnt"]) if "stream" in lock else len(lock["names"]) - len(lock["held_out"])


def _data(lock: dict[str, Any]) -> str:
    """Counts and an identity, by which the same data is known again; never a name of a file."""
    held_out, broken = len(lock["held_out"]), len(lock["quarantined"])
    aside = f", {held_out:,} more were held out to measure on" if held_out else ", none was held out"
    broken_too = f", and {broken:,} broken files were put aside" if broken else ""
    whose = "The identity of a sample of them, and of those held out," if "stream" in lock else "Their identity"
    return (
        f"{_learnt(lock):,} images were learnt from{aside}{broken_too}. They are not published. "
        f"{whose} (SHA-256 over names, contents, labels and captions) is `{lock['id']}`."
    )


def _licence(contents: Contents) -> str:
    licence = contents.licence
    named = f"`{licence.id}`" + (f" ({licence.name})" if licence.name else "")
    if licence.of_base is None:
        return f"{named}, chosen by whoever published this model."
    if licence.of_base == licence.id:
        return f"{named}, the licence of the base."
    return f"{named}, chosen by whoever published this model. The base is under `{licence.of_base}`."


def _versions(run: RunFolder) -> str:
    """Those that it was trained with, as far as a checkpoint still tells."""
    newest = max(run.checkpoints.glob("step-*/state.json"), default=None)
    versions = read_json(newest).get("versions") if newest else None
    listed = ", ".join(f"{name} {version}" for name, version in (versions or assembly.versions()).items())
    return f"Trained with {listed}." if versions else f"Published with {listed}."


def _long(family: Any) -> Iterator[str]:
    """What plain diffusers leaves out."""
    if getattr(family, "text_windows", 1) > 1:
        yield (
            f"It learnt captions of up to {family.text_windows} × 75 tokens; diffusers reads the first 75 of a prompt, "
            "and draws a little otherwise."
        )


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def picture_of(run: RunFolder, step: int) -> Path | None:
    """The last sheet of samples up to a step.

    A sheet without drawn images beside it shows what a method was given, which are images of the data.
    """
    for folder in sorted(run.samples.glob("step-*"), reverse=True):
        drawn = any(folder.glob("[0-9]*.png")) and (folder / "sheet.png").is_file()
        if drawn and int(folder.name.removeprefix("step-")) <= step:
            return folder / "sheet.png"
    return None
