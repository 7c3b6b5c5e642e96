"""What is unusual for a method on a base of a size is told, with the whole text; what is carried is usual."""

import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import full_size

from fusain.models import packed
from fusain.runs import assembly, planning, usual
from fusain.runs.settings import METHODS, RunSettings
from fusain.settings import recipes
from fusain.settings.read import resolve
from fusain.training.optimizers import KINDS
from fusain.training.usual import DECAYS, SUBJECT, BySize
from fusain.worlds.caricatures import portraits, world, write_folder
from tests.docs.test_readme import ROOT
from tests.prove import style, subjects, test_style_lora, test_textual_inversion
from tests.runs.training import as_overrides, kinds, train_here

FROM = "Where these numbers come from is told in docs/how-to/usual-settings.md."
RATE = f"(train.learning_rate) Too low a rate learns next to nothing; with too high a one images fall apart. {FROM}"


WHOLE = {"data.small": "enlarge", "data.buckets": False}
"""The images are smaller than those that the recipes keep."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases of every size without numbers, and images of every count that is needed."""
    folder = tmp_path_factory.mktemp("usual")
    for architecture in full_size.PIPELINES:
        full_size.write(architecture, folder / architecture)
    write_folder(portraits("Ada", 5), folder / "five")
    write_folder(portraits("Ada", 8), folder / "eight", with_masks=True)
    for count in (20, 300):
        write_folder(world(count, seed=4), folder / f"{count}")
    for name in ("one", "other"):
        write_folder(world(30, seed=5), folder / "classes" / name)
        (folder / "classes" / name / "metadata.jsonl").unlink()
    return folder


def told(place: Path, recipe: str, data: str, base: str | None = None, **changes: Any) -> list[str]:
    """What is said of a run of a recipe before it starts, by method and size."""
    own: dict[str, Any] = {"data.path": str(place / data), **WHOLE}
    own |= {key.replace("__", "."): changes[key] for key in changes}
    if base:
        own["family.base"] = base if base.startswith("fusain:") else str(place / base)
    settings = resolve(RunSettings, recipe=recipe, overrides=as_overrides(own)).settings
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    family = assembly.without_weights(settings, dataset.classes).family
    return [str(notice) for notice in usual.worth_a_word(settings, dataset, family)]


MINI = style.BASE
SUBJECTS = {"data__subject__class_word": "person"}
INTENDED: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "caricature": ("300", "sd1", {"data__caption_column": "text"}),
    "class-conditional": ("classes", None, {}),
    "demo": ("classes", None, {}),
    "demo-character": ("eight", MINI, {}),
    "dreambooth": ("five", "sd1", SUBJECTS),
    "dreambooth-lora": ("five", "sd1", SUBJECTS),
    "lora": ("20", "sd1", {}),
    "sd15-dreambooth-12gb": ("five", "sd1", SUBJECTS),
    "sdxl-full-10gb": ("300", "sdxl", {}),
    "sdxl-full-24gb": ("300", "sdxl", {}),
    "sdxl-lora": ("20", "sdxl", {}),
    "sdxl-lora-12gb": ("20", "sdxl", {}),
    "sdxl-lora-8gb": ("20", "sdxl", {}),
    "text-to-image": ("300", "sd1", {}),
    "textual-inversion": ("five", "sd1", {"method__start_word": "a"}),
    "unconditional": ("300", None, {}),
}
"""Images, base and changes of each recipe as it is meant."""


def test_every_recipe_is_looked_at() -> None:
    assert sorted(INTENDED) == recipes.names()


@pytest.mark.parametrize("recipe", INTENDED)
def test_recipes_are_usual_on_the_base_that_they_are_for(place: Path, recipe: str) -> None:
    data, base, changes = INTENDED[recipe]
    assert told(place, recipe, data, base, **changes) == []


PROOFS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "a style by all weights": ("text-to-image", "300", MINI, style.SETTINGS),
    "a character": ("dreambooth", "eight", MINI, subjects.SETTINGS),
    "a style by a LoRA": ("lora", "20", MINI, test_style_lora.SETTINGS),
    "the same on XL": (
        "lora",
        "20",
        style.BASES["sdxl"],
        {"family.kind": "sdxl"} | test_style_lora.SETTINGS | test_style_lora.OF_FAMILIES["sdxl"],
    ),
    "a new word": ("textual-inversion", "eight", MINI, test_textual_inversion.SETTINGS),
}


@pytest.mark.parametrize("proof", PROOFS)
def test_what_is_proved_on_the_miniature_is_usual_there(place: Path, proof: str) -> None:
    recipe, data, base, settings = PROOFS[proof]
    assert told(place, recipe, data, base, **settings) == []


def rate(place: Path, recipe: str, base: str, learning_rate: float, **changes: Any) -> list[str]:
    found = told(place, recipe, "20", base, train__learning_rate=learning_rate, **changes)
    return [text for text in found if text.startswith("W-TRAIN-007")]


def test_the_rate_that_is_right_for_a_miniature_ruins_a_large_base(place: Path) -> None:
    assert rate(place, "text-to-image", MINI, 1e-3) == []
    assert rate(place, "text-to-image", "sd1", 1e-3) == [
        "W-TRAIN-007 A learning rate of 0.001 is above the usual 1e-06 to 0.0001 of method 'full' with adamw on 860 "
        f"million weights. {RATE}"
    ]
    assert rate(place, "sdxl-full-24gb", "sdxl", 1e-3) == [
        "W-TRAIN-007 A learning rate of 0.001 is above the usual 4e-07 to 2e-05 of method 'full' with adafactor on 2.6 "
        f"billion weights. {RATE}"
    ]
    assert rate(place, "sdxl-full-24gb", "sdxl", 1e-7) == [
        "W-TRAIN-007 A learning rate of 1e-07 is below the usual 4e-07 to 2e-05 of method 'full' with adafactor on 2.6 "
        f"billion weights. {RATE}"
    ]


def test_a_method_that_trains_little_takes_higher_rates(place: Path) -> None:
    assert rate(place, "lora", "sd1", 1e-3) == []
    assert rate(place, "sdxl-lora", "sdxl", 1e-3) == [
        "W-TRAIN-007 A learning rate of 0.001 is above the usual 1e-05 to 0.0005 of method 'lora' with adamw on 2.6 "
        f"billion weights. {RATE}"
    ]
    assert rate(place, "textual-inversion", "sd1", 1e-5, method__start_word="a") == [
        "W-TRAIN-007 A learning rate of 1e-05 is below the usual 0.0001 to 0.05 of method 'textual_inversion' with "
        f"adamw on 860 million weights. {RATE}"
    ]


def test_an_optimizer_has_rates_of_its_own(place: Path) -> None:
    assert rate(place, "lora", "sd1", 1e-6, train__optimizer="lion") == []
    assert rate(place, "lora", "sd1", 1e-3, train__optimizer="lion") == [
        "W-TRAIN-007 A learning rate of 0.001 is above the usual 1e-06 to 0.0003333 of method 'lora' with lion on 860 "
        f"million weights. {RATE}"
    ]
    assert rate(place, "lora", "sd1", 5e-3, train__optimizer="schedule_free_adamw") == []
    assert rate(place, "lora", "sd1", 1, train__optimizer="prodigy") == []
    assert rate(place, "lora", "sd1", 0.5, train__optimizer="pytorch_optimizer.ADOPT") == []
    assert {name for name, kind in KINDS.items() if kind.pace is None} == {"prodigy"}


def ranked(place: Path, base: str, rank: int) -> list[str]:
    return told(place, "sdxl-lora" if base == "sdxl" else "lora", "20", base, method__rank=rank)


def test_ranks_by_the_size_of_the_base(place: Path) -> None:
    assert [ranked(place, base, rank) for base in ("sd1", "sdxl") for rank in (2, 128)] == [[]] * 4
    assert ranked(place, "sd1", 256) == [
        "W-TRAIN-008 method.rank = 256 is above the usual 2 to 128 of method 'lora' on 860 million weights. "
        f"(method.rank) {FROM}"
    ]
    assert ranked(place, "sdxl", 1) == [
        "W-TRAIN-008 method.rank = 1 is below the usual 2 to 128 of method 'lora' on 2.6 billion weights. "
        f"(method.rank) {FROM}"
    ]
    assert ranked(place, MINI, 32) == []
    assert ranked(place, MINI, 64) == [
        "W-TRAIN-008 method.rank = 64 is above the usual 2 to 32 of method 'lora' on 3.5 million weights. "
        f"(method.rank) {FROM}"
    ]


def test_averages_by_the_size_of_the_base(place: Path) -> None:
    assert told(place, "lora", "20", MINI, train__ema_decay=0.95) == []
    assert told(place, "lora", "20", "sd1", train__ema_decay=0.95) == [
        "W-TRAIN-004 With train.ema_decay = 0.95 the average remembers 20 steps only and smooths next to nothing. "
        "(train.ema_decay) Usual are 0.99 to 0.9999, or 0 for no average."
    ]
    assert told(place, "lora", "20", "sd1", train__ema_decay=0.99999) == [
        "W-TRAIN-004 With train.ema_decay = 0.99999 the average remembers 100,000 steps, longer than most runs. "
        "(train.ema_decay) Usual are 0.99 to 0.9999, or 0 for no average."
    ]


def test_steps_by_the_method(place: Path) -> None:
    assert told(place, "lora", "20", "sd1", train__steps=3) == [
        "W-TRAIN-003 Each image is learnt 0.6 times, where 1 to 500 are usual: too little to know it. (train.steps) "
        "Try train.steps = 5, and look at the samples."
    ]
    assert told(place, "textual-inversion", "five", "sd1", method__start_word="a", train__steps=10_000) == [
        "W-TRAIN-003 Each image is learnt 8,000 times, where 50 to 5000 are usual: they may come back as they are, "
        "whatever the prompt says. (train.steps) Try train.steps = 6250, and look at the samples."
    ]


def test_packed_weights_count_as_what_they_stand_for(place: Path) -> None:
    settings = resolve(
        RunSettings, recipe="lora", overrides=[("data.path", "x"), ("family.base", MINI), ("engine.base_bits", "4")]
    ).settings
    unet: Any = assembly.without_weights(settings, ()).family.network.get_submodule("unet")
    plain = settings.model_copy(update={"engine": settings.engine.model_copy(update={"base_bits": 32})})
    whole: Any = assembly.without_weights(plain, ()).family.network.get_submodule("unet")
    assert packed.count_weights(unet) == packed.count_weights(whole) == sum(one.numel() for one in whole.parameters())
    assert sum(one.numel() for one in unet.parameters()) < packed.count_weights(unet) / 2


def test_plan_and_run_say_it(place: Path, tmp_path: Path) -> None:
    own = {"data.path": str(place / "20"), "family.base": MINI, "family.size": 64, "train.steps": 1}
    own |= {"train.batch_size": 20, "train.accumulation": 1, "train.learning_rate": 0.05, "samples.every_steps": 0}
    own |= {"engine.device": "cpu", "engine.precision": "fp32", "engine.threads": 1, "data.held_out": "none"}
    text = (
        "W-TRAIN-007 A learning rate of 0.05 is above the usual 0.0001 to 0.005 of method 'lora' with adamw on 3.5 "
        f"million weights. {RATE}"
    )
    found = planning.plan("lora", overrides=as_overrides(own), measure=False).notices
    assert [notice for notice in found if notice.startswith("W-TRAIN")] == [text]
    train_here("lora", "run", tmp_path, own)
    assert text in [event["text"] for event in kinds(tmp_path / "run", "warning")]


def spelt(spans: BySize) -> str:
    return " | ".join(usual._spelt(span) for span in (spans.small, spans.medium, spans.large))


def test_every_range_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "how-to" / "usual-settings.md").read_text(encoding="utf-8")
    rows = {f"| `ema_decay` | {spelt(DECAYS)} | W-TRAIN-004 |", f"{usual._spelt(SUBJECT)} times | W-TRAIN-003 |"}
    for name, method in METHODS.items():
        if method.usual.rates:
            rows.add(f"| `{name}`: learning rate | {spelt(method.usual.rates)} | W-TRAIN-007 |")
        if method.usual.times:
            rows.add(f"{usual._spelt(method.usual.times)} times | W-TRAIN-003 |")
        rows |= {f"| `{name}`: {own} | {spelt(spans)} | W-TRAIN-008 |" for own, spans in method.usual.own.items()}
    assert [row for row in rows if row not in page] == []
    assert len(re.findall(r"\| W-TRAIN-00\d \|$", page, re.M)) == len(rows)
