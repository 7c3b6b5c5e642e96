"""What several proofs share and is made once, and cores of its own for each of several processes that prove."""

import os

import pytest

from fusain.models.bases.opening import lies_at
from fusain.worlds import face_reader
from fusain.worlds.reader import Reader
from tests.prove import style


@pytest.fixture(scope="session", autouse=True)
def own_cores() -> None:
    """Trainings use all cores that they may: two of them on the same two cores take ten times as long, not twice."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if count > 1 and hasattr(os, "sched_setaffinity"):
        worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[worker % len(cores) :: count] or cores)


@pytest.fixture(scope="session")
def judge() -> Reader:
    """The judge of caricatures that the package carries."""
    return face_reader.carried()


@pytest.fixture(scope="session")
def mini_sd() -> str:
    return str(lies_at(style.BASE))
