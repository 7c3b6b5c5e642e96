"""`fusain world`: drawn data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from fusain.cli import output
from fusain.errors import UsageError

COUNT = click.option(
    "--count", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="How many images."
)
SEED = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Another seed, another set."
)
BAD_SHARE = click.option(
    "--bad-share", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of spoilt images."
)


@click.group()
def verb() -> None:
    """Draw a data set to try things with.

    \b
    Examples:
      fusain world sprites my_sprites
      fusain world sprites my_sprites --count 10000 --bad-share 0.05
      fusain world sprites my_arrays --as arrays
      fusain world caricatures my_faces --count 500
      fusain world caricatures ada --character Ada --count 8
    """


@verb.command("sprites")
@click.argument("folder", type=click.Path(path_type=Path))
@COUNT
@SEED
@BAD_SHARE
@click.option("--balanced", is_flag=True, help="As many of each class, instead of the usual imbalance.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["folders", "arrays"]),
    default="folders",
    show_default=True,
    help="PNGs in a folder per class, or two .npy files.",
)
@output.format_option
def sprites(folder: Path, count: int, seed: int, bad_share: float, balanced: bool, form: str) -> None:
    """Sprites of 16 x 16 pixels in five classes, with the truth about each in truth.json."""
    from fusain.worlds import sprites as world

    drawn = world.world(count, seed=seed, bad_share=bad_share, balanced=balanced)
    (world.write_folder if form == "folders" else world.write_arrays)(drawn, folder)
    counts = {name: int((drawn.labels == label).sum()) for label, name in enumerate(world.CLASSES)}
    spoilt = sum(map(bool, drawn.faults))
    lines = [*(f"{name:<12} {number:>8,}" for name, number in counts.items()), f"{'spoilt':<12} {spoilt:>8,}"]
    data = {"folder": str(folder), "images": len(drawn), "classes": counts, "spoilt": spoilt, "seed": seed}
    output.show(data, [*lines, str(folder)], quiet=[str(folder)])


@verb.command("caricatures")
@click.argument("folder", type=click.Path(path_type=Path))
@COUNT
@SEED
@BAD_SHARE
@click.option("--scale", type=click.IntRange(1, 32), default=1, show_default=True, help="Side in steps of 64 pixels.")
@click.option("--style", "styles", multiple=True, metavar="NAME", help="Only this style; repeatable.")
@click.option("--character", metavar="NAME", help="One person again and again, whom no other picture shows.")
@click.option("--masks", is_flag=True, help="Beside each image a mask, white where the figure is.")
@output.format_option
def caricatures(
    folder: Path,
    count: int,
    seed: int,
    bad_share: float,
    scale: int,
    styles: tuple[str, ...],
    character: str | None,
    masks: bool,
) -> None:
    """Faces of 64 x 64 pixels in several styles, with captions in English (`text`) and French (`texte`).

    Without --style all but one are drawn: `glass` is kept back, so that a model can be taught it. truth.json tells
    every attribute of each face.
    """
    from fusain.worlds import caricatures as world

    _check_name("--style", styles, world.STYLES)
    _check_name("--character", [character] if character else [], world.CHARACTERS)
    if character:
        drawn = world.portraits(character, count, seed=seed, scale=scale, styles=styles)
    else:
        wanted = styles or world.TAUGHT_STYLES
        drawn = world.world(count, seed=seed, scale=scale, bad_share=bad_share, styles=wanted)
    world.write_folder(drawn, folder, with_masks=masks)
    counts = Counter(face.attributes["style"] for face in drawn.faces)
    spoilt = sum(map(bool, drawn.faults))
    lines = [*(f"{name:<12} {number:>8,}" for name, number in counts.items()), f"{'spoilt':<12} {spoilt:>8,}"]
    data = {"folder": str(folder), "images": len(drawn), "styles": dict(counts), "spoilt": spoilt, "seed": seed}
    output.show(data, [*lines, str(folder)], quiet=[str(folder)])


@verb.command("pretrain")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@output.format_option
@click.pass_context
def pretrain(context: click.Context, name: str, folder: Path | None) -> None:
    """Make a miniature base (mini-sd, mini-sdxl) from drawings alone, on two cores in an hour or two.

    The same call resumes. It is judged at the end, and told where it falls short of its bars. What is made can be
    named as a base: family.base = "FOLDER/mini-sd". Without FOLDER, a folder of the miniature's name.
    """
    from fusain.cli.progress import progress
    from fusain.runs import pretraining
    from fusain.worlds.mini.miniature import MINIATURES

    _check_name("NAME", [name], MINIATURES)
    with progress() as report:
        made = pretraining.pretrain(MINIATURES[name], folder or Path(name), report=report)
    for notice in made.notices:
        output.talk(f"Warning: {notice}")
    output.show(made.as_json(), list(made.lines()), quiet=[str(made.folder or "")])
    if made.stopped is not None:
        from fusain.cli.faults import STOPPED

        context.exit(STOPPED[made.stopped])


def _check_name(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError("E-USE-010", where=option, name=name, known=", ".join(known))
