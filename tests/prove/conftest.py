"""What several proofs share and is made once."""

import pytest

from fusain.models.bases.opening import lies_at
from fusain.worlds import face_reader
from fusain.worlds.reader import Reader
from tests.prove import style


@pytest.fixture(scope="session")
def judge() -> Reader:
    """The judge of caricatures that the package carries."""
    return face_reader.carried()


@pytest.fixture(scope="session")
def mini_sd() -> str:
    return str(lies_at(style.BASE))
