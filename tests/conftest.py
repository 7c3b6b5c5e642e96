"""What every test stands on: no network, its own cache, one thread, and nothing left behind by the test before it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

os.environ["FUSAIN_CONFIG"] = str(Path(__file__).parent / "no-settings")
"""Nobody's own settings; set here because fixtures of a session come before those of a test."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FUSAIN_DEBUG", raising=False)


@pytest.fixture(autouse=True)
def no_network(request, monkeypatch):
    """Only what is marked `network` may leave the machine; within it sockets work."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family == getattr(socket, "AF_UNIX", None) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert local, f"a test wants to reach {address}; mark it `network` if it must"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def calm_torch(request):
    """One thread and seed 0, for the tests that came to import torch.

    Tiny networks gain nothing from a second thread, and on a busy machine each operation would wait for it.
    """
    import sys

    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
