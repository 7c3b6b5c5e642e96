"""The user's own settings: where they lie, what they hold below, and that every fault in them is told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from fusain.cli import main as command
from fusain.errors import FusainError, SettingsError, StorageError
from fusain.models.bases.opening import local_path
from fusain.runs import copies
from fusain.runs.doctor import examination
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.settings import recipes, template, user_file
from fusain.settings.read import resolve_source


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the file of a user who works in an empty folder."""
    (tmp_path / "work").mkdir()
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("FUSAIN_CONFIG", str(tmp_path / "config"))

    def put(text: str) -> Path:
        path = tmp_path / "config" / "settings.toml"
        path.write_text(text)
        return path

    return put


@pytest.fixture
def fusain(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            command.main(words)
        heard = capsys.readouterr()
        return caught.value.code or 0, heard.out, heard.err

    return run


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, "{home}/.config/fusain"),
        ("linux", {"XDG_CONFIG_HOME": "/etc/mine"}, "/etc/mine/fusain"),
        ("darwin", {"XDG_CONFIG_HOME": "/etc/mine"}, "{home}/Library/Application Support/fusain"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/fusain"),
        ("win32", {}, "{home}/AppData/Roaming/fusain"),
        ("win32", {"FUSAIN_CONFIG": "~/own"}, "{home}/own"),
    ],
)
def test_where_they_lie(platform, environment, folder):
    assert user_file.folder(platform, environment) == Path(folder.format(home=Path.home()))


def test_without_a_file_nothing_changes(write):
    assert user_file.load() is None
    assert user_file.runs_folder() == Path("runs")
    assert resolve_source(RunSettings, "lora", [("data.path", "x")]).origins.get("runs_folder") is None


def test_they_lie_between_defaults_and_recipe(write, tmp_path):
    path = write('runs_folder = "~/trainings"\nweights_folder = "/models"\n\n[bases]\nsd = "mine"\n')
    run = tmp_path / "run.toml"
    run.write_text('recipe = "lora"\nweights_folder = "none"\n[data]\npath = "x"\n')
    resolved = resolve_source(RunSettings, run, [("runs_folder", "here")])
    assert (resolved.settings.family.base, str(resolved.origin("family.base"))) == ("mine", f"{path} line 5")
    assert (resolved.settings.weights_folder, str(resolved.origin("weights_folder"))) == (None, f"{run} line 2")
    assert str(resolved.settings.runs_folder) == "here"
    assert resolved.notices == ()
    of_recipe = resolve_source(RunSettings, "caricature", [("data.path", "x")])
    assert of_recipe.settings.family.base == "CompVis/stable-diffusion-v1-4", "the recipe names another base"
    assert of_recipe.settings.runs_folder == Path.home() / "trainings"


def test_a_base_of_another_family_is_left_alone(write):
    write('[bases]\nsd = "mine"\n')
    resolved = resolve_source(RunSettings, "unconditional", [("data.path", "x")])
    assert (resolved.settings.family.kind, resolved.notices) == ("pixel", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'model_folder = "x"',
            "E-CFG-003 Unknown setting 'model_folder'.\nWhere: {path} line 1\nDo: Did you mean 'models_folder'?",
        ),
        (
            'language = "fr"',
            "E-CFG-004 'language' must be 'en', but is the text \"fr\".\nWhere: {path} line 1\n"
            "Do: Change the value; what it means is told by: fusain explain language",
        ),
        (
            '[bases]\npixel = "x"',
            "E-CFG-040 Your settings name a base for 'pixel', but no family of that name starts from a base.\n"
            "Where: bases.pixel\nDo: Use one of: sd, sd3, sdxl.",
        ),
        (
            "runs_folder = oops",
            "E-CFG-002 '{path}' is not valid TOML: Invalid value.\n    runs_folder = oops\n                  ^\n"
            "Where: {path} line 1, column 15\n"
            "Do: Mend the line; text needs quotes, and true and false are written small.",
        ),
    ],
)
def test_what_is_wrong_in_them(write, fusain, text, words):
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        user_file.load()
    assert str(caught.value) == words.format(path=path)
    assert fusain("runs", "ls")[0] == 3


def test_doctor_tells_of_them(write, fusain):
    def finding():
        return next(one for one in examination._settings())

    path = user_file.path()
    assert finding().text == f"none; they would stand in {path}"
    write("runs_folder = 'x'")
    assert (finding().text, finding().level) == (str(path), "ok")
    write("run_folder = 'x'")
    assert str(finding().notice) == (
        f"E-DOC-008 Your own settings cannot be used: Unknown setting 'run_folder'. ({path} line 1) "
        "Mend that file; what may stand in it is told by: fusain explain runs_folder"
    )
    assert finding().exit_code == 3


def test_runs_are_looked_for_there(write, fusain, tmp_path):
    write(f'runs_folder = "{tmp_path}/mine"')
    assert fusain("runs", "ls")[2] == f"No runs in {tmp_path}/mine.\n"
    assert fusain("runs", "ls", "--runs-folder", "here")[2] == "No runs in here.\n"
    with pytest.raises(FusainError, match=r"E-RUN-002") as caught:
        RunFolder.existing("gone")
    assert caught.value.where == f"{tmp_path}/mine"


def test_explain_says_which_source_holds(write, fusain, tmp_path):
    path = write('runs_folder = "/big"\n[bases]\nsd = "mine"\n')
    Path("run.toml").write_text('recipe = "lora"\n[train]\nsteps = 7\n[family]\nbase = "other"\n')
    out = fusain("explain", "family.base", "--in", "run.toml")[1]
    assert out.splitlines()[-2:] == ["  Here: other  (run.toml line 5)", f"  Instead of: mine  ({path} line 3)"]
    steps = fusain("explain", "train.steps", "--in", "run.toml")[1].splitlines()
    assert steps[-2] == "  Here: 7  (run.toml line 3)"
    assert steps[-1].endswith("(recipe lora)")
    assert fusain("explain", "train.seed", "--in", "lora")[1].splitlines()[-1] == "  Here: the default"
    out = fusain("explain", "models_folder")[1]
    assert out.splitlines()[-1] == f"  In your own settings, {path}: models_folder = …"
    told = json.loads(fusain("explain", "runs_folder", "--format", "json")[1])
    assert [entry["sources"] for entry in told["settings"]] == [[{"from": f"{path} line 1", "value": "/big"}]] * 2


def test_new_writes_the_users_base(write):
    write('[bases]\nsd = "mine"\n')
    assert tomllib.loads(template.toml_text(recipes.load("lora"), data=None))["family"]["base"] == "mine"
    of_recipe = tomllib.loads(template.toml_text(recipes.load("dreambooth"), data=None))
    assert of_recipe["family"]["base"] == "CompVis/stable-diffusion-v1-4"


def test_bases_of_bare_names(write, tmp_path):
    models = tmp_path / "models"
    (models / "folder").mkdir(parents=True)
    (models / "file.safetensors").write_bytes(b"")
    write(f'models_folder = "{models}"')
    assert local_path("folder") == models / "folder"
    assert local_path("file") == local_path("file.safetensors") == models / "file.safetensors"
    assert local_path("owner/name") is None
    Path("folder").mkdir()
    assert local_path("folder") == Path("folder"), "what lies here comes first"
    with pytest.raises(StorageError) as caught:
        local_path("gone")
    assert str(caught.value) == (
        f"E-MODEL-059 There is no such file or folder, here or in your folder of models ({models}).\nWhere: gone\n"
        "Do: Check the name. A model of the hub is named OWNER/NAME, one that the package carries fusain:NAME."
    )


@pytest.fixture
def finished(tmp_path):
    run = RunFolder(tmp_path / "runs" / "first")
    (run.weights / "unet").mkdir(parents=True)
    (run.weights / "unet" / "model.safetensors").write_bytes(b"one")
    return run


def test_weights_are_copied_and_nothing_is_written_over(finished, tmp_path):
    said: list[str] = []

    def log(kind: str, **facts: object) -> None:
        said.append(str(facts["text"]))

    into = tmp_path / "copies"
    copies.copy(finished, into, log)
    assert (into / "first" / "unet" / "model.safetensors").read_bytes() == b"one"
    copies.copy(finished, into, log)
    (finished.weights / "unet" / "model.safetensors").write_bytes(b"two")
    copies.copy(finished, into, log)
    assert said == [
        f"The weights were copied to {into / 'first'}.",
        f"The weights lie already in {into / 'first'}.",
        f"The weights were copied to {into / 'first-2'}.",
    ]
    assert (into / "first" / "unet" / "model.safetensors").read_bytes() == b"one"
    assert sorted(path.name for path in into.iterdir()) == ["first", "first-2"]
    (tmp_path / "file").write_text("")
    copies.copy(finished, tmp_path / "file" / "within", log)
    assert said[-1] == (
        f"W-STORE-003 The weights could not be copied: Not a directory. ({tmp_path}/file/within) "
        f"The run is whole; they lie in {finished.weights}. Make room, and give the same command again."
    )
