"""What tests of publishing share: small trained runs, a stand-in hub, and a process that gives commands to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fusain.models.bases import fresh
from fusain.worlds.caricatures import world, write_folder
from tests.environment import as_users_have_it
from tests.runs.stand_in_hub import World, running
from tests.runs.training import train_here, write_settings

TOKEN = "hf_" + "x" * 34
LICENCE = "---\nlicense: creativeml-openrail-m\n---\n# A base\n"
CLIENT = """
import io, json, os, sys, time
from contextlib import redirect_stderr, redirect_stdout

time.sleep = lambda seconds: None  # neither we nor the hub's library wait before another try
from fusain.cli.main import main

for line in sys.stdin:
    words, changes = json.loads(line)
    os.environ |= {name: value for name, value in changes.items() if value is not None}
    for name in [name for name, value in changes.items() if value is None]:
        os.environ.pop(name, None)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
SHORT = {"train.steps": 4, "checkpoint.every_steps": 4, "train.held_out_every_steps": 2, "samples.every_steps": 4}
TEXT = """
[family]
kind = "sd"
base = "{base}"
size = 32

[data]
path = "{data}"
held_out = 4
captions.trigger_word = "sks"

[train]
steps = 2
batch_size = 4
learning_rate = 1e-3

[checkpoint]
every_steps = 2

[samples]
every_steps = 2
steps = 3
count = 1
guidance = 3.0
prompts = ["a red hat", "green skin"]
negative = "glasses"

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def published_runs(tmp_path_factory: pytest.TempPathFactory, sprites: Path) -> Path:
    """A folder of runs: pixels with and without classes, plain and folded, and a tiny Stable Diffusion."""
    folder = tmp_path_factory.mktemp("publishing")
    settings = write_settings(folder, sprites)
    train_here(settings, "classes", folder, {**SHORT, "samples.guidance": 2.0})
    train_here(settings, "plain", folder, {**SHORT, "family.condition": "none", "samples.eta": 0.5})
    folded = {**SHORT, "family.patch": 2, "samples.steps": 5}
    scaled = {"family.condition": "none", "samples.sampler": "euler-ancestral"}
    train_here(settings, "folded", folder, folded | scaled)
    train_here(settings, "folded-classes", folder, folded | {"samples.sampler": "dpm++-2m-sde-karras"})
    fresh.write(fresh.TINY, folder / "base")
    (folder / "base" / "README.md").write_text(LICENCE)
    write_folder(world(24, seed=4), folder / "faces")
    (folder / "text.toml").write_text(TEXT.format(base=folder / "base", data=folder / "faces"))
    train_here(folder / "text.toml", "text", folder)
    skipping = {"family.clip_skip": 1, "train.steps": 1, "samples.sampler": "ddpm"}
    train_here(folder / "text.toml", "skipping", folder, skipping)
    return folder


@pytest.fixture(scope="session")
def hub_server() -> Iterator[World]:
    with running() as world:
        yield world


@pytest.fixture
def hub(hub_server: World) -> World:
    """The stand-in, with nothing in it."""
    hub_server.forget()
    return hub_server


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marie")


@pytest.fixture(scope="session")
def client(hub_server: World, home: Path) -> Iterator[subprocess.Popen[str]]:
    """Gives commands, one after the other, where the stand-in is the hub."""
    changes = {
        "HF_ENDPOINT": hub_server.endpoint,
        "HF_HOME": str(home / "hf"),
        "HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        # Large files take the way of plain LFS here: the stand-in does not speak Xet's protocol.
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        env=as_users_have_it(**changes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def publish(client: subprocess.Popen[str], published_runs: Path) -> Callable[..., Said]:
    """`fusain publish` on one of the runs; no word of it ever shows the token or a signed address."""

    def ask(*words: str, token: str | None = TOKEN) -> Said:
        assert client.stdin is not None
        assert client.stdout is not None
        asked = ["publish", "--runs-folder", str(published_runs), *words], {"HF_TOKEN": token}
        client.stdin.write(json.dumps(asked) + "\n")
        client.stdin.flush()
        line = client.stdout.readline()
        assert line, "the client died"
        assert TOKEN not in line
        assert "signature=canary" not in line
        return Said(*json.loads(line))

    return ask


@pytest.fixture
def copied(published_runs: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A run of the test's own, to be changed."""
    return lambda name: Path(shutil.copytree(published_runs / name, tmp_path / name))


def header_of(card: str) -> dict[str, Any]:
    import yaml

    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found is not None
    return dict(yaml.safe_load(found[1]))


def weights_of(run: Path) -> dict[str, bytes]:
    folder = run / "weights"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
