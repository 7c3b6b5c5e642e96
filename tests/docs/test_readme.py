"""What the pages say holds: the README runs as written; links, commands and settings in all pages exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from fusain.cli import overrides
from fusain.cli.main import fusain
from fusain.errors import FusainError
from fusain.messages import catalogue
from fusain.settings import described, recipes

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}
WRITTEN = {name: page for name, page in BY_NAME.items() if not name.startswith("docs/reference/")}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)+")
SUFFIXES = ("py", "toml", "json", "jsonl", "txt", "caption", "csv", "md", "npy", "png", "html", "safetensors", "lock")
PLACEHOLDERS = {"FILE": "run.toml", "RECIPE": "demo", "RUN": "demo", "NAME": "train.steps", "DIR": "folder", "KEY": "x"}


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def without_blocks(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_readme_runs_as_written(tmp_path: Path) -> None:
    """In order, in one folder, with the command of this very Python first; `make` lines are left to `make`."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FUSAIN_CACHE": str(tmp_path / "cache"),
    }
    ran = 0
    for language, text in blocks(ROOT / "README.md"):
        if language == "python":
            words = [sys.executable, "-c", text]
        elif language == "sh":
            lines = [line for line in text.splitlines() if not line.startswith("make ")]
            if not lines:
                continue
            words = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            continue
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran == 5, "a block was lost, or is in a language that is not run"
    assert (tmp_path / "runs" / "first" / "weights").is_dir()
    assert len(list((tmp_path / "runs" / "second" / "generated" / "0001").glob("0*.png"))) == 8


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ +(.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", BY_NAME)
def test_links_and_pictures_exist(name: str) -> None:
    page = BY_NAME[name]
    missing = []
    for link in LINK.findall(without_blocks(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


def test_every_verb_is_in_the_table() -> None:
    """Each in the row of its group, and each recipe in the list of changes."""
    rows = re.findall(r"^\| `fusain (\w+)([^|]*)\|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    told = {(verb, word) for verb, rest in rows for word in ("", *re.findall(r"[a-z]+", rest))}
    context = click.Context(fusain)
    missing = []
    for name in fusain.list_commands(context):
        command = fusain.get_command(context, name)
        below = command.list_commands(context) if isinstance(command, click.Group) else [""]
        missing += [f"{name} {word}".rstrip() for word in below if (name, word) not in told]
    assert not missing
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in recipes.names() if f"`{name}`" not in changes] == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(without_blocks(index))}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs") and page != index}
    assert not pages - linked


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `fusain ...` line, in shell blocks and between backticks, without `fusain` itself."""
    lines = [
        line
        for block in blocks(page)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    for text in [*lines, *INLINE.findall(without_blocks(page))]:
        if re.match(r"(\.venv/bin/)?fusain( |$)", text):
            yield [PLACEHOLDERS.get(word, word) for word in shlex.split(text, comments=True)[1:]]


def fault_of(words: list[str]) -> str:
    """Why this command line does not exist; '' where it does. Nothing is run, and arguments may be missing."""
    command: click.Command = fusain
    try:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words[0])
            if found is None:
                return f"no verb '{words[0]}'"
            command, words = found, words[1:]
        if isinstance(command, overrides.SettingsCommand):
            pairs, words = overrides.split(words, frozenset({"runs_folder"}))
            unknown = [key for key, _ in pairs if key not in settings()]
            if unknown:
                return f"no setting '{unknown[0]}'"
        context = click.Context(command, resilient_parsing=True)
        _, left, _ = command.make_parser(context).parse_args(list(words))
        if isinstance(command, click.Group):
            left = []
        return f"too many words: {left}" if left else ""
    except (click.UsageError, FusainError) as fault:
        return str(fault)


def settings() -> frozenset[str]:
    return frozenset(entry.key for entry in described.load().settings)


@pytest.mark.parametrize("name", WRITTEN)
def test_blocks_of_commands_say_that_they_are_some(name: str) -> None:
    """Else nobody holds them against the commands that there are."""
    assert not [
        block.text for block in blocks(WRITTEN[name]) if block.text.startswith("fusain ") and block.language != "sh"
    ]


@pytest.mark.parametrize("name", WRITTEN)
def test_commands_exist(name: str) -> None:
    faults = {" ".join(words): fault for words in commands(WRITTEN[name]) if (fault := fault_of(words))}
    assert not faults


def test_commands_are_found_and_wrong_ones_seen() -> None:
    assert sum(len(list(commands(page))) for page in WRITTEN.values()) >= 30
    assert fault_of(["generate", "first", "--lable", "spell"])
    assert fault_of(["train", "run.toml", "--train.stepps", "5"])
    assert fault_of(["draw"])
    assert fault_of(["runs", "list"])


@pytest.mark.parametrize("name", WRITTEN)
def test_settings_and_codes_exist(name: str) -> None:
    known = settings()
    sections = {key.partition(".")[0] for key in known}
    unknown = []
    for text in INLINE.findall(without_blocks(WRITTEN[name])):
        key = text.partition(" = ")[0].removeprefix("--")
        is_key = SETTING.fullmatch(key) and key.partition(".")[0] in sections and not key.endswith(SUFFIXES)
        is_code = re.fullmatch(r"[EW]-[A-Z]+-\d{3}", text)
        if (is_key and key not in known) or (is_code and text not in catalogue()):
            unknown.append(text)
    assert not unknown


def test_toml_blocks_hold_settings_that_exist() -> None:
    import tomllib

    def leaves(values: dict, prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and prefix + key not in settings():
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    unknown = {
        f"{name}: {key}"
        for name, page in WRITTEN.items()
        for block in blocks(page)
        if block.language == "toml"
        for key in leaves(tomllib.loads(block.text))
        if key not in settings() | {"recipe"}
    }
    assert not unknown


def test_every_recipe_but_the_demo_has_a_how_to() -> None:
    """Those by the size of a GPU share one."""
    pages = {page.stem for page in (ROOT / "docs" / "how-to").glob("*.md")}
    by_size = {name for name in recipes.names() if name.endswith("gb")}
    assert set(recipes.names()) - {"demo", "demo-character"} - by_size <= pages
    told = (ROOT / "docs" / "how-to" / "memory.md").read_text()
    assert all(f"`{name}`" in told for name in by_size)


def test_the_style_is_taught_as_the_proof_has_it() -> None:
    """The page of the miniature and `tests/prove/style.py`, which is measured; samples aside, which change nothing."""
    from tests.prove import style

    drawn, trained, used = (words for words in commands(WRITTEN["docs/how-to/miniature.md"]) if "glass" in words)
    assert drawn == ["world", "caricatures", "glass", "--style", style.STYLE, "--count", str(style.IMAGES)]
    pairs, words = overrides.split(trained)
    assert words == ["train", "text-to-image", "--name", "glass"]
    own = {"data.path": "glass", "samples.every_steps": "100"}
    assert dict(pairs) == style.SETTINGS | own
    assert used[-4:] == ["--steps", str(style.DRAWING.steps), "--guidance", f"{style.DRAWING.guidance:g}"]


def test_json_blocks_are_json() -> None:
    for name, page in WRITTEN.items():
        for block in blocks(page):
            if block.language == "json":
                assert json.loads(block.text), name
