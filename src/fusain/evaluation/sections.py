"""The sections of a report, one function each: contents in, markup out, '' where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fusain.evaluation import curves
from fusain.evaluation.curves import Curve
from fusain.evaluation.evaluator import Pair, Result, closest, nearest_pairs, spread
from fusain.evaluation.evidence import ImageSet
from fusain.evaluation.metric import Measurement, percent
from fusain.evaluation.page import Html, picture, table, tag, text

if TYPE_CHECKING:
    from fusain.evaluation.report import Comparison, Contents

IN_RIBBON, IN_SHEET, IN_STAGE, IN_DATA, PAIRS = 60, 36, 4, 24, 12
NOTHING: Final = Html("")


def header(contents: Contents) -> Html:
    """What was learnt, at a glance: a mixed row of images before any number, or else the newest samples."""
    images = contents.evidence.generated
    shown = [picture(images.images[row], images.name(row)) for row in _mixed(images, IN_RIBBON)]
    shown = shown or [picture(image, name) for name, image in _newest(contents)]
    top = [
        tag("div", "Fusain", class_="brand"),
        tag("h1", contents.title),
        tag("p", contents.lead, class_="lead"),
    ]
    if shown:
        drawing = f"Drawn by this model{', ' + contents.drawing if contents.drawing else ''}. Nobody chose them."
        ribbon = tag("div", tag("div", *shown, class_="tiles"), class_="ribbon")
        top += [ribbon, tag("p", drawing, class_="small soft")]
    return tag("header", *top)


def _newest(contents: Contents) -> list[tuple[str, np.ndarray]]:
    """The samples of the last stage."""
    found = [(name, image) for stage in contents.stages[-1:] for name, row in stage.rows.items() for image in row]
    return found[:IN_RIBBON]


def numbers(contents: Contents) -> Html:
    """Each measurement with its interval, its count and one plain sentence."""
    results = contents.judgement.results.values()
    if not results:
        return NOTHING
    by_class = [_class_table(result) for result in results if result.measurement.parts]
    key = text("The coloured bar is the 95\u202f% interval. ", tag("span", class_="key"), "marks unseen real images.")
    cards = tag("div", *map(_card, results), class_="cards")
    return _section("The numbers", cards, tag("p", key, class_="small soft key-line"), *by_class)


def _card(result: Result) -> Html:
    metric, found = result.metric, result.measurement
    top = _top(result)
    marks = [
        tag("i", style=f"left:{_at(found.low, top)};width:{_at(min(found.high, top) - found.low, top)}"),
        tag("b", style=f"left:{_at(found.value, top)}"),
    ]
    if found.reference is not None:
        marks.append(tag("s", style=f"left:{_at(found.reference, top)}"))
    interval = f"{_shown(result, found.low)} to {_shown(result, found.high)}, from {found.count:,} images"
    return tag(
        "div",
        tag("h3", metric.title, class_="label"),
        tag("div", _shown(result, found.value), class_="value"),
        tag("div", *marks, class_="range", aria_hidden="true"),
        tag(
            "div",
            tag("span", _shown(result, 0, short=True)),
            tag("span", _shown(result, top, short=True)),
            class_="ends",
        ),
        tag("p", interval, class_="soft small"),
        tag("p", found.sentence),
        class_="card",
    )


def _class_table(result: Result) -> Html:
    def row(name: str, part: Measurement) -> list[str]:
        share = tag("span", tag("i", style=f"width:{part.value:.1%}"), class_="bar")
        return [name, share, _shown(result, part.value), f"{_shown(result, part.low)} to {_shown(result, part.high)}"]

    rows = [row(name, part) for name, part in result.measurement.parts.items()]
    head = tag("h3", f"{result.metric.title} of each class", class_="gap")
    return text(head, table(["Class", "", "Value", "95 % interval"], rows, class_="counts"))


def learning(contents: Contents) -> Html:
    """The held-out curve first: the training loss alone would fall for a model that learns by heart, too."""
    held_out = Curve("Held-out loss: images set aside, always the same noise", contents.held_out_curve, True)
    training = Curve("Training loss, smoothed", curves.smoothed(contents.training_curve), False)
    drawn = curves.plot([held_out, training], "Loss over training steps")
    if not drawn:
        return NOTHING
    words = (
        "Lower is better. As long as the held-out curve falls, the model learns what holds for images it has never "
        "seen; if it rose while the training loss fell on, the model would be learning its images by heart."
        if contents.held_out_curve
        else "Lower is better. No images were set aside, so this curve also falls for a model that learns by heart."
    )
    return _section("How it learnt", tag("p", words), drawn)


def samples(contents: Contents) -> Html:
    """A sheet for each class, in the order of the seeds."""
    images = contents.evidence.generated
    if not len(images):
        return NOTHING
    groups: dict[str, np.ndarray] = {"": np.arange(len(images))}
    if images.labels is not None and contents.evidence.classes:
        labels = images.labels
        groups = {name: np.flatnonzero(labels == label) for label, name in enumerate(contents.evidence.classes)}
    sheets = []
    for name, rows in groups.items():
        shown = [picture(images.images[row], images.name(row)) for row in rows[:IN_SHEET].tolist()]
        top = tag("div", tag("h3", name), tag("span", f"{len(rows):,} drawn", class_="soft small"), class_="top")
        sheets.append(tag("div", top, tag("div", *shown, class_="tiles"), class_="sheet"))
    return _section("What it draws", tag("p", "The first images of each class, in the order of their seeds."), *sheets)


def development(contents: Contents) -> Html:
    """The same seeds again and again while it trained."""
    if not contents.stages:
        return NOTHING
    names = list(contents.stages[-1].rows)
    rows = []
    for name in names:
        cells: list[str] = [name or "samples"]
        for stage in contents.stages:
            shown = [picture(image, f"{name}, step {stage.step:,}", zoom=2) for image in stage.rows.get(name, ())]
            cells.append(tag("div", *shown[:IN_STAGE], class_="stage"))
        rows.append(cells)
    head = ["", *(f"step {stage.step:,}" for stage in contents.stages)]
    words = "The same seeds at each step, so that a column differs from the one before it by what was learnt."
    return _section("How they came to be", tag("p", words), table(head, rows, class_="stages"))


def comparisons(contents: Contents) -> Html:
    """Rows of images under one another, a section for each comparison."""
    return text(*(_compared(one) for one in contents.comparisons))


def _compared(one: Comparison) -> Html:
    sheets = []
    for title, images in one.rows.items():
        shown = [picture(image, title, zoom=2) for image in images]
        top = tag("div", tag("span", title, class_="small soft"), class_="top")
        sheets.append(tag("div", top, tag("div", *shown, class_="tiles"), class_="sheet"))
    return _section(one.title, tag("p", one.words), *sheets)


def neighbours(contents: Contents) -> Html:
    """Generated images beside the training image nearest to each."""
    evidence = contents.evidence
    if not evidence.has("training") or not evidence.has("generated"):
        return NOTHING
    words = (
        "Left the generated image, right the training image nearest to it in pixels. The number is the mean difference "
        "of the two in levels of 255: 0 is a copy, a few levels are a copy with noise."
    )
    chosen = (("Nobody chose these", spread(evidence, PAIRS)), ("The closest of all", closest(evidence, PAIRS)))
    shown: list[str] = [tag("p", words)]
    for title, rows in chosen:
        figures = [_pair(contents, pair) for pair in nearest_pairs(evidence, rows)]
        shown += [tag("h3", title, class_="gap"), tag("div", *figures, class_="pairs")]
    return _section("Did it copy?", *shown)


def _pair(contents: Contents, pair: Pair) -> Html:
    generated, training = contents.evidence.generated, contents.evidence.training
    assert training is not None
    left = picture(generated.images[pair.generated], generated.name(pair.generated), zoom=5)
    theirs = training.images[pair.training]
    name = training.name(pair.training)
    right = picture(theirs[:, ::-1] if pair.is_mirrored else theirs, name, zoom=5)
    caption = f"{pair.distance:.0f} levels · {name}{', mirrored' if pair.is_mirrored else ''}"
    return tag("figure", tag("div", left, right, class_="tiles"), tag("figcaption", caption), class_="pair")


def data(contents: Contents) -> Html:
    """What it learnt from: counts, a few images of each class, and what was put aside."""
    counts, training = contents.counts, contents.evidence.training
    if not counts and not contents.quarantined:
        return NOTHING
    most = max((count.training + count.held_out for count in counts), default=1) or 1
    rows = []
    for count in counts:
        bar = tag("span", tag("i"), class_="bar", style=f"width:{(count.training + count.held_out) / most:.1%}")
        rows.append([count.name, bar, f"{count.training:,}", f"{count.held_out:,}"])
    parts: list[str] = [table(["Class", "", "Training", "Held out"], rows, class_="counts")] if rows else []
    if training is not None:
        parts += [tag("h3", "Training images", class_="gap"), *_training_sheets(training, contents.evidence.classes)]
    if contents.quarantined:
        parts += [
            tag("h3", f"Put aside: {len(contents.quarantined):,}", class_="gap"),
            tag("p", "These files could not be used; training went on without them.", class_="soft small"),
            table(["File", "Reason"], contents.quarantined),
        ]
    return _section("What it learnt from", *parts)


def _training_sheets(training: ImageSet, classes: Sequence[str]) -> Iterator[Html]:
    labels = training.labels if training.labels is not None else np.zeros(len(training), np.int64)
    for label, name in enumerate(classes or [""]):
        rows = np.flatnonzero(labels == label)[:IN_DATA].tolist()
        tiles = tag("div", *(picture(training.images[row], training.name(row), zoom=2) for row in rows), class_="tiles")
        yield tag("div", tag("div", tag("span", name, class_="small soft"), class_="top"), tiles, class_="sheet")


def warned(contents: Contents) -> Html:
    """All that it said of itself on the way."""
    if not contents.warnings:
        return NOTHING
    said = [f"{text} ({count:,} times)" if count > 1 else text for text, count in contents.warnings.items()]
    return _section("What it warned of", tag("ul", *(tag("li", one) for one in said), class_="plain"))


def limits(contents: Contents) -> Html:
    """What the numbers cannot say, and what nobody has looked at."""
    if not contents.judgement.results and not contents.judgement.left_out:
        return NOTHING
    said = [result.metric.cannot_say for result in contents.judgement.results.values()]
    lacking = [
        f"Not measured: {kind}, for want of {', '.join(needs)}." for kind, needs in contents.judgement.left_out.items()
    ]
    open_questions = "Nobody has looked for visual faults (artifacts) in single images yet, nor compared checkpoints."
    items = [tag("li", sentence) for sentence in (*said, *contents.remarks, *lacking, open_questions)]
    return _section("What these numbers cannot say", tag("ul", *items, class_="plain"))


def setup(contents: Contents) -> Html:
    """What it took, and all settings and versions, folded."""
    if not contents.took and not contents.settings and not contents.versions:
        return NOTHING
    took = [table(["", "What it took"], contents.took, class_="settings")] if contents.took else []
    settings = table(["Setting", "Value"], _flat(contents.settings), class_="settings")
    versions = table(["Part", "Version"], contents.versions.items(), class_="settings")
    folded = [
        tag("details", tag("summary", title), shown)
        for title, shown, given in (
            ("All settings", settings, contents.settings),
            ("Versions", versions, contents.versions),
        )
        if given
    ]
    return _section("How it was made", *took, *folded)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _section(title: str, *parts: str) -> Html:
    return tag("section", tag("h2", title), *parts)


def _mixed(images: ImageSet, count: int) -> list[int]:
    """Rows that go round the classes, so that each is seen."""
    if images.labels is None:
        return list(range(min(count, len(images))))
    groups = [np.flatnonzero(images.labels == label).tolist() for label in np.unique(images.labels)]
    turns = max((len(group) for group in groups), default=0)
    return [group[turn] for turn in range(turns) for group in groups if turn < len(group)][:count]


def _shown(result: Result, value: float, *, short: bool = False) -> str:
    if result.metric.unit == "share":
        return f"{value * 100:.3g}\u202f%" if short else percent(value)
    return f"{value:.3g}" if short else f"{value:.2f}"


def _top(result: Result) -> float:
    """The end of the scale: 1, or for a small share a whole number of twentieths."""
    found = result.measurement
    largest = max(found.high, found.reference or 0.0)
    if result.metric.unit == "share" and largest < 0.3:
        return (int(largest * 20) + 1) / 20
    return max(1.0, largest)


def _at(value: float, top: float) -> str:
    return f"{max(0.0, min(1.0, value / top)):.2%}"


ALL: Final[tuple[Callable[[Any], Html], ...]] = (
    numbers,
    learning,
    samples,
    development,
    neighbours,
    comparisons,
    data,
    warned,
    limits,
    setup,
)
"""In the order in which they are read. The judge to come puts its sections after `numbers`."""
