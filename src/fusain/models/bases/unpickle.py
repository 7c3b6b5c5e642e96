"""Turns one pickle of weights into safetensors: a program of its own, which `pickles.py` runs in a closed-off process.

It imports nothing of Fusain. Torch's unpickler knows the few names that tensors need and calls nothing else; what this
file adds are names that old checkpoints hold beside their weights, as things that do nothing. Around it stand limits of
the operating system and a hook that forbids processes, sockets and files, should a hole in the unpickler be found.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import sys
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import Any, Final

REFUSED: Final = 10
ZIP: Final = b"PK\x03\x04"
PICKLES_OF_OLD_FORMAT: Final = 5
LARGEST_PICKLE: Final = 256 << 20
"""Of the table of contents, without the numbers of the weights."""

INERT: Final = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
)
"""What training left beside the weights: the trainer's callback, and numbers of its log."""
OF_TENSORS: Final = ("torch.", "collections.", "_codecs.encode", "builtins.set")
"""Names that the unpickler of torch may know; it decides itself which it does."""

FORBIDDEN: Final = (
    *("subprocess.", "socket.", "ctypes.", "pty.", "shutil.", "ftplib.", "http.", "urllib.", "smtplib.", "winreg."),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill", "os.putenv"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate"),
)
WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Inert:
    """Stands where a forbidden thing stood: takes every argument and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


class Refused(Exception):
    """The file holds what no weights need."""

    def __init__(self, reason: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.names = names


def names_in(path: str) -> list[str]:
    """Every name that the pickles of a file would import, read without running them."""
    found: dict[str, None] = {}
    for stream in _streams(path):
        texts: list[str] = []
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name in ("GLOBAL", "INST"):
                found[_today(*str(argument).split(" ", 1))] = None
            elif operation.name == "STACK_GLOBAL":
                found[".".join(texts[-2:])] = None
            elif isinstance(argument, str):
                texts.append(argument)
    return list(found)


def _streams(path: str) -> Iterator[Any]:
    """The pickles of a file: members of a zip, or those that the older format begins with."""
    with open(path, "rb") as file:
        if file.read(4) == ZIP:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".pkl"):
                        with archive.open(member) as stream:
                            yield io.BytesIO(stream.read(LARGEST_PICKLE))
            return
        file.seek(0)
        yield file
        for _ in range(PICKLES_OF_OLD_FORMAT - 1):
            if file.read(1) != pickle.PROTO:
                return
            file.seek(-1, os.SEEK_CUR)
            yield file


def _today(module: str, name: str) -> str:
    """A name as Python 3 has it; most pickles spell it as Python 2 did."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def check_names(path: str) -> None:
    """Refuses by name what the unpickler would refuse too, and all of it at once."""
    try:
        names = names_in(path)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as fault:
        raise Refused(f"it cannot be taken apart ({str(fault).splitlines()[0]})") from fault
    unknown = tuple(name for name in names if name not in INERT and not name.startswith(OF_TENSORS))
    if unknown:
        raise Refused("forbidden names", unknown)


def close_off(size: int) -> None:
    """From here on: bounded memory, no dumps, no processes, no sockets, no file opened to be written."""
    if sys.platform != "win32":
        import resource

        limits = {"RLIMIT_CORE": 0, "RLIMIT_NPROC": 0, "RLIMIT_FSIZE": 2 * size + (64 << 20), "RLIMIT_CPU": 3600}
        if os.path.exists("/proc/self/statm"):
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[0])
            limits["RLIMIT_AS"] = pages * resource.getpagesize() + 4 * size + (2 << 30)
        for name, limit in limits.items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (limit, limit))
    sys.addaudithook(_guard)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise Refused(f"it tried {event}")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        raise Refused("it tried to write a file")


def read(path: str) -> tuple[dict[str, Any], list[str]]:
    """The tensors of the file's `state_dict`, each with memory of its own, and the names of all else."""
    import torch

    with open(path, "rb") as file:
        is_zip = file.read(4) == ZIP
    with torch.serialization.safe_globals([(Inert, name) for name in INERT]):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    table = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(table, dict):
        raise Refused("it holds no table of weights")
    beside = [] if table is loaded else [str(name) for name in loaded if name != "state_dict"]
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in table.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            beside.append(f"{name} (no tensor)")
            continue
        tensor = value.detach().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    if not found:
        raise Refused("it holds no weights")
    return found, beside


def converted(source: str, out: str, origin: str) -> dict[str, Any]:
    """Converts; the report of it, or the reason of a refusal."""
    check_names(source)
    import torch  # before the limits, which start from what it takes
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    close_off(os.path.getsize(source))
    tensors, beside = read(source)
    save_file(tensors, out, metadata={"format": "pt", "fusain.converted_from": origin})
    return {"tensors": len(tensors), "beside": beside}


def in_words(fault: Exception) -> str:
    """What torch or safetensors said, without the advice to run the file after all."""
    text = str(fault).strip() or type(fault).__name__
    said = re.search(r"WeightsUnpickler error:\s*(\S.*)", text)
    return (said[1] if said else text.splitlines()[0]).split(". Please")[0].split(" Re-running")[0]


def main(source: str, out: str, origin: str) -> int:
    """Prints the report as JSON."""
    try:
        report = converted(source, out, origin)
    except Refused as fault:
        report = {"refused": str(fault), "names": fault.names}
    except (MemoryError, OSError, ImportError) as fault:
        report = {"failed": str(fault) or "memory ran out"}
    except Exception as fault:  # the edge of this process: whatever a strange file brings about, it is refused
        is_short = "allocate memory" in str(fault)
        report = {"failed": "memory ran out"} if is_short else {"refused": in_words(fault), "names": ()}
    print(json.dumps(report))
    return 0 if "tensors" in report else REFUSED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
