"""DreamBooth runs on the smallest real base: class images drawn and kept, pairs learnt, exact resume, snapshots."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from fusain.errors import FusainError, UsageError
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.bases import fresh
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from fusain.runs import actions, history, planning
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings, make_plan
from fusain.settings.read import resolve
from fusain.worlds.caricatures import portraits
from tests.runs.training import assert_equal_runs, flat, kinds, losses, train_here

SETTINGS = """
[family]
kind = "sd"
base = "{base}"
size = 32

[method]
condition_dropout = 0.0

[data]
path = "{data}"

[data.subject]
identifier = "s"
class_word = "face"

[data.class_images]
weight = 1.0
count = 6
steps = 2

[train]
steps = 6
batch_size = 2
learning_rate = 1e-3
ema_decay = 0.0

[checkpoint]
every_steps = 2

[samples]
every_steps = 0
steps = 2
count = 1

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dreambooth") / "base"
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, four pictures of Ada and a cache of its own."""
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ada").mkdir()
    for number, picture in enumerate(portraits("Ada", 4).images):
        Image.fromarray(picture).save(tmp_path / "ada" / f"{number}.png")
    (tmp_path / "ada.toml").write_text(SETTINGS.format(base=base, data=tmp_path / "ada"))
    return tmp_path


def train(place: Path, name: str, changes: dict[str, Any] | None = None, **more: Any) -> Path:
    train_here(place / "ada.toml", name, place, changes, **more)
    return place / name


def drawn_in(place: Path, prompt: str = "a-photo-of-face") -> list[Path]:
    return sorted((place / "cache" / "class_images").glob(f"{prompt}-*/*.png"))


def progress(run: Path) -> list[tuple[int, int]]:
    return [(event["done"], event["total"]) for event in kinds(run, "class_images")]


def test_class_images_are_drawn_from_the_base_once(place: Path, base: Path) -> None:
    run = train(place, "first")
    assert progress(run) == [(done, 6) for done in range(7)]
    files = drawn_in(place)
    assert [path.name for path in files] == [f"{seed:010d}.png" for seed in range(6)]
    family = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts())
    sampler = SamplerSettings(sampler="ddim", steps=2, guidance=10.0, eta=0.0)
    wanted = [Wanted(seed, prompt="a photo of face") for seed in range(8)]
    for one, other in zip(flat(files), generate(family, wanted, sampler, chunk=4), strict=False):
        assert np.array_equal(one, other.pixels)
    assert progress(train(place, "second")) == []
    assert_equal_runs(run, place / "second")


def test_a_drawing_that_was_broken_off_goes_on_where_it_was(place: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["kind"] == "class_images" and event["done"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(place, "run", report=interrupt)
    assert [path.name for path in drawn_in(place)] == [f"{seed:010d}.png" for seed in range(3)]
    kept = {path: path.stat().st_mtime_ns for path in drawn_in(place)[1:]}
    drawn_in(place)[0].write_bytes(drawn_in(place)[0].read_bytes()[:200])
    run = train(place, "run")
    assert progress(run)[-5:] == [(done, 4) for done in range(5)]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    in_parts = flat(drawn_in(place))
    shutil.rmtree(place / "cache")
    train(place, "whole")
    assert all(np.array_equal(one, other) for one, other in zip(in_parts, flat(drawn_in(place)), strict=True))
    assert_equal_runs(run, place / "whole")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard, even where the tests run in the background, which a shell begins deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("how", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), ("stop", "asked")]
)
def test_a_stop_is_heard_while_class_images_are_drawn(place: Path, how: Any, reason: str, ctrl_c: None) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "class_images" and event["done"] == 2:
            (place / "run" / how).touch() if how == "stop" else signal.raise_signal(how)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = train_here(place / "ada.toml", "run", place, report=stop)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert result.as_json() | {"stopped": reason, "step": 0, "steps": 6} == result.as_json()
    run = place / "run"
    assert [(event["step"], event["reason"]) for event in kinds(run, "stopped")] == [(0, reason)]
    assert [event["text"] for event in kinds(run, "note")] == [
        "Stopped with 4 of 6 class images drawn; the same command goes on from there."
    ]
    assert not (run / "settings.json").exists()
    assert len(drawn_in(place)) == 4, "the chunk that was being drawn is kept whole"
    train(place, "run")
    assert progress(run)[-3:] == [(0, 2), (1, 2), (2, 2)]
    shutil.rmtree(place / "cache")
    assert_equal_runs(run, train(place, "whole"))


def test_a_stop_while_a_run_that_stands_draws_class_images_anew(place: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "class_images" and event["done"] == 5:
            signal.raise_signal(signal.SIGTERM)

    train(place, "run", {"train.steps": 2})
    shutil.rmtree(place / "cache")
    result = train_here(place / "ada.toml", "run", place, report=stop)
    assert (result.step, result.stopped) == (2, "terminated")
    assert kinds(place / "run", "note")[-1]["text"].startswith("Stopped with 6 of 6 class images drawn;")
    assert history.summary(RunFolder(place / "run")).state == "stopped"
    assert sorted(losses(train(place, "run"))) == [1, 2, 3, 4, 5, 6]


def test_what_is_drawn_decides_where_it_is_kept(place: Path) -> None:
    short = {"train.steps": 1, "data.class_images.count": 2}
    train(place, "first", short)
    assert progress(train(place, "fewer", {**short, "data.class_images.count": 1})) == []
    assert progress(train(place, "other-seed", {**short, "data.class_images.seed": 1}))[-1] == (1, 1)
    assert len({path.parent for path in drawn_in(place)}) == 1
    for name, value in {"steps": 3, "guidance": 2.0, "eta": 0.5, "prompt": "someone"}.items():
        assert progress(train(place, name, {**short, f"data.class_images.{name}": value}))
    assert len(list((place / "cache" / "class_images").iterdir())) == 5


def test_another_base_draws_class_images_of_its_own(place: Path, base: Path) -> None:
    short = {"train.steps": 1, "data.class_images.count": 2}
    train(place, "first", short)
    shutil.copytree(base, place / "other")
    assert progress(train(place, "copied", {**short, "family.base": str(place / "other")})) == [], "equal weights"
    shutil.rmtree(place / "other")
    fresh.write(fresh.TINY, place / "other", seed=7)
    assert progress(train(place, "second", {**short, "family.base": str(place / "other")}))[-1] == (2, 2)
    assert len({path.parent for path in drawn_in(place)}) == 2


def test_a_cache_that_cannot_hold_class_images(place: Path) -> None:
    (place / "cache").mkdir()
    (place / "cache" / "class_images").write_text("in the way")
    with pytest.raises(FusainError) as caught:
        train(place, "run")
    folder = caught.value.where
    assert folder.startswith(str(place / "cache" / "class_images" / "a-photo-of-face-"))
    assert str(caught.value) == (
        "E-DATA-068 Class images cannot be kept: Not a directory.\n"
        f"Where: {folder}\n"
        "Why: They are drawn once and kept in the cache folder for every run.\n"
        "Do: Make room, or point FUSAIN_CACHE to another folder."
    )


def test_a_plan_draws_nothing_and_tells_what_a_training_will_draw(place: Path) -> None:
    overrides = [("runs_folder", str(place))]
    plan = planning.plan(place / "ada.toml", overrides=overrides)
    assert (plan.class_images_to_draw, plan.images, plan.steps, plan.epochs) == (6, 4, 6, 1.5)
    told = dict(plan.lines())
    assert told["class images"] == "0 of weight 1, none yet"
    assert told["to draw"].startswith("6 class images before the first step, about ")
    assert drawn_in(place) == []
    train(place, "run")
    plan = planning.plan(place / "ada.toml", overrides=overrides, measure=False)
    assert (plan.class_images_to_draw, plan.epochs) == (0, 1.5)
    assert dict(plan.lines())["class images"] == "6 of weight 1, 4 of them an epoch"
    assert "to draw" not in dict(plan.lines())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.cache": "none", "data.flip": True},
        {"method.text_encoder": True, "method.text_encoder_steps": 1},
        {"method.text_encoder": True, "method.text_encoder_steps": 3, "train.ema_decay": 0.9},
        {"method.kind": "lora", "method.text_encoder": True, "method.text_encoder_steps": 1},
    ],
)
def test_resume_is_exact_even_where_class_images_are_drawn_anew(place: Path, changes: dict[str, Any]) -> None:
    whole = train(place, "whole", changes)
    train(place, "parts", {**changes, "train.steps": 2})
    shutil.rmtree(place / "cache")
    parts = train(place, "parts", changes)
    assert kinds(parts, "resumed")
    assert_equal_runs(whole, parts)


def test_other_class_images_are_another_data_set(place: Path) -> None:
    train(place, "run", {"train.steps": 2})
    Image.new("RGB", (32, 32), "teal").save(drawn_in(place)[0])
    with pytest.raises(FusainError) as caught:
        train(place, "run")
    name = f"class images/{drawn_in(place)[0].relative_to(place / 'cache' / 'class_images')}"
    assert str(caught.value) == (
        f"E-DATA-021 The images are not those that the run was started with: 1 changed ('{name}').\n"
        f"Where: {place / 'ada'}\n"
        "Why: A run that goes on with other images is neither the old one nor a new one.\n"
        "Do: Put the files back as they were, or start a new run."
    )


def test_the_weight_counts_whatever_the_batch_holds(place: Path) -> None:
    weighed = {"data.class_images.weight": 0.25, "train.steps": 1}
    one = losses(train(place, "one", weighed))[1]
    two = losses(train(place, "two", {**weighed, "train.batch_size": 1, "train.accumulation": 2}))[1]
    assert one == pytest.approx(two, rel=1e-5)
    full = losses(train(place, "full", {"train.steps": 1}))[1]
    heavy = losses(train(place, "heavy", {**weighed, "data.class_images.weight": 2.0}))[1]
    # subject / 2 + weight x class / 2 is a straight line.
    assert heavy - full == pytest.approx((full - one) / 0.75, rel=1e-4)
    assert full - one > 0.01


def test_stored_encodings_change_no_loss(place: Path) -> None:
    stored, anew = train(place, "stored"), train(place, "anew", {"data.cache": "none"})
    assert list(losses(stored)) == [1, 2, 3, 4, 5, 6]
    for step, loss in losses(stored).items():
        assert loss == pytest.approx(losses(anew)[step], rel=2e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_text_encoder_stops_in_time(place: Path, method: str) -> None:
    changes = {"method.kind": method, "method.text_encoder": True, "method.text_encoder_steps": 2, "checkpoint.keep": 9}
    run = train(place, "run", changes)
    assert [event["text"] for event in kinds(run, "note")] == ["the text encoder learns no more from step 2 on"]
    two, four, six = (
        load_file(run / "checkpoints" / f"step-0000000{step}" / "trainable.safetensors") for step in (2, 4, 6)
    )
    of_text = [name for name in two if name.startswith("text_encoder.")]
    assert of_text
    assert all(two[name].equal(four[name]) and two[name].equal(six[name]) for name in of_text)
    others = [name for name in two if not name.startswith("text_encoder.")]
    assert sum(not four[name].equal(six[name]) for name in others) > len(others) / 2
    never = train(place, "never", {**changes, "method.text_encoder_steps": "none"})
    learnt = load_file(never / "checkpoints" / "step-00000006" / "trainable.safetensors")
    assert not all(learnt[name].equal(two[name]) for name in of_text)


def test_snapshots_stay_and_are_drawn_from(place: Path) -> None:
    run = train(place, "run", {"checkpoint.snapshots": [1, 3, 99], "checkpoint.keep": 1})
    listed = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert listed == ["step-00000001", "step-00000003", "step-00000006"]
    told = dict(planning.plan(place / "ada.toml", overrides=[("checkpoint.snapshots", "[1, 3, 99]")]).lines())
    assert told["checkpoint"] == "every 2 steps; kept for good: 1, 3"
    drawn = [
        flat(actions.generate(run, prompts=["a photo of s face"], count=1, checkpoint=name, output=place / name).images)
        for name in ("step-00000003", "1")
    ]
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    with pytest.raises(UsageError):
        actions.generate(run, prompts=["s"], checkpoint="99")


def test_samples_show_the_subject_and_its_class(place: Path) -> None:
    run = train(place, "run", {"samples.every_steps": 6})
    names = [path.name for path in sorted((run / "samples" / "step-00000006").glob("0*.png"))]
    assert names == ["00000-a-photo-of-s-face.png", "00001-a-photo-of-face.png"]


def test_an_identifier_that_the_base_spells_is_said(place: Path) -> None:
    run = train(place, "run", {"train.steps": 1, "data.subject.identifier": "sk"})
    said = [event["text"] for event in kinds(run, "warning") if event["code"].startswith("W-DATA")]
    expected = (
        "W-DATA-043 The identifier 'sk' is 2 tokens to this base: 's' + 'k'. (data.subject.identifier) "
        "Their meanings mix with the subject. A short rare word such as 'sks' is one token."
    )
    assert said == [expected]
    assert (
        expected
        in planning.plan(place / "ada.toml", overrides=[("data.subject.identifier", "sk")], measure=False).notices
    )


def test_several_subjects_in_one_run_with_class_images_of_each(place: Path) -> None:
    (place / "two" / "2_sks face").mkdir(parents=True)
    (place / "two" / "1_ohwx hat").mkdir()
    for number, path in enumerate(sorted((place / "ada").iterdir())):
        shutil.copy(path, place / "two" / ("2_sks face" if number < 3 else "1_ohwx hat"))
    run = train(place, "run", {"data.path": str(place / "two"), "data.class_images.count": 2})
    assert progress(run)[-1] == (4, 4)
    assert len(drawn_in(place)) == len(drawn_in(place, "a-photo-of-hat")) == 2
    plan = planning.plan(
        place / "ada.toml",
        overrides=[("data.path", str(place / "two")), ("data.class_images.count", "2")],
        measure=False,
    )
    told = dict(plan.lines())
    assert (told["subject sks face"], told["subject ohwx hat"]) == ("3 images", "1 image")
    assert told["class images"] == "4 of weight 1, 7 of them an epoch"


RECIPES = {"dreambooth": 1e-6, "dreambooth-lora": 1e-4, "sd15-dreambooth-12gb": 1e-6}
"""And their learning rates."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_have_the_settings_that_dreambooth_began_with(recipe: str) -> None:
    """What the notes that the project came from say: class images, rate, length, the step 500 and the end."""
    given = [("data.path", "my_dog"), ("data.subject.class_word", "dog"), ("family.size", "512")]
    settings = resolve(RunSettings, recipe=recipe, overrides=given).settings
    drawn = settings.data.class_images
    assert (drawn.count, drawn.guidance, drawn.steps, drawn.eta) == (200, 10.0, 50, 0.0)
    assert (drawn.weight, drawn.path, drawn.prompt, drawn.seed) == (1.0, None, "a photo of {class_word}", 0)
    assert (settings.data.subject.identifier, settings.family.kind, settings.family.size) == ("sks", "sd", 512)
    assert (settings.train.steps, settings.train.learning_rate) == (800, RECIPES[recipe])
    numbers = make_plan(settings, entries=10)
    assert numbers.snapshots == {500}
    assert [step for step in (799, 800) if numbers.is_due(step, numbers.checkpoint_every)] == [800]


def test_stable_diffusion_is_what_the_recipe_dreambooth_starts_from() -> None:
    given = [("data.path", "my_dog"), ("data.subject.class_word", "dog")]
    family = resolve(RunSettings, recipe="dreambooth", overrides=given).settings.family
    assert (family.kind, family.base, family.size) == ("sd", "CompVis/stable-diffusion-v1-4", 512)


@pytest.mark.parametrize("recipe", ["dreambooth", "dreambooth-lora"])
def test_the_recipes_learn_a_subject_beside_its_class(place: Path, base: Path, recipe: str) -> None:
    changes = {
        "family.base": str(base),
        "family.size": 32,
        "data.path": str(place / "ada"),
        "data.subject.class_word": "face",
        "data.class_images.count": 3,
        "data.class_images.steps": 2,
        "train.steps": 3,
        "checkpoint.snapshots": [1],
        "samples.every_steps": 0,
        "engine.device": "cpu",
        "engine.precision": "fp32",
        "engine.threads": 1,
    }
    train_here(Path(recipe), "run", place, changes)
    assert len(losses(place / "run")) == 3
    assert len(drawn_in(place)) == 3
    kept = [event["step"] for event in kinds(place / "run", "checkpoint")]
    assert kept == [1, 3]
    drawn = actions.generate(place / "run", prompts=["a photo of sks face"], count=1, output=place / "drawn")
    assert flat(drawn.images)[0].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"data.class_images.weight": 0, "data.class_images.count": 7},
            "W-CFG-002 'data.class_images.count' has no effect in this run: "
            "there are no class images (data.class_images.weight = 0). (--data.class_images.count)",
        ),
        (
            {"method.text_encoder_steps": 3},
            "W-CFG-002 'method.text_encoder_steps' has no effect in this run: "
            "the text encoder does not learn (method.text_encoder = false). (--method.text_encoder_steps)",
        ),
        (
            {"method.kind": "autoencoder"},
            "W-CFG-002 'data.class_images.weight' has no effect in this run: no captions are learnt. ({file} line 18)",
        ),
    ],
)
def test_settings_without_effect_are_said(place: Path, changes: dict[str, Any], told: str) -> None:
    if "method.kind" in changes:
        (place / "ada.toml").write_text((place / "ada.toml").read_text().replace("condition_dropout = 0.0", ""))
    run = train(place, "run", {**changes, "train.steps": 1})
    assert told.format(file=place / "ada.toml") in [event["text"] for event in kinds(run, "warning")]


def unusual(place: Path, **changes: Any) -> list[str]:
    overrides = [(key.replace("__", "."), value) for key, value in changes.items()]
    found = planning.plan(place / "ada.toml", overrides=overrides, measure=False).notices
    return [notice for notice in found if notice.startswith("W-TRAIN")]


def test_too_few_and_too_many_steps_are_told(place: Path) -> None:
    assert unusual(place) == [
        "W-TRAIN-003 Each image of the subject is learnt 2 times, where 50 to 400 are usual: too little to know it. "
        "(train.steps) Try train.steps = 200, and look at the samples."
    ]
    assert unusual(place, train__steps=200) == []
    assert unusual(place, train__steps=2000) == [
        "W-TRAIN-003 Each image of the subject is learnt 500 times, where 50 to 400 are usual: they may come back as "
        "they are, whatever the prompt says. (train.steps) Try train.steps = 1600, and look at the samples."
    ]


def test_an_average_that_remembers_nothing_is_told(place: Path) -> None:
    assert unusual(place, train__steps=200, train__ema_decay=0.5) == [
        "W-TRAIN-004 With train.ema_decay = 0.5 the average remembers 2 steps only and smooths next to nothing. "
        "(train.ema_decay) Usual are 0.9 to 0.9999, or 0 for no average."
    ]
    assert unusual(place, train__steps=200, train__ema_decay=0.99) == []
