"""One small drawn world for all runs of a session, and what several of them start from or are compared with."""

import shutil
from pathlib import Path

import pytest

from tests.runs.faults import EIGHT, SHORT
from tests.runs.publishing import client, copied, home, hub, hub_server, publish, published_runs
from tests.runs.training import sprites_folder, train_here, write_settings

__all__ = ["client", "copied", "home", "hub", "hub_server", "publish", "published_runs"]


@pytest.fixture(scope="session")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sprites_folder(tmp_path_factory.mktemp("world") / "sprites")


@pytest.fixture
def settings(tmp_path: Path, sprites: Path) -> Path:
    return write_settings(tmp_path, sprites)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sprites: Path) -> Path:
    """The run that each disturbed one must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train_here(write_settings(folder, sprites), "run", folder, SHORT)
    return folder / "run"


@pytest.fixture
def finished(undisturbed: Path, runs: Path) -> Path:
    """Its copy, called "run", for tests that change it."""
    return Path(shutil.copytree(undisturbed, runs / "run"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, sprites: Path) -> Path:
    """A run of eight steps, to be copied and gone on with."""
    folder = tmp_path_factory.mktemp("begun")
    train_here(write_settings(folder, sprites), "run", folder, EIGHT)
    return folder


@pytest.fixture
def run(begun: Path, runs: Path) -> Path:
    """Its copy, called "run"."""
    return Path(shutil.copytree(begun / "run", runs / "run"))
