"""Two processes never hold one run (F32)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fusain.errors import StorageError
from fusain.runs import lock

ignore = [].append


def test_a_living_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "first" / "lock.json"
    path.parent.mkdir()
    with lock.held(path, note=ignore):
        assert lock.is_held(path)
        with pytest.raises(StorageError) as caught, lock.held(path, note=ignore):
            pass
        assert str(caught.value) == (
            f"E-RUN-004 Run 'first' is being trained by process {os.getpid()} on this machine.\n"
            f"Where: {path}\n"
            "Do: Wait for it, stop it, or use another --name."
        )
    assert not path.exists()


def test_a_dead_holder_is_taken_over_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    code = (
        "import os, pathlib; from fusain.runs import lock; "
        f"context = lock.held(pathlib.Path({str(path)!r}), note=print); context.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    pid = json.loads(path.read_text())["pid"]
    notes: list[str] = []
    with lock.held(path, note=notes.append):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert notes == [f"The lock of process {pid}, which is gone, is taken over."]


def test_a_process_number_that_was_used_again_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    with lock.held(path, note=ignore):
        holder = json.loads(path.read_text())
    path.write_text(json.dumps({**holder, "started": "1"}))
    assert not lock.is_held(path)


def test_another_machines_lock_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "lock.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"pid": 5, "host": "elsewhere", "boot": "b", "started": "1"}))
    assert socket.gethostname() != "elsewhere"
    with pytest.raises(StorageError) as caught, lock.held(path, note=ignore):
        pass
    assert str(caught.value) == (
        "E-RUN-005 Run 'mine' is locked by process 5 on another machine, 'elsewhere'.\n"
        f"Where: {path}\n"
        "Why: From here nobody can tell whether that process is alive.\n"
        "Do: If it is gone, delete the lock file; else use another --name."
    )
    assert path.exists()
