"""A stand-in for the hub that takes uploads over HTTP: repositories, commits, large files, and faults on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SILENCE, HALF = 0, -1
"""Faults that are no status: the connection is closed at once, or in the midst of what is sent."""


@dataclass
class Fault:
    """What is answered in place of the truth, to requests such as `POST .*/preupload`."""

    request: str
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000_000


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def newest(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass
class World:
    """All that the hub holds and heard."""

    endpoint: str = ""
    role: str = "write"
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)

    def forget(self) -> None:
        self.role = "write"
        for heap in (self.repositories, self.large, self.faults, self.asked, self.tokens, self.agents):
            heap.clear()


class Hub(BaseHTTPRequestHandler):
    world: World

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def handle_any(self) -> None:
        path = urlsplit(self.path).path
        request = f"{self.command} {path}"
        self.world.asked.append(request)
        if not path.startswith("/lfs/"):  # storage is asked with a signed address and no token
            self.world.tokens.add(self.headers["Authorization"])
            self.world.agents.add(self.headers["User-Agent"])
        fault = next((one for one in self.world.faults if one.times and re.fullmatch(one.request, request)), None)
        if fault is not None:
            fault.times -= 1
            self.fail(fault)
            return
        self.answer(self.command, path, self.body())

    def fail(self, fault: Fault) -> None:
        if fault.status == HALF:
            self.rfile.read(1000)
        else:
            self.body()
        if fault.status > 0:
            self.send(fault.status, fault.body, **fault.headers)
        self.close_connection = True

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, content: Any, status: int = 200) -> None:
        self.send(status, json.dumps(content).encode(), Content_Type="application/json")

    def answer(self, method: str, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return self.send_json({"name": "me", "auth": {"accessToken": {"role": self.world.role}}})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.send_json({"errors": [], "warnings": []})
        if parts[0] == "lfs":
            return self.store(method, parts[1], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.send_json({"objects": [self.large_file(**one) for one in json.loads(body)["objects"]]})
        name = "/".join(parts[2:4])
        repository = self.world.repositories.get(name)
        if repository is None:
            return self.send(404, X_Error_Code="RepoNotFound")
        if len(parts) == 4 or parts[4] == "revision":
            about = {"id": name, "private": repository.private, "sha": repository.newest, "siblings": []}
            return self.send_json(about)
        if parts[4] == "preupload":
            return self.send_json({"files": [_mode(repository, **one) for one in json.loads(body)["files"]]})
        return self.commit(name, repository, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.world.repositories else 200
        self.world.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
        self.send_json({"url": f"{self.world.endpoint}/{name}"}, status)

    def large_file(self, oid: str, size: int) -> dict[str, Any]:
        if oid in self.world.large:
            return {"oid": oid, "size": size}
        address = f"{self.world.endpoint}/lfs/{oid}"
        return {
            "oid": oid,
            "size": size,
            "actions": {"upload": {"href": f"{address}?signature=canary"}, "verify": {"href": f"{address}/verify"}},
        }

    def store(self, method: str, oid: str, body: bytes) -> None:
        if method == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                return self.send(400)
            self.world.large[oid] = body
        return self.send(200)

    def commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        header, *operations = [(line["key"], line["value"]) for line in lines]
        files = {}
        for key, value in operations:
            assert key in ("file", "lfsFile"), f"publishing never asks for {key}"
            files[value["path"]] = (
                base64.b64decode(value["content"]) if key == "file" else self.world.large[value["oid"]]
            )
        repository.files |= files
        repository.commits.append(header[1]["summary"])
        address = f"{self.world.endpoint}/{name}/commit/{repository.newest}"
        self.send_json({"commitUrl": address, "commitOid": repository.newest})


def _mode(repository: Repository, path: str, sample: str, size: int) -> dict[str, Any]:
    """How a file is to be sent, and what the repository has of that name, as the hub says it."""
    is_large, held = path.endswith((".safetensors", ".png")), repository.files.get(path)
    found: dict[str, Any] = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
    if held is not None and is_large:
        found["oid"] = hashlib.sha256(held).hexdigest()
    elif held is not None:
        found["oid"] = hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
    return found


@contextmanager
def running() -> Iterator[World]:
    """The hub, on this machine, until the end of the block."""
    world = World()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"world": world}))
    world.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
