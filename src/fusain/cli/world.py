"""`fusain world`: drawn data sets."""

from __future__ import annotations

from pathlib import Path

import click

from fusain.cli import output


@click.group()
def verb() -> None:
    """Draw a data set to try things with.

    \b
    Examples:
      fusain world sprites my_sprites
      fusain world sprites my_sprites --count 10000 --bad-share 0.05
      fusain world sprites my_arrays --as arrays
    """


@verb.command("sprites")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="How many images.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Another seed, another set."
)
@click.option(
    "--bad-share", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of spoilt images."
)
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
