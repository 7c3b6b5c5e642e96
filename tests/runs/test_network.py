"""Nothing that a training uses calls home: watched within the process, and by the proxy that all others go through."""

from __future__ import annotations

import importlib.util
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusain.models.bases import fresh
from fusain.worlds.caricatures import portraits, write_folder
from tests.environment import as_users_have_it
from tests.runs.faults import SHORT, warnings
from tests.runs.test_recipes_on_the_miniature import SMALL
from tests.runs.test_streaming import shards
from tests.runs.training import as_overrides, losses

CLIENT = """
import json, sys

reached = []
def watch(event, given):
    if event == "socket.getaddrinfo":
        reached.append(str(given[0]))
    elif event == "socket.connect" and isinstance(given[1], tuple):
        reached.append(str(given[1][0]))
sys.addaudithook(watch)

import diffusers, huggingface_hub  # as in a notebook, before Fusain
from fusain.runs import actions
from fusain.training import relay

relay.PATIENCE = 600  # a busy machine may take minutes to start what a tracker starts
source, name, overrides = json.loads(sys.argv[1])
actions.train(source, name=name, overrides=[tuple(one) for one in overrides])
print(json.dumps(reached))
"""
HERE = {"127.0.0.1", "::1", "localhost", "None"}
TRACKERS = {"tensorboard": True, "wandb": "offline", "mlflow": True, "trackio": True}


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a proxy that lets nobody through, and the first line of each request to it."""
    asked: list[bytes] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True  # one that is asked nothing would wait for ever

    with Server(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def train(source: Path | str, runs: Path, changes: dict[str, Any], proxy: str, home: Path) -> list[str]:
    """In a process of a user who has switched nothing off; the places that it looked for."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    world = {name: proxy for lower in names for name in (lower, lower.upper())}
    world |= {"HF_HUB_OFFLINE": "0", "HOME": str(home), "FUSAIN_CACHE": str(home / "cache"), "TRACKIO_DIR": str(home)}
    given = json.dumps([str(source), "run", as_overrides(changes | {"runs_folder": str(runs)})])
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, given], env=as_users_have_it(**world), capture_output=True, text=True, check=True
    )
    reached: list[str] = json.loads(done.stdout.splitlines()[-1])
    return reached


def test_nothing_is_sent_unasked(
    settings: Path, runs: Path, sprites: Path, tmp_path: Path, proxy: tuple[str, list[bytes]]
) -> None:
    """A Parquet data set of this machine, whose library counts openings, and every tracker that is installed."""
    address, asked = proxy
    changes: dict[str, Any] = SHORT | {"data.path": str(shards(sprites, tmp_path / "set")), "data.held_out": 8}
    for name, value in TRACKERS.items():
        if importlib.util.find_spec(name):
            changes[f"track.{name}"] = value
    reached = train(settings, runs, changes, address, tmp_path)
    assert len(losses(runs / "run")) == 12
    assert warnings(runs / "run") == []
    assert set(reached) - HERE == set()
    assert asked == []


def test_a_base_of_this_machine_asks_nobody(tmp_path: Path, proxy: tuple[str, list[bytes]]) -> None:
    """Tokenizers, encoders, pipelines and adapters are opened by libraries that know the hub."""
    address, asked = proxy
    write_folder(portraits("Ada", 4), tmp_path / "images")
    fresh.write(fresh.TINY_XL, tmp_path / "base")
    changes = SMALL | {"family.kind": "sdxl", "family.base": str(tmp_path / "base"), "family.size": "32"}
    changes |= {"data.path": str(tmp_path / "images"), "method.text_encoder": "true", "samples.every_steps": "2"}
    reached = train("lora", tmp_path, changes, address, tmp_path)
    assert (tmp_path / "run" / "samples").exists()
    assert set(reached) - HERE == set()
    assert asked == []
