"""`fusain generate`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from fusain.cli import output
from fusain.settings import user_file


class Size(click.ParamType[tuple[int, int]]):
    """Width x height, as in 768x512; one number is a square."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        sides = str(value).lower().replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
            self.fail(f"'{value}' is no size; write it as 768x512 (width x height)", param, ctx)
        return int(sides[-1]), int(sides[0])


class Place(click.ParamType[tuple[int, int]]):
    """Left and top of a crop, as in 64,0."""

    name = "LEFT,TOP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        left, comma, top = str(value).partition(",")
        if not comma or not all(part.strip().isdecimal() for part in (left, top)):
            self.fail(f"'{value}' is no place; write it as 64,0 (left, top)", param, ctx)
        return int(left), int(top)


class Sampler(click.ParamType[str]):
    """A sampler by our name; names of other tools are told ours."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from fusain.generation.samplers import ELSEWHERE, SAMPLERS
        from fusain.settings.explain import nearest

        if value in SAMPLERS:
            return str(value)
        meant = nearest(str(value), list(SAMPLERS), ELSEWHERE)
        hint = f"did you mean {meant}?" if meant else f"use one of: {', '.join(SAMPLERS)}"
        self.fail(f"'{value}' is no sampler; {hint}", param, ctx)


SIZE = Size()


@click.command()
@click.argument("run")
@click.option(
    "--label", "labels", metavar="CLASS", multiple=True, help="A class or a mixture; repeatable. Without it, all."
)
@click.option("--prompt", "prompts", metavar="TEXT", multiple=True, help="What to draw; repeatable.")
@click.option("--negative", metavar="TEXT", default="", help="What to draw away from.")
@click.option("--prompts-file", type=click.Path(path_type=Path), help="A text file with one prompt a line.")
@click.option("--size", type=SIZE, help="Width x height in pixels; without it, the run's.")
@click.option("--original-size", type=SIZE, help="XL: as if the image had been so large; small ones look soft.")
@click.option("--crop", type=Place(), help="XL: as if it had been cut from that place of a larger image.")
@click.option(
    "--count", type=click.IntRange(1, 1_000_000), default=16, show_default=True, help="Images, of each label or prompt."
)
@click.option("--steps", type=click.IntRange(1, 10_000), help="Denoising steps; without it, the run's.")
@click.option("--sampler", type=Sampler(), help="ddim, dpm++-2m, unipc, euler, …; without it, the run's.")
@click.option("--eta", type=click.FloatRange(0, 1), help="Fresh noise in each ddim step.")
@click.option("--guidance", type=click.FloatRange(0, 30), help="How hard the class pulls; 1 is plain.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the first image."
)
@click.option("--batch-size", "chunk", type=click.IntRange(1), help="Images drawn at once.")
@click.option("--checkpoint", metavar="STEP", help="A step or 'latest'; without it, the final weights.")
@click.option("--weights", type=click.Choice(["ema", "raw"]), default="ema", show_default=True, help="Averaged or not.")
@click.option(
    "--strength", type=click.FloatRange(0, 2), help="How much of a LoRA counts; without it, 1. 0 is the base."
)
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="Where to draw.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Without it, a folder in the run.")
@click.option("--runs-folder", type=click.Path(path_type=Path), default=user_file.runs_folder, show_default="runs")
@output.format_option
def verb(
    run: str,
    labels: tuple[str, ...],
    prompts: tuple[str, ...],
    negative: str,
    prompts_file: Path | None,
    size: tuple[int, int] | None,
    original_size: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    count: int,
    seed: int,
    chunk: int | None,
    checkpoint: str | None,
    weights: Literal["ema", "raw"],
    strength: float | None,
    device: str,
    folder: Path | None,
    runs_folder: Path,
    **wishes: Any,
) -> None:
    """Draw images with a trained run.

    \b
    Examples:
      fusain generate my_run --count 64
      fusain generate my_run --label spell --guidance 2 --seed 1
      fusain generate my_run --label spell=0.6,food=0.4 --steps 10 --sampler ddim --eta 0
      fusain generate my_run --prompt "a face with a red hat" --negative glasses --size 96x64
      fusain generate my_lora --prompt "a face with a red hat" --strength 0.7
    """
    from fusain.runs import actions

    drawn = actions.generate(
        run,
        labels=labels,
        prompts=[*prompts, *(_lines(prompts_file) if prompts_file else ())],
        negative=negative,
        size=size,
        original_size=original_size,
        crop=crop,
        count=count,
        seed=seed,
        sampler=_sampler(run, runs_folder, {name: wish for name, wish in wishes.items() if wish is not None}),
        checkpoint=checkpoint,
        weights=weights,
        strength=strength,
        device=device,
        output=folder,
        runs_folder=runs_folder,
        warn=lambda notice: output.talk(f"Warning: {notice}"),
        **({"chunk": chunk} if chunk is not None else {}),
    )
    output.show(drawn.as_json(), [str(drawn.sheet)], quiet=[str(drawn.folder)])


def _sampler(run: str, runs_folder: Path, wishes: dict[str, Any]) -> Any:
    """How the run draws, with what is wished otherwise."""
    from fusain.generation.samplers import SamplerSettings
    from fusain.runs.folder import RunFolder, read_json
    from fusain.settings.notice import Notice

    if not wishes:
        return None
    stored = read_json(RunFolder.existing(run, runs_folder).settings)["samples"]
    settings = SamplerSettings(**{name: stored[name] for name in SamplerSettings.model_fields} | wishes)
    for name, reason in settings.silent_settings().items():
        if wishes.get(name):
            output.talk("Warning: " + str(Notice("W-CFG-002", where=f"--{name}", key=name, reason=reason)))
    return settings


def _lines(path: Path) -> list[str]:
    """The prompts of a file, without empty lines and remarks."""
    from fusain.errors import UsageError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as fault:
        problem = "it is no UTF-8 text" if isinstance(fault, UnicodeError) else getattr(fault, "strerror", str(fault))
        raise UsageError("E-GEN-011", where="--prompts-file", path=path, fault=problem) from fault
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise UsageError("E-GEN-010", where="--prompts-file", path=path)
    return found
