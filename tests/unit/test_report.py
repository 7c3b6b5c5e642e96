"""The report as a file: whole, asking for nothing, and harmless whatever names it is given."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from fusain.evaluation import curves
from fusain.evaluation.curves import Curve, Point
from fusain.evaluation.evaluator import judge
from fusain.evaluation.evidence import Evidence, ImageSet
from fusain.evaluation.features import MainDirections
from fusain.evaluation.page import Html, picture, tag
from fusain.evaluation.report import ClassCount, Contents, Stage, render, write
from fusain.evaluation.style import STYLE

EVIL = '"><script>alert(1)</script><img src=https://example.org/x.png onerror=alert(2)>'
EMPTY = {"br", "img", "meta", "link", "hr", "input"}


class Reader(HTMLParser):
    """All elements with their attributes, and whether every one that opens is closed."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in EMPTY:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, words):
        if not self.open or self.open[-1] != "style":
            self.words.append(words)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture
def contents():
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (160, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(160) % 2
    names = tuple(f"{EVIL}{number}.png" for number in range(80))
    classes = (EVIL, "tame")
    training, held_out = ImageSet(images[:80], labels[:80], names), ImageSet(images[80:120], labels[80:120])
    evidence = Evidence(
        ImageSet(images[120:], labels[120:]),
        held_out,
        training,
        classes,
        lambda given: np.eye(2, dtype=np.float32)[np.arange(len(given)) % 2],
        MainDirections.of(training.images),
    )
    return Contents(
        title=f"What {EVIL} learnt",
        lead=EVIL,
        evidence=evidence,
        judgement=judge(evidence),
        held_out_curve=[Point(0, 1.0), Point(10, 0.1)],
        training_curve=[Point(step, 1 / step) for step in range(1, 11)],
        stages=[Stage(10, {EVIL: list(images[:4]), "tame": list(images[4:8])})],
        counts=[ClassCount(EVIL, 40, 20), ClassCount("tame", 40, 20)],
        quarantined=[(EVIL, f"{EVIL} is empty")],
        took=[("Time", f"3 s for {EVIL}"), ("Memory", "4 GB of the GPU at the peak")],
        warnings={EVIL: 3},
        settings={"data": {"path": EVIL, "flip": False}, "train": {"steps": 10}},
        versions={"fusain": "1"},
        remarks=[EVIL],
    )


def test_the_file_asks_for_nothing(contents):
    page = render(replace(contents, title="demo", lead="", remarks=[]))
    found = Reader(page)
    assert found.open == []
    for name, attributes in found.elements:
        assert name not in {"script", "link", "iframe", "object", "embed", "form", "base"}
        assert not {"href", "action", "onload", "onerror", "srcset"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attributes
    assert not re.search(r"url\(|@import", page)
    assert "http://" not in page
    assert "https://" not in page.replace("https://example.org", "")


def test_names_from_files_stay_text(contents):
    page = render(contents)
    found = Reader(page)
    assert "script" not in {name for name, _ in found.elements}
    assert "<script" not in page
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert EVIL in found.text
    assert f"{EVIL} is empty" in found.text


def test_every_part_is_there(contents):
    found = Reader(render(contents)).text
    headings = (
        "The numbers",
        "How it learnt",
        "What it draws",
        "How they came to be",
        "Did it copy?",
        "What it learnt from",
        "What it warned of",
        "What these numbers cannot say",
        "How it was made",
    )
    for words in (*headings, "train.steps", "Held-out loss", "Put aside: 1", "4 GB of the GPU at the peak"):
        assert words in found
    for result in contents.judgement.results.values():
        assert result.metric.title in found
        assert result.measurement.sentence in found
        assert result.metric.cannot_say in found


def test_what_is_missing_is_left_out(contents):
    generated = ImageSet(contents.evidence.generated.images)
    evidence = Evidence(generated)
    found = Reader(render(Contents("demo", "", evidence, judge(evidence)))).text
    assert "How it learnt" not in found
    assert "The numbers" not in found
    assert "Not measured: copies, for want of held_out, training." in found


def test_a_run_that_nobody_judged(contents):
    """Its newest samples stand in front, and no limits of numbers that there are not."""
    bare = Contents("demo", "", stages=contents.stages, settings=contents.settings, warnings={"once": 1, "often": 2})
    page = render(bare)
    found = Reader(page).text
    for words in ("Nobody chose them", "How they came to be", "How it was made", "once", "often (2 times)"):
        assert words in found
    assert page.count("<img") == 8 + 8
    for words in ("The numbers", "What it draws", "What these numbers cannot say", "How it learnt"):
        assert words not in found
    assert "Nobody chose them" not in render(Contents("demo", ""))


def test_it_is_written_whole(contents, tmp_path):
    write(contents, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(contents)


def test_tags_escape():
    assert tag("p", "a<b", Html("<br>"), class_='"x"', aria_label="l") == (
        '<p class="&quot;x&quot;" aria-label="l">a&lt;b<br></p>'
    )


def test_large_pictures_are_shown_smaller():
    shown = picture(np.zeros((400, 800, 3), np.uint8), "wide")
    assert 'width="160" height="80"' in shown
    assert 'width="48" height="48"' in picture(np.zeros((16, 16, 3), np.uint8), "small")


def test_smoothing_starts_unpulled():
    assert [point.value for point in curves.smoothed([Point(step, 2.0) for step in range(5)])] == pytest.approx(
        [2.0] * 5
    )
    long = curves.smoothed([Point(step, 1.0) for step in range(10_000)])
    assert len(long) <= 2 * curves.MOST_POINTS
    assert long[-1].step == 9_999


def test_curves_with_odd_numbers():
    assert curves.plot([], "none") == ""
    drawn = curves.plot([Curve("loss", [Point(0, float("nan")), Point(5, 0.5), Point(9, 0.5)], True)], "flat")
    assert "nan" not in drawn
    assert 'class="main"' in drawn
    assert "0.5" in Reader(curves.plot([Curve("loss", [Point(0, -1.0), Point(9, 1.0)], True)], "signed")).text


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out(scheme):
    """WCAG AA: 4.5 to 1 for words of every colour on both backgrounds."""
    names = ("paper", "card", "ink", "soft", "chalk")
    values = {name: re.findall(rf"--{name}: (#[0-9a-f]{{6}})", STYLE)[scheme] for name in names}
    for words in ("ink", "soft", "chalk"):
        for ground in ("paper", "card"):
            low, high = sorted(luminance(values[name]) for name in (words, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (words, ground)
