"""Pickles: converted in a closed-off process, and what is malicious never runs."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fusain.errors import FusainError, StorageError, UnsafeFileError
from fusain.models import bases
from fusain.models.bases import conversion, pickles, unpickle
from tests.unit.originals import original_file, tiny


@pytest.fixture
def marker(tmp_path):
    """A file that malicious pickles would make; it must not be there afterwards."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def lightning(monkeypatch):
    """The class of a trainer that is not installed here, as `sd-v1-4-full-ema.ckpt` carries it."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)
    return module.ModelCheckpoint


def lightning_checkpoint(callback):
    inner = callback()
    inner.best_model_score = np.float64(0.25)
    return {
        "epoch": 3,
        "callbacks": {callback: {"best": np.float32(0.5), "monitor": inner, "curve": np.zeros(3)}},
        "state_dict": OrderedDict(original_file("sd1", ema=True)),
    }


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old"])
def test_a_checkpoint_of_lightning(is_zip, lightning, tmp_path):
    """Its callback and the numbers of its log become things that do nothing; every weight is the same."""
    path, out = tmp_path / "full-ema.ckpt", tmp_path / "new" / "out.safetensors"
    torch.save(lightning_checkpoint(lightning), path, _use_new_zipfile_serialization=is_zip)
    done = conversion.convert(str(path), out)
    wanted, found = original_file("sd1", ema=True), load_file(out)
    assert (done.tensors, done.beside) == (len(wanted), ("epoch", "callbacks"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [entry.name for entry in out.parent.iterdir()] == [out.name]
    with safe_open(out, "pt") as file:
        assert len(file.metadata()["fusain.converted_from"]) == 64
    unet = bases.open_base(str(out)).components["unet"].tensors()
    assert all(torch.equal(unet[name], value + 1) for name, value in tiny("sd1").weights()["unet"].items())


def test_shared_memory_and_views(tmp_path):
    """In one process, for this only looks at what the unpickler gives."""
    square = torch.randn(4, 4)
    table = {"a": square, "tied": square, "turned": square.t(), "part": square[1:3], "step": 7}
    torch.save(table, tmp_path / "x.pt")
    found, beside = unpickle.read(str(tmp_path / "x.pt"))
    assert beside == ["step (no tensor)"]
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == len(found)
    assert all(tensor.is_contiguous() and torch.equal(tensor, table[name]) for name, tensor in found.items())


def malicious(marker):
    touch = f"touch {marker}"
    return {
        "os.system": (Calls(os.system, touch), "posix.system"),
        "eval": (Calls(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        "exec": (Calls(exec, f"open({str(marker)!r}, 'w')"), "builtins.exec"),
        "open": (Calls(builtins.open, str(marker), "w"), "io.open"),
        "subprocess": (Calls(subprocess.Popen, ["touch", str(marker)]), "subprocess.Popen"),
        "nested": (Calls(getattr, Calls(__import__, "os"), "system"), "builtins.getattr, builtins.__import__"),
        "inside a list": ([{"deep": (1, Calls(os.system, touch))}], "posix.system"),
        "a class": (Calls(type, "X", (), {}), "builtins.type"),
    }


@pytest.mark.parametrize("kind", malicious("x"))
def test_a_malicious_checkpoint(kind, marker, tmp_path):
    thing, names = malicious(marker)[kind]
    path, out = tmp_path / "evil.ckpt", tmp_path / "out.safetensors"
    torch.save({"state_dict": {"weight": torch.zeros(2), "x": thing}}, path)
    with pytest.raises(UnsafeFileError) as caught:
        pickles.convert(path, out)
    assert str(caught.value) == (
        f"E-SEC-004 The pickle was refused: it asks for {names}, which no weights need.\nWhere: {path}\n"
        "Why: Nothing of the file was run and nothing was written; such a name is how a file runs code.\n"
        "Do: Delete the file, and look for the same weights as .safetensors."
    )
    assert caught.value.exit_code == 10
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["evil.ckpt"]


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Calls(torch.hub.load, "owner/name"), "torch.hub.load"),
        (
            Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, "true"))),
            "torch.storage._load_from_bytes",
        ),
        (Calls(collections.namedtuple, "X", "a"), "collections.namedtuple"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_of_torch_that_no_weights_need(thing, name, tmp_path):
    """They pass for names of tensors at first, and torch's unpickler refuses them by name."""
    path, out = tmp_path / "evil.ckpt", tmp_path / "out.safetensors"
    torch.save({"state_dict": {"weight": torch.zeros(2), "x": thing}}, path)
    with pytest.raises(UnsafeFileError) as caught:
        pickles.convert(path, out)
    assert str(caught.value).startswith("E-SEC-005 The pickle was refused: ")
    assert name in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("form", ["bare", "old", "zip", "renamed"])
def test_forms_of_malicious_pickles(form, protocol, marker, tmp_path):
    """Whatever the protocol, the container and the name: refused before torch is even imported, or by it."""
    thing = Calls(os.system, f"touch {marker}")
    path = tmp_path / ("model.safetensors" if form == "renamed" else "evil.pt")
    if form in ("bare", "renamed"):
        path.write_bytes(pickle.dumps({"state_dict": thing}, protocol=protocol))
    elif protocol:
        torch.save({"x": thing}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(thing, protocol=0))
    with pytest.raises(FusainError) as caught:
        pickles.convert(path, tmp_path / "out.safetensors")
    assert caught.value.code in ("E-SEC-004", "E-SEC-005")
    if form == "renamed" and protocol:
        with pytest.raises(UnsafeFileError, match="E-SEC-001"):
            bases.open_base(str(path))


def test_a_damaged_zip_hides_nothing(marker, tmp_path):
    """A wrong checksum stops scanners that stop at it; here it stops the conversion."""
    path = tmp_path / "evil.ckpt"
    torch.save({"x": Calls(os.system, f"touch {marker}")}, path)
    data = bytearray(path.read_bytes())
    central = data.rfind(b"PK\x01\x02", 0, data.rfind(b"data.pkl"))
    data[central + 16] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match=r"it cannot be taken apart \(Bad CRC-32"):
        pickles.convert(path, tmp_path / "out.safetensors")


def test_what_is_no_pickle(tmp_path):
    path = tmp_path / "old.ckpt"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UnsafeFileError) as caught:
        pickles.convert(path, tmp_path / "out.safetensors")
    assert str(caught.value).startswith("E-SEC-005 The pickle was refused: ")
    assert "weights_only" not in str(caught.value), "torch's advice to load it unsafely is not passed on"


def test_nothing_is_written_over(tmp_path):
    path, out = tmp_path / "x.pt", tmp_path / "out.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    out.write_text("mine")
    with pytest.raises(StorageError) as caught:
        conversion.convert(str(path), out)
    assert str(caught.value) == (
        f"E-MODEL-049 '{out}' exists already; nothing is written over.\nWhere: {out}\n"
        "Do: Choose another name, or move it away."
    )
    assert out.read_text() == "mine"


GUARDED = """
import sys
sys.path.insert(0, {folder!r})
import os, socket, subprocess, unpickle
unpickle.close_off(1 << 20)
tries = {{
    "system": lambda: os.system("touch {marker}"),
    "popen": lambda: subprocess.Popen(["touch", "{marker}"]),
    "fork": lambda: os.fork(),
    "exec": lambda: os.execv("/bin/touch", ["touch", "{marker}"]),
    "write": lambda: open("{marker}", "w"),
    "descriptor": lambda: os.open("{marker}", os.O_CREAT | os.O_WRONLY),
    "remove": lambda: os.remove({child!r}),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "memory": lambda: bytearray(64 << 30),
}}
for name, attempt in tries.items():
    try:
        attempt()
    except unpickle.Refused as fault:
        print(name, "refused")
    except MemoryError:
        print(name, "bounded")
    else:
        print(name, "DONE")
"""


def test_the_closed_off_process(marker):
    """The second wall, should the unpickler have a hole: what code could do there."""
    code = GUARDED.format(folder=str(pickles.CHILD.parent), marker=marker, child=str(pickles.CHILD))
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heard = dict(line.split() for line in done.stdout.splitlines())
    assert heard.pop("memory") == "bounded"
    assert set(heard.values()) == {"refused"}
    assert len(heard) == 8


def test_the_process_sees_no_secrets(monkeypatch, tmp_path):
    """Its environment is made of a few names; tokens of the user's shell are not among them."""
    seen = {}

    def run(command, *, env, **more):
        seen.update(env)
        return subprocess.CompletedProcess(command, 1, b"", b"stopped")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(pickles.subprocess, "run", run)
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match=r"E-MODEL-050 .* ended \(exit code 1, stopped\)"):
        pickles.convert(path, tmp_path / "out.safetensors")
    assert seen
    assert "hf_secret" not in seen.values()
