"""The command line: help without torch, formats, exit codes, and the verbs that need no training."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fusain.cli import main as command
from fusain.cli import overrides
from fusain.cli.faults import EXIT_CODES, STOPPED
from fusain.errors import DataError, FusainError, UsageError
from fusain.settings import described, recipes

SETTINGS = {
    "settings": [
        {"key": "data.path", "help": "Folder of the images.", "type": "a path", "basic": True, "required": True},
        {"key": "train.steps", "help": "Length.", "type": "a whole number", "basic": True, "required": False},
        {"key": "train.beta", "help": "Hidden.", "type": "a number", "basic": False, "required": False, "default": 0.9},
    ],
    "sections": {"train": "How long."},
    "kinds": {},
}


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """A described schema and one recipe that no change of the real ones can touch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(described, "FILE", tmp_path / "described.json")
    monkeypatch.setattr(recipes, "FOLDER", tmp_path / "recipes")
    described.FILE.write_text(json.dumps(SETTINGS))
    recipes.FOLDER.mkdir()
    (recipes.FOLDER / "quick.toml").write_text("# A quick one.\n# More.\n[train]\nsteps = 3\n")
    described.load.cache_clear()
    yield
    described.load.cache_clear()


@pytest.fixture
def fusain(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            command.main(words)
        heard = capsys.readouterr()
        return caught.value.code, heard.out, heard.err

    return run


QUICK = [
    ["--help"],
    ["new", "--help"],
    ["plan", "-h"],
    ["train", "--help"],
    ["train", "--help-all"],
    ["generate", "--help"],
    ["publish", "--help"],
    ["runs", "--help"],
    ["runs", "ls", "--help"],
    ["recipes", "ls"],
    ["recipes", "show", "unconditional"],
    ["explain", "E-CFG-003"],
    ["world", "sprites", "--help"],
    ["demo", "--help"],
    ["new", "unconditional", "-o", "new.toml"],
    ["runs", "ls"],
]


def alone(code: str) -> str:
    """What a fresh Python prints that runs `code`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_is_only_said_imports_no_torch():
    """In one process, for what one of them imports is there for all."""
    code = (
        "import sys\n"
        "from fusain.cli.main import main\n"
        f"for words in {QUICK!r}:\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert not end.code, (words, end.code)\n"
        "    heavy = {'torch', 'pydantic', 'numpy', 'diffusers', 'accelerate'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    assert "Usage: fusain" in alone(code)


def test_the_first_help_imports_only_click():
    code = (
        "import sys\n"
        "from fusain.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('fusain')), 'rich' in sys.modules)\n"
    )
    assert alone(code).splitlines()[-1] == ("['fusain', 'fusain.cli', 'fusain.cli.main', 'fusain.cli.output'] False")


def test_the_table_of_verbs_says_what_each_verb_says():
    group = command.fusain
    for name, line in command.VERBS.items():
        verb = group.get_command(click.Context(group), name)
        assert verb.help.splitlines()[0] == line
        assert "Examples:\n      fusain " in verb.help, name


def test_help_shows_basic_settings_and_help_all_shows_all(fusain):
    code, out, _ = fusain("train", "--help")
    assert code == 0
    assert "--train.steps" in out
    assert "Length. [a whole number; default none]" in " ".join(out.split())
    assert "--train.beta" not in out
    assert "--train.beta" in fusain("plan", "--help-all")[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trian"], "E-USE-002 No command is called 'trian'.\nDo: Did you mean: fusain train?\n"),
        (["zzz"], "E-USE-003 No command is called 'zzz'.\nDo: See: fusain --help\n"),
        (
            ["train", "x.toml", "--steps", "3"],
            "E-USE-004 There is no option '--steps'.\nDo: Did you mean: --train.steps?\n",
        ),
        (
            ["train", "x.toml", "--train.steps"],
            "E-USE-005 '--train.steps' needs a value.\nDo: Write: --train.steps VALUE\n",
        ),
        (
            ["plan", "--train.steps", "--x.y=1"],
            "E-USE-005 '--train.steps' needs a value.\nDo: Write: --train.steps VALUE\n",
        ),
        (["train"], "E-USE-001 Missing argument 'FILE|RECIPE'.\nDo: See: fusain train --help\n"),
        (
            ["explain", "train.stps"],
            "E-USE-008 Nothing is called 'train.stps': it is neither a setting nor a code.\n"
            "Do: Did you mean: fusain explain train.steps?\n",
        ),
        (
            ["explain", "zzzzzzz"],
            "E-USE-009 Nothing is called 'zzzzzzz': it is neither a setting nor a code.\n"
            "Do: All settings are listed by: fusain explain\n",
        ),
    ],
)
def test_a_wrong_command_line(fusain, words, text):
    assert fusain(*words) == (2, "", text)


def test_settings_faults_leave_with_three(fusain):
    assert fusain("new", "quik") == (3, "", "E-CFG-012 No recipe is called 'quik'.\nDo: Did you mean 'quick'?\n")


def test_faults_as_json(fusain):
    for words in (["--format", "json", "new", "quik"], ["new", "quik", "--format=json"]):
        code, out, err = fusain(*words)
        assert (code, out) == (3, "")
        assert json.loads(err) == {
            "error": {
                "code": "E-CFG-012",
                "message": "No recipe is called 'quik'.",
                "where": "",
                "why": "",
                "hint": "Did you mean 'quick'?",
                "exit_code": 3,
                "also": [],
            }
        }


def failing(fault):
    @click.command()
    def verb():
        raise fault

    return verb


@pytest.fixture
def verb_that_raises(monkeypatch):
    def make(fault):
        monkeypatch.setattr(command.fusain, "get_command", lambda context, name: failing(fault))

    return make


def test_exit_codes_of_faults(fusain, verb_that_raises):
    verb_that_raises(UsageError("E-USE-005", option="--x"))
    assert fusain("demo")[0] == 2
    verb_that_raises(DataError("E-USE-005", option="--x"))
    assert fusain("demo")[0] == 4
    verb_that_raises(KeyboardInterrupt())
    assert fusain("demo")[0] == 130


def test_every_kind_of_fault_has_a_documented_exit_code():
    assert {kind.exit_code for kind in FusainError.__subclasses__()} <= set(EXIT_CODES)
    assert set(STOPPED.values()) <= set(EXIT_CODES)


def test_a_bug_leaves_with_one_and_its_trace_in_a_file(fusain, verb_that_raises, monkeypatch):
    verb_that_raises(ZeroDivisionError("no\nwords"))
    Path("runs").mkdir()
    code, out, err = fusain("demo")
    (trace,) = Path("runs").glob("fusain-failed-*.txt")
    assert (code, out) == (1, "")
    assert err == (
        "E-BUG-001 Fusain failed in a way that it should not: ZeroDivisionError: no\n"
        f"Do: Please report it, with the file {trace.resolve()}\n"
    )
    assert "Traceback" in trace.read_text()
    monkeypatch.setenv("FUSAIN_DEBUG", "1")
    assert "Traceback" in fusain("demo")[2]


def test_new_writes_a_file_once(fusain):
    code, out, err = fusain("new", "quick", "--data", "images", "-o", "run.toml")
    assert (code, out, err) == (0, "run.toml\n", "Next: fusain plan run.toml   then: fusain train run.toml\n")
    assert 'path = "images"' in Path("run.toml").read_text()
    assert fusain("new", "quick", "-o", "run.toml") == (
        2,
        "",
        "E-USE-007 'run.toml' exists already.\nDo: Choose another name with -o, or add --yes to write over it.\n",
    )
    code, out, err = fusain("new", "quick", "-o", "run.toml", "--yes", "--format", "json")
    assert json.loads(out) == {"settings": "run.toml", "recipe": "quick"}
    assert err.splitlines()[0] == "Set data.path in run.toml to the folder of your images."
    assert fusain("--format", "quiet", "new", "quick", "-o", "run.toml", "--yes") == (0, "run.toml\n", "")


def test_recipes(fusain):
    assert fusain("recipes", "ls") == (0, "quick  A quick one.\n", "")
    assert json.loads(fusain("recipes", "ls", "--format", "json")[1]) == {
        "recipes": [{"name": "quick", "title": "A quick one."}]
    }
    assert fusain("recipes", "show", "quick")[1].startswith("# A quick one.\n")


def test_explain(fusain):
    assert fusain("explain", "steps") == (
        0,
        "train.steps\n"
        "  Length.\n"
        "  Value: a whole number\n"
        "  Default: none\n"
        "  In a file: [train] steps = …\n"
        "  On the command line: --train.steps VALUE\n",
        "",
    )
    assert fusain("explain", "e-cfg-003")[1] == "E-CFG-003 Unknown setting '{key}'.\nDo: Did you mean '{nearest}'?\n"
    assert fusain("explain")[1] == "data.path\ntrain.steps\ntrain.beta\n"
    assert [entry["key"] for entry in json.loads(fusain("explain", "train", "--format", "json")[1])["settings"]] == [
        "train.steps",
        "train.beta",
    ]


def test_runs_of_an_empty_folder(fusain):
    assert fusain("runs", "ls") == (0, "", "No runs in runs.\n")
    assert fusain("runs", "ls", "--format", "json") == (0, '{"runs": []}\n', "No runs in runs.\n")


@pytest.fixture
def one_run():
    folder = Path("runs/first")
    folder.mkdir(parents=True)
    settings = {"family": {"kind": "pixel"}, "method": {"kind": "full"}, "train": {"steps": 5, "epochs": None}}
    (folder / "settings.json").write_text(json.dumps(settings))
    events = [{"kind": "start", "step": 0, "steps": 5}, {"kind": "held_out", "step": 0, "loss": 0.5}]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.mark.usefixtures("one_run")
def test_runs_are_listed_shown_and_put_away(fusain, monkeypatch):
    assert fusain("runs", "ls")[1].startswith("first  interrupted step 0 of 5  pixel, full  held-out loss 0.5000  ")
    assert "train.epochs = none\n" in fusain("runs", "show", "first")[1]
    assert json.loads(fusain("--format", "json", "runs", "show", "first")[1])["settings"]["train"]["steps"] == 5
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert fusain("runs", "rm", "first") == (
        2,
        "",
        "E-USE-006 Nobody is there to confirm: Move the run 'first' to the trash?\n"
        "Do: Add --yes to skip the question.\n",
    )
    code, out, _ = fusain("runs", "rm", "first", "--yes")
    assert code == 0
    assert (Path(out.strip()) / "settings.json").is_file()
    assert not Path("runs/first").exists()


@pytest.mark.parametrize(
    ("words", "pairs", "rest"),
    [
        (["a.toml", "--train.steps", "5"], [("train.steps", "5")], ["a.toml"]),
        (["--train.steps", "5", "a.toml"], [("train.steps", "5")], ["a.toml"]),
        (["--train.rate=-1e-3", "--name", "n"], [("train.rate", "-1e-3")], ["--name", "n"]),
        (["--train.rate", "-1"], [("train.rate", "-1")], []),
        (["--data.path="], [("data.path", "")], []),
        (["--data.path=a=b"], [("data.path", "a=b")], []),
        (["--allow-change", "train.rate"], [], ["--allow-change", "train.rate"]),
        (["--", "--train.steps", "5"], [], ["--", "--train.steps", "5"]),
        (["--name=a.b"], [], ["--name=a.b"]),
    ],
)
def test_overrides_are_taken_from_the_words(words, pairs, rest):
    assert overrides.split(words) == (pairs, rest)


def test_settings_of_no_section_are_taken_too():
    words = ["--runs_folder", "x", "--name", "n"]
    assert overrides.split(words, frozenset({"runs_folder"})) == ([("runs_folder", "x")], ["--name", "n"])
