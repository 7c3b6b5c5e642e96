"""What is described of a schema, and what is made from it: JSON, template, reference pages."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter
from pydantic_core import PydanticUndefined

from fusain.settings import described, recipes, schema, template
from fusain.settings.describe import as_json, describe, errors_page, settings_page
from fusain.settings.section import Section, basic, one_of

REPOSITORY = Path(__file__).parents[2]


class Pixel(Section):
    """Learns pixels."""

    kind: Literal["pixel"] = "pixel"
    size: int = basic(16, ge=8, le=64)
    """Side in pixels."""


class Latent(Section):
    """Learns latents."""

    kind: Literal["latent"] = "latent"
    size: int = basic(16, ge=8, le=64)
    """Side in pixels."""
    base: str = basic("mini")
    """Where it starts from."""


class Plug:
    def __init__(self, settings):
        self.Settings = settings


class DataSettings(Section):
    path: Path = basic()
    """Folder of the images."""


class TrainSettings(Section):
    """How long
    and how fast."""

    steps: int | None = basic(1000, ge=1, json_schema_extra={"instead_of": "epochs"})
    """Length in steps."""
    epochs: float | None = basic(None, gt=0, json_schema_extra={"instead_of": "steps"})
    """Length in passes."""
    rate: float = basic(1e-4, gt=0, le=1, usual=(1e-5, 1e-3))
    """How fast."""
    warmup: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"


Family: Any = one_of({"pixel": Plug(Pixel), "latent": Plug(Latent)})


class Run(Section):
    data: DataSettings
    family: Family = Pixel()
    train: TrainSettings = TrainSettings()


@pytest.fixture
def description(tmp_path, monkeypatch):
    path = tmp_path / "described.json"
    path.write_text(as_json(describe(Run)))
    monkeypatch.setattr(described, "FILE", path)
    described.load.cache_clear()
    yield described.load()
    described.load.cache_clear()


def test_described_settings_survive_the_file(description):
    assert description == describe(Run)


def test_what_is_described(description):
    found = {entry.key: entry for entry in description.settings}
    assert list(found) == [
        "data.path",
        "family.kind",
        "family.size",
        "family.base",
        "train.steps",
        "train.epochs",
        "train.rate",
        "train.warmup",
    ]
    assert found["family.kind"].choices == ["pixel", "latent"]
    assert found["family.size"].when == {"family.kind": ["pixel", "latent"]}
    assert found["family.base"].when == {"family.kind": ["latent"]}
    assert found["train.rate"].type == "a number (above 0 and at most 1)"
    assert found["train.rate"].limits == {"above": 0, "at_most": 1}
    assert found["train.rate"].usual == [1e-5, 1e-3]
    assert found["train.warmup"].type == "a whole number (at least 0) or 'auto'"
    assert found["data.path"].required
    assert not found["train.warmup"].basic
    assert description.sections["train"] == "How long and how fast."
    assert description.kinds == {"family.kind": "pixel"}


def recipe(text: str) -> recipes.Recipe:
    return recipes.Recipe("quick", "A quick one.", text, tomllib.loads(text))


def test_template_is_a_recipe_with_its_basic_settings(description):
    text = template.toml_text(recipe("[train]\nepochs = 3.0\nwarmup = 5\n"), data=Path("my images"))
    assert text == (
        "# A quick one.\n"
        "# What stands here can be changed; what was left out has the recipe's value or its default.\n"
        "# All settings: fusain train --help-all   One of them: fusain explain train.steps\n"
        "\n"
        'recipe = "quick"\n'
        "\n"
        "[data]\n"
        "# Folder of the images. [a path]\n"
        'path = "my images"\n'
        "\n"
        "[family]\n"
        "# Side in pixels. [a whole number (from 8 to 64)]\n"
        "size = 16\n"
        "\n"
        "[train]\n"
        "# Length in steps. [a whole number (at least 1) or none]\n"
        "# steps =\n"
        "# Length in passes. [a number (above 0) or none]\n"
        "epochs = 3.0\n"
        "# How fast. [a number (above 0 and at most 1)] Usually 1e-05 to 0.001.\n"
        "rate = 0.0001\n"
        "# [a whole number (at least 0) or 'auto']\n"
        "warmup = 5\n"
    )


def test_template_follows_the_kind_of_the_recipe(description):
    values = tomllib.loads(template.toml_text(recipe('family.kind = "latent"'), data=None))
    assert values["family"] == {"size": 16, "base": "mini"}
    assert values["data"]["path"] == "path/to/your/images"


def test_template_overwrites_no_folder(description, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "quick.toml").write_text("# A quick one.\n")
    path = template.write_toml("quick", data=None, output=tmp_path / "new" / "run.toml")
    assert tomllib.loads(path.read_text())["recipe"] == "quick"


def test_settings_page(description):
    page = settings_page(description)
    assert "## train\n\nHow long and how fast.\n\n| setting | what it does | value | default |\n" in page
    assert (
        "| **`train.rate`** | How fast. | a number (above 0 and at most 1); usually 1e-05 to 0.001 | `0.0001` |" in page
    )
    assert "| **`family.base`** | Where it starts from. (with `family.kind = latent`) | text | `mini` |" in page


def test_errors_page_has_every_code():
    page = errors_page({0: "done"})
    assert "| 0 | done |" in page
    assert "### E-CFG-003\n\nUnknown setting '{key}'.\n\n**What to do.** Did you mean '{nearest}'?\n" in page


whole = pytest.mark.skipif(
    not (REPOSITORY / "docs" / "reference" / "settings.md").is_file(), reason="the settings of a run are not whole yet"
)


def sections(section):
    yield section
    for field in section.model_fields.values():
        for variant in schema.variants(field.annotation).values():
            yield from sections(variant)


@whole
def test_every_default_is_valid():
    from fusain.runs.settings import RunSettings

    for section in sections(RunSettings):
        for name, field in section.model_fields.items():
            default = schema.default_of(field)
            if default is not PydanticUndefined:
                kept = TypeAdapter(Annotated[field.annotation, *field.metadata, ""]).validate_python(default)
                assert kept == default, f"{section.__name__}.{name}"


@whole
def test_every_setting_has_its_help():
    from fusain.runs.settings import RunSettings

    assert [entry.key for entry in describe(RunSettings).settings if not entry.help] == []


@whole
def test_made_files_are_current():
    from fusain.cli.document import documents

    stale = [str(path) for path, text in documents(REPOSITORY).items() if path.read_text() != text]
    assert stale == [], "run: make docs"
    assert json.loads(described.FILE.read_text())["settings"]
