"""How recipe, file and command line become one, and the whole text of every fault of the settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from fusain.errors import SettingsError
from fusain.settings import recipes
from fusain.settings.notice import Notice
from fusain.settings.read import resolve, resolve_source
from fusain.settings.section import Section, advanced, basic, one_of


class Pixel(Section):
    """Learns pixels."""

    kind: Literal["pixel"] = "pixel"
    channels: Annotated[int, Field(ge=8)] = 64
    """Width."""


class Latent(Section):
    """Learns latents."""

    kind: Literal["latent"] = "latent"
    base: str = "mini"
    """Where it starts from."""
    revision: str | None = None


class Plug:
    def __init__(self, settings):
        self.Settings = settings


class Full(Section):
    kind: Literal["full"] = "full"
    dropout: float = 0.0


class DataSettings(Section):
    path: Path = basic()
    """Folder of the images."""
    name: str | None = None
    weights: dict[str, float] | None = None


class TrainSettings(Section):
    """How long and how fast."""

    steps: int | None = basic(None, ge=1, json_schema_extra={"instead_of": "epochs"})
    """Length in steps."""
    epochs: float | None = basic(None, gt=0, json_schema_extra={"instead_of": "steps"})
    learning_rate: float = basic(1e-4, gt=0, le=1, usual=(1e-5, 1e-4))
    optimizer: Literal["adam", "adamw"] = "adamw"
    beta: float = Field(0.9, ge=0, lt=1, json_schema_extra={"only_when": {"optimizer": "adam"}})
    warmup: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    ema: bool = advanced(True)
    device: str = Field("auto", pattern="^(auto|cpu)$", examples=["auto", "cpu"])
    sizes: tuple[int, ...] = (1, 2)
    even: int = 2

    @field_validator("even")
    @classmethod
    def _is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("it must be even")
        return number

    def silent_settings(self):
        return {} if self.ema else {"warmup": "no average is kept"}

    def notices(self):
        if self.steps == 13:
            yield Notice("W-CFG-002", key="train.steps", reason="thirteen")

    def faults(self):
        if self.steps == 666:
            yield SettingsError("E-CFG-021", reason="steps is 666")
            yield SettingsError("E-CFG-021", reason="and so on")


Family: Any = one_of({"pixel": Plug(Pixel), "latent": Plug(Latent)})
Method: Any = one_of({"full": Plug(Full)})


class Run(Section):
    data: DataSettings
    family: Family = Pixel(channels=32)
    method: Method = Field(default_factory=Full)
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _fits(self) -> Run:
        if self.method.dropout == 0.5 and self.train.ema:
            raise ValueError("method.dropout 0.5 and train.ema exclude each other")
        return self


DATA = '[data]\npath = "images"\n'


def read(text: str = DATA, **more):
    return resolve(Run, text=text, **more)


def fault(text: str = DATA, **more) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text, **more)
    return str(caught.value)


def test_defaults_hold_where_nothing_is_said():
    resolved = read()
    assert resolved.settings.data.path == Path("images")
    assert resolved.settings.family == Pixel(channels=32)
    assert str(resolved.origin("train.steps")) == "default"
    assert str(resolved.origin("data.path")) == "settings line 2"


def test_later_sources_win_and_each_value_knows_its_own():
    recipe = {"train": {"steps": 10, "learning_rate": 1e-5, "optimizer": "adam"}}
    text = DATA + "[train]\n\n# how long\nsteps = 20\nlearning_rate = 1e-4\n"
    resolved = read(text, recipe=recipe, overrides=[("train.learning_rate", "2e-5")])
    train = resolved.settings.train
    assert (train.steps, train.learning_rate, train.optimizer) == (20, 2e-5, "adam")
    assert {key: str(origin) for key, origin in resolved.origins.items()} == {
        "data.path": "settings line 2",
        "train.steps": "settings line 6",
        "train.learning_rate": "--train.learning_rate",
        "train.optimizer": "recipe",
    }


def test_the_kind_may_stay_unsaid_and_other_sources_add_to_it():
    recipe = {"family": {"channels": 16}}
    assert read(recipe=recipe).settings.family == Pixel(channels=16)
    assert read(recipe=recipe, overrides=[("family.kind", "pixel")]).settings.family == Pixel(channels=16)
    assert read(recipe={"family": {"kind": "latent", "base": "big"}}).settings.family == Latent(base="big")


def test_another_kind_clears_what_earlier_sources_set_for_the_first():
    resolved = read(recipe={"family": {"channels": 16}}, overrides=[("family.kind", "latent")])
    assert resolved.settings.family == Latent()
    assert resolved.notices == ()


def test_the_users_own_settings_are_not_cleared_in_silence():
    resolved = read(DATA + "[family]\nchannels = 16\n", overrides=[("family.kind", "latent"), ("family.base", "x")])
    assert resolved.settings.family == Latent(base="x")
    assert list(map(str, resolved.notices)) == [
        "W-CFG-003 'family.channels' is set aside, for --family.kind takes its place. (settings line 4)"
    ]


def test_of_two_settings_that_replace_each_other_the_later_source_holds():
    resolved = read(recipe={"train": {"epochs": 3}}, overrides=[("train.steps", "7")])
    assert (resolved.settings.train.steps, resolved.settings.train.epochs) == (7, None)


def test_both_of_two_settings_that_replace_each_other_is_a_fault():
    assert fault(DATA + "[train]\nsteps = 1\nepochs = 2\n") == (
        "E-CFG-020 'train.steps' and 'train.epochs' are both set, but each stands in place of the other.\n"
        "Where: settings line 4, settings line 5\n"
        "Do: Remove one of them."
    )


@pytest.mark.parametrize(
    ("key", "words", "value"),
    [
        ("train.steps", "5", 5),
        ("train.steps", "none", None),
        ("train.learning_rate", "5e-5", 5e-5),
        ("train.learning_rate", ".5", 0.5),
        ("train.learning_rate", "1", 1.0),
        ("train.warmup", "auto", "auto"),
        ("train.warmup", "0", 0),
        ("train.ema", "false", False),
        ("train.ema", "False", False),
        ("train.sizes", "[4, 5]", (4, 5)),
        ("train.even", "-2", -2),
        ("data.name", "007", "007"),
        ("data.name", "1e3", "1e3"),
        ("data.name", "true", "true"),
        ("data.path", "2024-01-02", Path("2024-01-02")),
        ("data.weights", "{a = 1, b = 2.5}", {"a": 1.0, "b": 2.5}),
    ],
)
def test_words_of_the_command_line_become_what_the_setting_takes(key, words, value):
    section, name = key.split(".")
    assert getattr(getattr(read(overrides=[(key, words)]).settings, section), name) == value


def test_a_required_section_may_come_from_the_command_line_alone():
    assert resolve(Run, overrides=[("data.path", "x")]).settings.data.path == Path("x")


def test_missing_setting():
    assert fault("") == (
        "E-CFG-007 'data.path' is missing: it has no default and must be a path.\n"
        "Do: Add it to the settings file, or give it as: --data.path VALUE"
    )


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    text = DATA + "[train]\nsteps = 'many'\nlearing_rate = 1\nlearning_rate = 10\nema = 'yes'\n"
    assert fault(text, overrides=[("train.warmup", "-1")]) == (
        "E-CFG-004 'train.steps' must be a whole number (at least 1) or none, but is the text \"many\".\n"
        "Where: settings line 4\n"
        "Do: Change the value; what it means is told by: fusain explain train.steps\n"
        "\n"
        "E-CFG-003 Unknown setting 'train.learing_rate'.\n"
        "Where: settings line 5\n"
        "Do: Did you mean 'train.learning_rate'?\n"
        "\n"
        "E-CFG-005 'train.learning_rate' is 10, which is out of range: it must be a number (above 0 and at most 1).\n"
        "Where: settings line 6\n"
        "Do: Typical values are 1e-05 to 0.0001.\n"
        "\n"
        "E-CFG-004 'train.ema' must be true or false, but is the text \"yes\".\n"
        "Where: settings line 7\n"
        "Do: Change the value; what it means is told by: fusain explain train.ema\n"
        "\n"
        "E-CFG-017 'train.warmup' is -1, which is out of range: it must be a whole number (at least 0) or 'auto'.\n"
        "Where: --train.warmup\n"
        "Do: Change the value; what it means is told by: fusain explain train.warmup"
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("steps = '500'", 'must be a whole number (at least 1) or none, but is the text "500".'),
        ("steps = true", "must be a whole number (at least 1) or none, but is true."),
        ("steps = 2.5", "must be a whole number (at least 1) or none, but is 2.5."),
        ("sizes = [1, 'b']", 'must be a list of (a whole number), but is the text "b" (item 2).'),
        ("sizes = 3", "must be a list of (a whole number), but is 3."),
        ("device = 'gpu'", 'must be text of the form ^(auto|cpu)$, such as auto, cpu, but is the text "gpu".'),
    ],
)
def test_wrong_types(line, what):
    key = f"train.{line.split()[0]}"
    if "(auto" in what:
        what = what.replace("text of the form ^(auto|cpu)$", "text (of the form ^(auto|cpu)$)")
    assert fault(f"{DATA}[train]\n{line}\n") == (
        f"E-CFG-004 '{key}' {what}\n"
        "Where: settings line 4\n"
        f"Do: Change the value; what it means is told by: fusain explain {key}"
    )


@pytest.mark.parametrize("rate", ["0.0", "-1.0", "0", "nan", "inf"])
def test_numbers_out_of_range(rate):
    text = fault(f"{DATA}[train]\nlearning_rate = {rate}\n")
    assert text.startswith("E-CFG-005 'train.learning_rate' is ")
    assert text.endswith("Do: Typical values are 1e-05 to 0.0001.")


class Sized(Section):
    side: Annotated[int, Field(ge=32, le=4096, multiple_of=8)] | Literal["auto"] = "auto"
    inner: int = Field(16, gt=8, lt=40, multiple_of=4)
    odd: float = Field(1.0, ge=0, multiple_of=0.5)


@pytest.mark.parametrize(
    ("line", "what", "use"),
    [
        ("side = 513", "a whole number (from 32 to 4,096, a multiple of 8) or 'auto'", "512 or 520"),
        ("side = 0", "a whole number (from 32 to 4,096, a multiple of 8) or 'auto'", "32"),
        ("side = -3", "a whole number (from 32 to 4,096, a multiple of 8) or 'auto'", "32"),
        ("side = 4095", "a whole number (from 32 to 4,096, a multiple of 8) or 'auto'", "4088 or 4096"),
        ("side = 65536", "a whole number (from 32 to 4,096, a multiple of 8) or 'auto'", "4096"),
        ("inner = 8", "a whole number (above 8 and below 40, a multiple of 4)", "12"),
        ("inner = 39", "a whole number (above 8 and below 40, a multiple of 4)", "36"),
        ("odd = 1.75", "a number (at least 0, a multiple of 0.5)", "1.5 or 2"),
    ],
)
def test_of_multiples_the_nearest_are_told(line, what, use):
    key, value = line.split(" = ")
    with pytest.raises(SettingsError) as caught:
        resolve(Sized, text=line)
    assert str(caught.value) == (
        f"E-CFG-022 '{key}' is {value}, which is out of range: it must be {what}.\n"
        "Where: settings line 1\n"
        f"Do: Use {use}."
    )


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("0.01", "0.01, 100× above the usual 1e-05 to 0.0001"),
        ("1e-12", "1e-12, 1e+07× below the usual 1e-05 to 0.0001"),
    ],
)
def test_unusual_numbers_are_said(rate, words):
    notices = read(overrides=[("train.learning_rate", rate)]).notices
    assert list(map(str, notices)) == [f"W-CFG-001 'train.learning_rate' is {words}. (--train.learning_rate)"]
    assert read(recipe={"train": {"learning_rate": float(rate)}}).notices == ()


def test_choices_and_kinds():
    assert fault(DATA + "[train]\noptimizer = 'adamww'\n") == (
        "E-CFG-008 'train.optimizer' must be 'adam' or 'adamw', but is the text \"adamww\".\n"
        "Where: settings line 4\n"
        "Do: Did you mean 'adamw'?"
    )
    assert fault(DATA + "[family]\nkind = 'latnt'\n") == (
        "E-CFG-008 'family.kind' must be 'pixel' or 'latent', but is the text \"latnt\".\n"
        "Where: settings line 4\n"
        "Do: Did you mean 'latent'?"
    )
    assert fault(DATA + "[method]\nkind = 'zzz'\n") == (
        "E-CFG-004 'method.kind' must be 'full', but is the text \"zzz\".\n"
        "Where: settings line 4\n"
        "Do: Change the value; what it means is told by: fusain explain method.kind"
    )


def test_a_setting_of_another_kind_is_named_as_such():
    assert fault(DATA + "[family]\nbase = 'x'\n") == (
        "E-CFG-009 'family.base' has no place in this run: it belongs to family.kind = 'latent'.\n"
        "Where: settings line 4\n"
        "Do: Remove it, or choose that kind."
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.stps", "Unknown setting 'train.stps'.\nWhere: --train.stps\nDo: Did you mean 'train.steps'?"),
        ("steps", "Unknown setting 'steps'.\nWhere: --steps\nDo: Did you mean 'train.steps'?"),
        ("trian.steps", "Unknown setting 'trian'.\nWhere: --trian.steps\nDo: Did you mean 'train'?"),
    ],
)
def test_unknown_settings(key, text):
    assert fault(overrides=[(key, "1")]) == f"E-CFG-003 {text}"


def test_unknown_setting_without_a_neighbour():
    assert fault(overrides=[("data.qqqq", "1")]) == (
        "E-CFG-013 Unknown setting 'data.qqqq'; nothing in data has a name like it.\n"
        "Where: --data.qqqq\n"
        "Do: Use one of: path, name, weights."
    )


def test_a_value_where_a_section_belongs():
    assert fault("train = 5\n" + DATA) == (
        "E-CFG-004 'train' must be a table, but is 5.\n"
        "Where: settings line 1\n"
        "Do: Change the value; what it means is told by: fusain explain train"
    )


def test_validators_of_fields_and_of_the_whole():
    assert fault(DATA + "[train]\neven = 3\n") == (
        "E-CFG-006 'train.even' cannot be used: it must be even.\n"
        "Where: settings line 4\n"
        "Do: Change it; what it means is told by: fusain explain train.even"
    )
    assert fault(DATA + "[method]\ndropout = 0.5\n") == (
        "E-CFG-021 The settings do not fit together: method.dropout 0.5 and train.ema exclude each other.\n"
        "Do: Change one of the two; `fusain explain KEY` says what a setting means."
    )


def test_sections_tell_faults_and_notices_of_their_own():
    assert fault(DATA + "[train]\nsteps = 666\n").count("E-CFG-021") == 2
    notices = read(DATA + "[train]\nsteps = 13\n").notices
    assert list(map(str, notices)) == ["W-CFG-002 'train.steps' has no effect in this run: thirteen."]
    assert notices[0].as_json()["code"] == "W-CFG-002"


def test_settings_without_effect_are_said():
    notices = read(DATA + "[train]\nema = false\nwarmup = 3\nbeta = 0.5\n").notices
    assert list(map(str, notices)) == [
        "W-CFG-002 'train.beta' has no effect in this run: "
        'it needs train.optimizer = "adam", which is "adamw". (settings line 6)',
        "W-CFG-002 'train.warmup' has no effect in this run: no average is kept. (settings line 5)",
    ]
    assert read(DATA + "[train]\nema = false\nwarmup = 'auto'\n").notices == ()


@pytest.mark.parametrize("name", ["schema_version = 0", "schema_version = 99", "schema_version = 'x'"])
def test_other_schema_versions(name):
    text = fault(name)
    old = "= 0" in name
    found = name.split(" = ")[1].strip("'")
    assert text == (
        f"E-CFG-018 The settings were written for schema_version {found}; this Fusain reads schema_version 1.\n"
        "Where: settings line 1\n"
        "Why: Some settings meant something else then.\n"
        "Do: Make a new file (fusain new RECIPE -o run.toml), copy your values, and let its schema_version stand."
        if old
        else f"E-CFG-019 The settings say schema_version {found}; this Fusain reads schema_version 1.\n"
        "Where: settings line 1\n"
        "Why: They were written for a newer Fusain, or the number is mistyped.\n"
        "Do: Update Fusain, or write: schema_version = 1"
    )


@pytest.mark.parametrize(
    ("line", "key", "masked"),
    [
        ('[data]\npath = "x"\nname = "hf_abcdefghijklmnop"', "data.name", "hf_…"),
        ('[data]\npath = "x"\nhf_token = "hf_abcdefghijklmnop"', "data.hf_token", "hf_…"),
        ('[data]\npath = "x"\nname = "ghp_0123456789abcdef"', "data.name", "ghp…"),
        ('[data]\npath = "x"\nname = "AKIAIOSFODNN7EXAMPLE"', "data.name", "AKI…"),
        ('[data]\npath = "x"\nname = "' + "0a" * 20 + '"', "data.name", "0a0…"),
        ('[data]\npath = "x"\napi_key = "hunter2hunter2"', "data.api_key", "hun…"),
    ],
)
def test_secrets_are_refused_and_masked(line, key, masked):
    assert fault(line) == (
        f"E-SEC-010 '{key}' holds what looks like a password or an access token ({masked}).\n"
        "Where: settings line 3\n"
        "Why: Settings are copied into the run folder and its report, where others would read it.\n"
        "Do: Remove it, and replace it at its provider if others saw the file. Log in with `hf auth login` or an "
        "environment variable."
    )


def test_a_commit_is_no_secret():
    assert read(DATA + f'[family]\nkind = "latent"\nrevision = "{"0a" * 20}"\n').settings.family.revision == "0a" * 20


def test_invalid_toml_shows_line_and_place(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[data]\npath = images\n")
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=path)
    assert str(caught.value) == (
        f"E-CFG-002 '{path}' is not valid TOML: Invalid value.\n"
        "    path = images\n"
        "           ^\n"
        f"Where: {path} line 2, column 8\n"
        "Do: Mend the line; text needs quotes, and true and false are written small."
    )
    assert "hf_abcdefghijklmnop" not in fault('[data]\nname = "hf_abcdefghijklmnop\n')


def test_missing_files(tmp_path):
    path = tmp_path / "rnu.toml"
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=path)
    assert str(caught.value) == (
        f"E-CFG-011 No settings file at '{path}'.\nDo: Check the name, or make the file: fusain new RECIPE -o run.toml"
    )
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=path)
    assert str(caught.value) == (
        f"E-CFG-001 No settings file at '{path}'.\n"
        f"Do: Did you mean {tmp_path / 'run.toml'}? Or make it: fusain new RECIPE -o {path}"
    )
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=tmp_path)
    assert str(caught.value) == (
        f"E-CFG-015 '{tmp_path}' is a folder, not a settings file.\n"
        f"Do: Give the file inside it, or make one for these images: fusain new RECIPE --data {tmp_path} -o run.toml"
    )


def test_what_is_of_a_run_is_no_settings_file(tmp_path):
    """B38: weights and a run's folder are named as what they are, and what goes on from them is said."""
    weights, run = tmp_path / "lora.safetensors", tmp_path / "dog"
    weights.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    run.mkdir()
    (run / "settings.json").write_text("{}")
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=weights)
    assert str(caught.value) == (
        f"E-CFG-042 '{weights}' holds weights, not settings.\n"
        "Do: A run goes on by the command that began it. To begin a new one from these weights, give a recipe and "
        "--method.start FILE for a LoRA, or --family.base FILE for a base."
    )
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=run)
    assert str(caught.value) == (
        f"E-CFG-043 '{run}' is the folder of a run, not a settings file.\n"
        "Do: Go on by the command that began it: its settings file, and --name dog if that is not the file's name."
    )


DIFFUSERS = "a command of one of diffusers' scripts (shell)"
FOREIGN = {
    "job.yaml": ("job: extension\nconfig:\n  process:\n    - type: x\n", "an ai-toolkit job (YAML)"),
    "other.yml": ("a: 1\n", "a YAML file"),
    "kohya.toml": ('network_dim = 8\noutput_name = "x"\n', "a kohya sd-scripts configuration (TOML)"),
    "kohya2.toml": (
        "[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 1\n",
        "a kohya sd-scripts data set configuration (TOML)",
    ),
    "one.json": ('{"__version": 1, "training_method": "LORA"}', "a OneTrainer preset (JSON)"),
    "#sd 1.5 LoRA.json": ('{"base_model_name": "x", "training_method": "LORA"}', "a OneTrainer preset (JSON)"),
    "job.json": ('{"job": "extension", "config": {"process": [{"type": "x"}]}}', "an ai-toolkit job (JSON)"),
    "form.json": ('{"LoRA_type": "Standard", "max_resolution": "512,512"}', "a form of kohya_ss (JSON)"),
    "train.sh": ("accelerate launch train_unconditional.py --resolution 64\n", DIFFUSERS),
    "command.txt": ("export M=x\naccelerate launch train_text_to_image.py \\\n  --resolution 64\n", DIFFUSERS),
    "set-up.sh": ("echo ready\n", "a shell script"),
    "plain.json": ("{}", "a JSON file"),
    "tuner.json": ('{"--model_family": "sdxl"}', "a SimpleTuner configuration (JSON)"),
    "pipe.toml": ("micro_batch_size_per_gpu = 1\npipeline_stages = 1\n", "a diffusion-pipe configuration (TOML)"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_trainers_are_named(name, tmp_path):
    content, tool = FOREIGN[name]
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=path)
    if any(name in tool for name in ("kohya", "OneTrainer", "ai-toolkit", "diffusers")):
        assert str(caught.value) == (
            f"E-CFG-010 '{path}' is {tool}, not a settings file of Fusain.\n"
            f"Where: {path}\n"
            f"Do: Make one of it: fusain import {shlex.quote(str(path))} -o run.toml"
        )
        return
    assert str(caught.value) == (
        f"E-CFG-041 '{path}' is {tool}, not a settings file of Fusain.\n"
        f"Where: {path}\n"
        "Do: Start from a recipe (fusain new RECIPE --data DIR -o run.toml) and copy your values; "
        "`fusain explain KEY` says what each setting means."
    )


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"[data]\n# \xff\n")
    with pytest.raises(SettingsError) as caught:
        resolve(Run, path=path)
    assert str(caught.value) == (
        f"E-CFG-014 The settings file is not UTF-8 text (byte 9).\nWhere: {path}\nDo: Save it as UTF-8 in your editor."
    )
    path.write_bytes(b"\xef\xbb\xbf" + DATA.encode())
    assert resolve(Run, path=path).settings.data.path == Path("images")


@pytest.fixture
def recipe_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "quick.toml").write_text("# A quick one.\n# More of it.\n[train]\nsteps = 3\n")
    return tmp_path


def test_recipes_by_name(recipe_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load("quick")
    assert (recipe.title, recipe.description) == ("A quick one.", "A quick one.\nMore of it.")
    resolved = read('recipe = "quick"\n' + DATA)
    assert (resolved.recipe, str(resolved.origin("train.steps"))) == ("quick", "recipe quick")
    resolved = resolve_source(Run, "quick", [("data.path", "x")])
    assert resolved.settings.train.steps == 3


def test_unknown_recipes(recipe_folder):
    assert fault('recipe = "quik"\n') == (
        "E-CFG-012 No recipe is called 'quik'.\nWhere: settings line 1\nDo: Did you mean 'quick'?"
    )
    assert fault('recipe = "zzz"\n') == (
        "E-CFG-016 No recipe is called 'zzz'.\nWhere: settings line 1\nDo: Use one of: quick."
    )


def test_a_choice_called_kind_is_no_plug():
    class Loss(Section):
        kind: Literal["l1", "l2"] = "l2"
        gamma: float = 0.0
        folder: Path = Path("x")

    class Other(Section):
        loss: Loss = Loss()

    resolved = resolve(Other, recipe={"loss": {"gamma": 5.0}}, overrides=[("loss.kind", "l1")])
    assert resolved.settings.loss == Loss(kind="l1", gamma=5.0)
    with pytest.raises(SettingsError) as caught:
        resolve(Other, overrides=[("loss.kind", "l3")])
    assert str(caught.value) == (
        "E-CFG-008 'loss.kind' must be 'l1' or 'l2', but is the text \"l3\".\n"
        "Where: --loss.kind\n"
        "Do: Did you mean 'l2'?"
    )


def test_under_a_wrong_kind_no_other_setting_is_judged():
    text = fault(DATA + "[method]\nkind = 'lora'\nrank = 4\n")
    assert text.count("E-CFG-") == 1
    assert text.startswith("E-CFG-004 'method.kind' must be 'full', but is the text \"lora\".")
    text = fault(DATA + "[family]\nkind = 'x'\nrank = 4\n[zzzzz]\na = 1\n")
    assert text.count("E-CFG-") == 2


def test_a_folder_named_as_a_recipe_hides_no_recipe(tmp_path, monkeypatch):
    """`fusain demo` makes a folder `demo`; the recipe of that name must still be found beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    from fusain.runs.settings import RunSettings

    assert resolve_source(RunSettings, "demo", {"data.path": "x"}).recipe == "demo"
