"""Publishing: what arrives at a stand-in for the hub, what the card says, and what it keeps to itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusain.runs import actions, lock, model_card
from fusain.runs.folder import RunFolder
from tests.environment import assert_telemetry_is_off
from tests.runs.publishing import TOKEN, header_of, weights_of
from tests.runs.stand_in_hub import Repository, World
from tests.runs.training import flat

COMMIT = "d" * 40


@pytest.mark.parametrize("run", ["classes", "text"])
def test_all_files_arrive_bit_equal_in_one_commit(
    published_runs: Path, publish: Any, hub: World, home: Path, run: str
) -> None:
    said = publish(run, "--repo", "me/model", "--licence", "creativeml-openrail-m", "--format", "json")
    assert (said.code, said.err) == (0, "")
    answer, repository = json.loads(said.out), hub.repositories["me/model"]
    assert (answer["url"], answer["commit"]) == (f"{hub.endpoint}/me/model", "1".zfill(40))
    assert answer["private"] is repository.private is True
    card = (published_runs / run / "publish" / "README.md").read_bytes()
    picture = max((published_runs / run / "samples").glob("step-*")) / "sheet.png"
    beside = {"README.md": card, "samples.png": picture.read_bytes()}
    assert repository.files == weights_of(published_runs / run) | beside
    assert {one["name"]: one["bytes"] for one in answer["files"]} == {
        name: len(content) for name, content in repository.files.items()
    }
    assert repository.commits == [f"Weights of step {4 if run == 'classes' else 2}, by Fusain 0.1.0"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert_telemetry_is_off(hub.agents)
    kept = [path for place in (published_runs / run, home) for path in place.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()], "the token was stored"


def test_the_card_of_a_pixel_run(published_runs: Path, publish: Any) -> None:
    publish("classes", "--dry-run", "--repo", "me/sprites", "--licence", "mit")
    card = (published_runs / "classes" / "publish" / "README.md").read_text()
    assert header_of(card) == {
        "license": "mit",
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusers", "unconditional-image-generation", "fusain"],
    }
    lock = json.loads((published_runs / "classes" / "data.lock.json").read_text())
    learnt = len(lock["names"]) - len(lock["held_out"])
    for line in (
        "# sprites",
        "Draws images of 8 × 8 pixels, each of a chosen class: food, human, non-human, side-facing, spell.",
        "Trained with Fusain from scratch: family `pixel`, method `full`.",
        "![Samples](samples.png)",
        "| `family.channels` | `[8, 16]` |",
        "| `train.steps` | `4` |",
        "| `samples.guidance` | `2.0` |",
        "`mit`, chosen by whoever published this model.",
    ):
        assert line in card.splitlines(), line
    assert f"4 steps on {learnt} images: 16 draws, {16 / learnt:.3g} for each image; " in card
    assert f"{learnt} images were learnt from, {len(lock['held_out'])} more were held out to measure on." in card
    assert f"is `{lock['id']}`." in card
    assert re.search(r"\| on images that were held out \| [\d.]+ \| [\d.]+ \|", card)
    assert re.search(r"Trained with fusain 0\.1\.0, python 3\.\d+\.\d+, torch ", card)


def test_the_card_of_a_text_run_takes_the_licence_of_the_base(published_runs: Path, publish: Any) -> None:
    said = publish("text", "--dry-run", "--repo", "me/faces")
    card = (published_runs / "text" / "publish" / "README.md").read_text()
    assert said.code == 0
    assert header_of(card) == {
        "license": "creativeml-openrail-m",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["diffusers", "text-to-image", "fusain"],
        "widget": [{"text": "a red hat"}, {"text": "green skin"}],
    }
    assert "Trained with Fusain from a model that is not on the hub: family `sd`, method `full`." in card
    assert "`creativeml-openrail-m`, the licence of the base." in card
    assert "| `data.captions.trigger_word` | `sks` |" in card
    assert '| `samples.prompts` | `["a red hat", "green skin"]` |' in card


def test_a_base_of_the_hub_is_named_with_its_commit_and_licence(
    publish: Any, copied: Any, hub: World, home: Path
) -> None:
    run = copied("text")
    settings = json.loads((run / "settings.json").read_text())
    settings["family"]["base"] = "somebody/base"
    (run / "settings.json").write_text(json.dumps(settings))
    facts = json.loads((run / "weights" / "fusain.json").read_text())
    (run / "weights" / "fusain.json").write_text(json.dumps({**facts, "base_revision": COMMIT}))
    assert publish(str(run), "--dry-run").err.startswith(
        "E-PUB-002 Nobody said under which licence the model is to be published. Its base is somebody/base, and no "
        "README that names its licence is on this machine.\nWhere: --licence\nDo: Name one: --licence ID, such as "
    )
    snapshot = home / "hf" / "hub" / "models--somebody--base" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_name: mine\nlicense_link: TERMS.md\n---\n")
    assert publish(str(run), "--dry-run").code == 0
    card = (run / "publish" / "README.md").read_text()
    header = header_of(card)
    assert (header["base_model"], header["license"], header["license_name"]) == ("somebody/base", "other", "mine")
    assert header["license_link"] == "https://huggingface.co/somebody/base/blob/main/TERMS.md"
    assert f"[somebody/base](https://huggingface.co/somebody/base) at commit `{COMMIT}`" in card
    other = publish(str(run), "--dry-run", "--licence", "mit")
    told = "Warning: W-PUB-001 The base is under the licence 'other', and the model is published under 'mit'."
    assert other.err.startswith(told)
    card = (run / "publish" / "README.md").read_text()
    assert "`mit`, chosen by whoever published this model. The base is under `other`." in card
    assert hub.asked == []


def test_the_commit_of_a_base_is_written_beside_the_weights(published_runs: Path) -> None:
    from fusain.models.families.sd import StableDiffusion

    opened = actions.open_run(published_runs / "text")
    assert opened.learner.family.base_revision is None
    assert isinstance(opened.learner.family, StableDiffusion)
    opened.learner.family.base = replace(opened.learner.family.base, revision=COMMIT)
    assert opened.learner.family.base_revision == COMMIT


@pytest.mark.parametrize(
    ("run", "wish"),
    [
        ("plain", {}),
        ("folded", {}),
        ("classes", {"labels": ["food"]}),
        ("folded-classes", {"labels": ["food"]}),
        ("text", {"prompts": ["a red hat"], "negative": "glasses"}),
        ("skipping", {"prompts": ["a red hat"], "negative": "glasses"}),
    ],
)
def test_the_code_on_the_card_draws_what_generate_draws(
    published_runs: Path, publish: Any, hub: World, tmp_path: Path, monkeypatch: Any, run: str, wish: dict[str, Any]
) -> None:
    publish(run, "--repo", "me/model", "--licence", "mit")
    received = tmp_path / "received"
    for name, content in hub.repositories["me/model"].files.items():
        (received / name).parent.mkdir(parents=True, exist_ok=True)
        (received / name).write_bytes(content)
    found = re.search(r"```python\n(.*?)```", (received / "README.md").read_text(), re.DOTALL)
    assert found is not None
    here = repr(str(received))
    code = found[1].replace('snapshot_download("me/model")', here).replace('"me/model"', here)
    assert "me/model" not in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    drawn = actions.generate(published_runs / run, count=1, output=tmp_path / "drawn", **wish)
    image = np.asarray(Image.open(tmp_path / "image.png"))
    assert np.abs(flat(drawn.images)[0].astype(int) - image).max() <= 1


def test_a_dry_run_lists_files_writes_the_card_and_asks_nobody(published_runs: Path, publish: Any, hub: World) -> None:
    said = publish("classes", "--dry-run", "--licence", "mit", token=None)
    card = published_runs / "classes" / "publish" / "README.md"
    assert (said.code, said.err) == (0, "Nothing was sent.\n")
    lines = said.out.splitlines()
    assert lines[-1] == f"card: {card}"
    sizes = {name: int(size.replace(",", "")) for size, name in (line.split() for line in lines[:-2])}
    assert sizes == {name: len(content) for name, content in weights_of(published_runs / "classes").items()} | {
        "README.md": card.stat().st_size,
        "samples.png": (card.parent / "samples.png").stat().st_size,
    }
    assert hub.asked == []
    assert publish("classes", "--dry-run", "--licence", "mit", "--format", "quiet").out == f"{card}\n"


@pytest.mark.parametrize("run", ["classes", "plain", "text"])
def test_nothing_of_this_machine_is_published(
    published_runs: Path, sprites: Path, home: Path, publish: Any, hub: World, run: str
) -> None:
    publish(run, "--repo", "me/model", "--licence", "mit")
    lock = json.loads((published_runs / run / "data.lock.json").read_text())
    private = [str(published_runs), str(sprites), str(home), str(Path.home()), "marie", TOKEN, *lock["names"]]
    for name, content in hub.repositories["me/model"].files.items():
        if not name.startswith("tokenizer/"):
            assert not [word for word in private if word.encode() in content], name
    assert set(hub.repositories["me/model"].files) >= {"README.md", "fusain.json", "samples.png"}


LEAKS = [
    ("/home/marie/models/base", "a path of this machine (/home/marie/models/base)"),
    ("C:\\Users\\marie", "a path of this machine (C:\\\\Users\\\\marie)"),
    ("~/models", "a path of this machine (~/models)"),
    ("key hf_abcdefghijklmnop", "what looks like an access token (hf_…)"),
]


@pytest.mark.parametrize(("leak", "found"), LEAKS)
def test_a_path_or_a_token_in_the_weights_stops_it(
    publish: Any, copied: Any, hub: World, leak: str, found: str
) -> None:
    run = copied("classes")
    config = json.loads((run / "weights" / "unet" / "config.json").read_text())
    (run / "weights" / "unet" / "config.json").write_text(json.dumps({**config, "_name_or_path": leak}))
    assert publish(str(run), "--repo", "me/model", "--licence", "mit") == (
        10,
        "",
        f"E-SEC-011 What would be published holds {found}.\nWhere: unet/config.json\n"
        "Why: Everybody who may see the repository could read it.\n"
        "Do: Remove it from the file or from the settings of the run, and publish again.\n",
    )
    assert hub.asked == []


def test_what_else_lies_beside_the_weights_stays_here(publish: Any, copied: Any, hub: World, tmp_path: Path) -> None:
    run = copied("classes")
    (tmp_path / "secret.json").write_text("{}")
    (run / "weights" / "link.json").symlink_to(tmp_path / "secret.json")
    (run / "weights" / "notes.md").write_text("mine")
    (run / "weights" / ".hidden.json").write_text("{}")
    said = publish(str(run), "--repo", "me/model", "--licence", "mit")
    assert said.err == (
        "Warning: W-PUB-003 3 files of the weights folder are left out, for nothing of diffusers reads them: "
        ".hidden.json, link.json, notes.md.\n"
    )
    assert not {"link.json", "notes.md", ".hidden.json"} & set(hub.repositories["me/model"].files)


def test_captions_on_the_sheet_are_told_and_images_of_the_data_never_sent(publish: Any, copied: Any) -> None:
    run = copied("text")
    settings = json.loads((run / "settings.json").read_text())
    settings["samples"]["prompts"] = []
    (run / "settings.json").write_text(json.dumps(settings))
    assert "W-PUB-004 The sheet of samples shows captions of the data" in publish(str(run), "--dry-run").err
    for drawn in (run / "samples").glob("step-*/0*.png"):  # as an autoencoder leaves it: a sheet of what it was given
        drawn.unlink()
    assert model_card.picture_of(RunFolder(run), step=2) is None
    assert publish(str(run), "--dry-run").code == 0
    assert not (run / "publish" / "samples.png").exists()
    assert "samples.png" not in (run / "publish" / "README.md").read_text()


WORDS = [
    (
        ["classes", "--dry-run"],
        "E-PUB-002 Nobody said under which licence the model is to be published. It was trained from scratch, so the "
        "choice is yours.\nWhere: --licence\nDo: Name one: --licence ID, such as apache-2.0, mit, cc-by-4.0, cc0-1.0, "
        "openrail, creativeml-openrail-m, other. A model made from another one keeps its terms: look at the page of "
        "the base.\n",
    ),
    (
        ["classes", "--dry-run", "--licence", "MIT License"],
        "E-PUB-003 'MIT License' is not the id of a licence.\nWhere: --licence\nDo: Ids are written small, such as "
        "apache-2.0, mit, cc-by-4.0, cc0-1.0, openrail, creativeml-openrail-m, other; all are listed at "
        "https://huggingface.co/docs/hub/repositories-licenses\n",
    ),
    (
        ["classes", "--licence", "mit"],
        "E-PUB-004 Nobody said where to publish.\nWhere: --repo\nDo: Add --repo OWNER/NAME, or --dry-run to look "
        "first. Your name on the hub is told by: hf auth whoami\n",
    ),
    *(
        (
            ["classes", "--repo", repo, "--licence", "mit"],
            f"E-PUB-005 '{repo}' cannot be the name of a repository.\nWhere: --repo\nDo: Write OWNER/NAME, each in "
            "letters, digits, dots, dashes and underscores, without .. or -- in it.\n",
        )
        for repo in ("model", "me/a/b", "me/my model", "https://huggingface.co/me/model")
    ),
]


@pytest.mark.parametrize(("words", "text"), WORDS)
def test_what_is_missing_is_asked_for(publish: Any, hub: World, words: list[str], text: str) -> None:
    assert publish(*words) == (2, "", text)
    assert hub.asked == []


def test_a_run_without_final_weights(publish: Any, copied: Any) -> None:
    run = copied("classes")
    shutil.rmtree(run / "weights")
    assert publish(str(run), "--dry-run", "--licence", "mit") == (
        2,
        "",
        f"E-PUB-001 Run 'classes' has no final weights to publish.\nWhere: {run / 'weights'}\n"
        "Why: They are written when its training ends.\nDo: Let it train to its end: the same command goes on.\n",
    )


def test_a_run_that_is_going_on_is_left_alone(publish: Any, copied: Any, hub: World) -> None:
    run = copied("classes")
    with lock.held(RunFolder(run).lock, note=print):
        said = publish(str(run), "--repo", "me/model", "--licence", "mit")
        assert (said.code, said.err.splitlines()[0]) == (
            8,
            f"E-RUN-004 Run 'classes' is being trained by process {os.getpid()} on this machine.",
        )
        assert publish(str(run), "--dry-run", "--licence", "mit").code == 0
    assert hub.asked == []


def test_an_existing_repository_gets_a_commit_and_loses_nothing(publish: Any, published_runs: Path, hub: World) -> None:
    hub.repositories["me/model"] = Repository(True, {"notes.md": b"mine", "README.md": b"old"}, ["first"])
    said = publish("classes", "--repo", "me/model", "--licence", "mit", "--public", "--message", "Second")
    assert (said.code, said.out) == (0, f"{hub.endpoint}/me/model\n")
    assert said.err == (
        "Warning: W-PUB-002 The repository exists and stays private. "
        f"To open it, change its settings at {hub.endpoint}/me/model/settings\n"
    )
    repository = hub.repositories["me/model"]
    assert repository.private
    assert repository.commits == ["first", "Second"]
    assert repository.files["notes.md"] == b"mine"
    assert repository.files["README.md"] == (published_runs / "classes" / "publish" / "README.md").read_bytes()


def test_a_public_repository_is_only_written_to_when_that_was_said(publish: Any, hub: World) -> None:
    hub.repositories["me/model"] = Repository(False)
    assert publish("classes", "--repo", "me/model", "--licence", "mit") == (
        2,
        "",
        "E-PUB-006 The repository exists and is public, so everybody would see the model.\n"
        f"Where: {hub.endpoint}/me/model\nWhy: Without --public a model is published for its owner alone, and nothing "
        "here changes who sees a repository.\nDo: Add --public, or name another repository.\n",
    )
    assert hub.repositories["me/model"].files == {}
    assert publish("classes", "--repo", "me/model", "--licence", "mit", "--public").code == 0
    assert publish("classes", "--repo", "me/second", "--licence", "mit", "--public").code == 0
    assert not hub.repositories["me/second"].private
