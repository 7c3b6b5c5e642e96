"""From what a user names, labels or prompts, to the images that are to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusain.errors import UsageError
from fusain.generation.generator import Wanted, parse_label
from fusain.models.family import Family, Framing

SMALLEST_SIDE, LARGEST_SIDE = 8, 8192
LONGEST_PROMPT = 5_000


def usual(family: Family, prompts: Sequence[str]) -> list[Wanted]:
    """What is drawn where the user names nothing: every class, the prompts of the settings, or simply images."""
    if family.condition == "class":
        return [Wanted(0, {name: 1.0}) for name in family.facts.classes]
    if family.condition == "text":
        return [Wanted(0, prompt=prompt) for prompt in prompts or ("",)]
    return [Wanted(0)]


def named(family: Family, *, labels: Sequence[str], prompts: Sequence[str]) -> list[Wanted]:
    """What the user names."""
    of_labels = [Wanted(0, parse_label(text, family.facts.classes)) for text in labels]
    return of_labels + [Wanted(0, prompt=_clean(prompt)) for prompt in prompts]


def each(
    named: Sequence[Wanted],
    *,
    count: int,
    seed: int,
    negative: str = "",
    size: tuple[int, int] | None = None,
    framing: Framing | None = None,
) -> list[Wanted]:
    """So many images of each, from the same seeds."""
    seeds = range(seed, seed + count)
    return [
        replace(one, seed=number, negative=negative, size=size, framing=framing) for one in named for number in seeds
    ]


def framing(
    family: Family,
    run: str,
    *,
    original_size: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    size: tuple[int, int] | None,
) -> Framing | None:
    """What images are to look as if they had been; what is left out is as if they were whole, of their own size."""
    if original_size is None and crop is None:
        return None
    if not family.reads_framings:
        raise UsageError("E-GEN-015", where="--crop" if original_size is None else "--original-size", run=run)
    height, width = original_size or size or (family.settings.size, family.settings.size)
    left, top = crop or (0, 0)
    if left >= width or top >= height:
        where = "--original-size" if crop is None else "--crop"
        raise UsageError("E-GEN-016", where=where, left=left, top=top, width=width, height=height)
    return height, width, top, left


def check(family: Family, run: str, *, labels: bool, prompts: bool, size: tuple[int, int] | None) -> None:
    """A wish that this family cannot fulfil is an error, never left out in silence."""
    if labels and family.condition != "class":
        raise UsageError("E-GEN-004", where="--label", run=run)
    if prompts and family.condition != "text":
        raise UsageError("E-GEN-005", where="--prompt", run=run)
    for side in size or ():
        if side % family.multiple or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            nearest = min(max(round(side / family.multiple), 1) * family.multiple, LARGEST_SIDE)
            raise UsageError(
                "E-GEN-006", where="--size", side=side, multiple=family.multiple, largest=LARGEST_SIDE, nearest=nearest
            )
    if size is not None and family.condition != "text":
        raise UsageError("E-GEN-007", where="--size", run=run)


def _clean(prompt: str) -> str:
    """Line breaks and tabs as spaces; what no prompt can mean is refused with its place."""
    plain = " ".join(prompt.split())
    place = next((place for place, letter in enumerate(plain) if not letter.isprintable()), None)
    if place is not None:
        raise UsageError("E-GEN-008", where="--prompt", place=place + 1, letter=f"U+{ord(plain[place]):04X}")
    if len(plain) > LONGEST_PROMPT:
        raise UsageError("E-GEN-009", where="--prompt", length=f"{len(plain):,}", limit=f"{LONGEST_PROMPT:,}")
    return plain
