"""Data sets of the hub: fetched from a stand-in that speaks its HTTP on this machine, then trained on, also offline."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import pytest

from fusain.runs import hub_data
from tests.environment import as_users_have_it, assert_telemetry_is_off
from tests.runs.faults import SHORT
from tests.runs.training import as_overrides, assert_equal_runs, kinds, train_here

COMMIT, OTHER = "a" * 40, "b" * 40
TOKEN = "hf_" + "x" * 34
CLIENT = """
import json, sys
from fusain.errors import FusainError
from fusain.runs import actions, hub_data

for line in sys.stdin:
    what, more = json.loads(line)
    try:
        if what == "train":
            actions.train(**more)
            answer = None
        else:
            folder, commit = hub_data.fetch(**more)
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            answer = [commit, sorted(files)]
    except FusainError as fault:
        answer = {"text": str(fault), "exit": fault.exit_code}
    print(json.dumps(answer), flush=True)
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for data sets whose owners are called after what is wrong with them."""

    files: dict[str, bytes]
    asked: list[str]
    tokens: set[str | None]
    agents: set[str]
    commit = COMMIT
    is_whole = False
    """Whether the owner "half" sends whole files by now."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *_: object) -> None: ...

    def answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        self.tokens.add(self.headers["Authorization"])
        self.agents.add(self.headers["User-Agent"])
        parts = path.strip("/").split("/")
        if parts[4:5] == ["tree"]:
            found = [{"type": "file", "path": name, "size": len(self.files[name]), "oid": name} for name in self.files]
            self.send(200, json.dumps(found).encode(), Content_Type="application/json")
        elif parts[:2] == ["api", "datasets"]:
            self.about("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        else:
            self.file(parts[1], "/".join(parts[5:]), with_body)

    def send(self, status: int, body: bytes = b"", *, with_body: bool = True, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def about(self, repository: str, revision: str) -> None:
        owner = repository.split("/")[0]
        faults = {"missing": (401, {"X_Error_Code": "RepoNotFound"}), "busy": (429, {}), "down": (503, {})}
        faults["stale"] = (401, {"X_Error_Message": "Invalid credentials in Authorization header"})
        if owner in faults:
            status, headers = faults[owner]
            return self.send(status, **headers)
        if owner == "portal":
            return self.send(200, b"<html>log in to the Wi-Fi</html>", Content_Type="text/html")
        if revision not in ("main", COMMIT, OTHER):
            return self.send(404, X_Error_Code="RevisionNotFound")
        names = ["images.zip", "load.py"] if owner == "zipped" else [*self.files, "load.py"]
        is_kept = repository.endswith("/streamed") and revision != "main"
        sha = revision if is_kept else self.commit
        listing = {"id": repository, "sha": sha, "siblings": [{"rfilename": name} for name in names]}
        return self.send(200, json.dumps(listing).encode(), Content_Type="application/json")

    def file(self, owner: str, name: str, with_body: bool) -> None:
        if owner == "gated":
            return self.send(403, X_Error_Code="GatedRepo")
        if owner == "hotel":
            return self.send(200, b"<html>log in</html>", with_body=with_body, Content_Type="text/html")
        if owner == "cut" and name != next(iter(self.files)):
            return self.send(503)
        body = self.files.get(name)
        if body is None:
            return self.send(404, X_Error_Code="EntryNotFound")
        if owner == "lost" and "Range" in self.headers:
            return self.send(404, X_Error_Code="EntryNotFound")
        asked_for = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        if asked_for:
            return self.send(206, body[int(asked_for[1]) : int(asked_for[2]) + 1], with_body=with_body)
        etag = hashlib.sha256(body).hexdigest()
        if owner == "half" and with_body and not self.is_whole:
            body = body[: len(body) // 2]
        return self.send(200, body, with_body=with_body, ETag=f'"{etag}"', X_Repo_Commit=self.commit)


def stored(sprites: Path) -> Iterator[dict[str, Any]]:
    """The pictures of the drawn world, in the order of their names."""
    for path in sorted(sprites.rglob("*.png"), key=lambda path: path.relative_to(sprites).as_posix()):
        yield {"bild": {"bytes": path.read_bytes(), "path": None}, "label": path.parent.name}


@pytest.fixture(scope="module")
def parquet(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    rows = datasets.Dataset.from_list(list(stored(sprites))).cast_column("bild", datasets.Image())
    found = {}
    for shard in range(2):
        path = tmp_path_factory.mktemp("parquet") / "shard.parquet"
        rows.shard(2, shard, contiguous=True).to_parquet(path)
        found[f"data/train-{shard:05d}-of-00002.parquet"] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def hub(parquet: dict[str, bytes]) -> Iterator[ThreadingHTTPServer]:
    Hub.files, Hub.asked, Hub.tokens, Hub.agents = parquet, [], set(), set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Client:
    """Asks in a process whose hub is the stand-in, one thing after the other."""

    def __init__(self, hub: ThreadingHTTPServer, home: Path, **changes: str) -> None:
        world = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": TOKEN,
            "FUSAIN_CACHE": str(home / "fusain"),
            "NO_COLOR": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=as_users_have_it(**(world | changes)),
        )  # fmt: skip

    def __call__(self, what: str, **more: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, more]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "it ended with what it wrote to stderr"
        assert TOKEN not in line
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(hub: ThreadingHTTPServer, home: Path) -> Iterator[Client]:
    client = Client(hub, home)
    yield client
    client.close()


@pytest.fixture(scope="module")
def offline(hub: ThreadingHTTPServer, home: Path, client: Client) -> Iterator[Client]:
    """The same cache without a network."""
    client("fetch", source="me/sprites", revision=None)
    offline = Client(hub, home, HF_HUB_OFFLINE="1")
    yield offline
    offline.close()


def test_only_parquet_is_fetched_and_the_commit_is_told(client: Client) -> None:
    commit, files = client("fetch", source="me/sprites", revision=None)
    assert commit == COMMIT
    assert files == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert not any("load.py" in path for path in Hub.asked)
    assert Hub.tokens == {f"Bearer {TOKEN}"}
    assert_telemetry_is_off(Hub.agents)


def test_a_commit_that_is_here_is_not_asked_for(client: Client) -> None:
    client("fetch", source="me/sprites", revision=None)
    Hub.asked.clear()
    assert client("fetch", source="me/sprites", revision=COMMIT)[0] == COMMIT
    assert Hub.asked == []


@pytest.mark.parametrize(
    ("source", "revision", "text"),
    [
        ("missing/set", None, (
            "E-NET-003 The hub knows no data set of that name, or it is private.\nWhere: missing/set\n"
            "Do: Check the spelling; if it is yours, log in: hf auth login"
        )),
        ("gated/set", None, (
            "E-NET-002 The hub lets in only who accepted the data set's terms.\nWhere: gated/set\n"
            "Do: Accept them at {endpoint}/datasets/gated/set, then log in: hf auth login"
        )),
        ("stale/set", None, (
            "E-NET-008 The hub does not accept the log-in on this machine (401).\nWhere: stale/set\n"
            "Do: Log in anew: hf auth login"
        )),
        ("busy/set", None, (
            "E-NET-004 The hub refuses for now: too many requests came from here (429).\nWhere: busy/set\n"
            "Do: Wait some minutes, or log in for a larger share: hf auth login"
        )),
        ("portal/set", None, (
            "E-NET-005 What answered is not the hub (no answer of the hub's form).\nWhere: portal/set\n"
            "Why: A proxy, or the log-in page of a network, may stand between.\n"
            "Do: Open {endpoint}/datasets/portal/set in a browser on this machine, then try again."
        )),
        ("me/sprites", "nowhere", (
            "E-NET-006 The data set has no revision 'nowhere'.\nWhere: me/sprites\n"
            "Do: Look at {endpoint}/datasets/me/sprites for its branches, tags and commits."
        )),
        ("me/sprites", OTHER, (
            f"E-NET-005 What answered is not the hub (asked for {OTHER}, it sends {COMMIT}).\nWhere: me/sprites\n"
            "Why: A proxy, or the log-in page of a network, may stand between.\n"
            "Do: Open {endpoint}/datasets/me/sprites in a browser on this machine, then try again."
        )),
        ("hotel/set", None, (
            "E-NET-005 What answered is not the hub (no answer of the hub's form).\nWhere: hotel/set\n"
            "Why: A proxy, or the log-in page of a network, may stand between.\n"
            "Do: Open {endpoint}/datasets/hotel/set in a browser on this machine, then try again."
        )),
        ("cut/set", None, (
            "E-NET-001 The hub cannot be reached (HTTP 503), and these files are not on this machine: "
            "data/train-00001-of-00002.parquet.\nWhere: cut/set\n"
            "Do: On a machine with network: hf download cut/set --repo-type dataset --include \"*.parquet\" "
            "--local-dir set; then copy its folder here and give its path."
        )),
        ("half/set", None, (
            "E-NET-007 The download of 'data/train-00000-of-00002.parquet' broke off: it is not as long as announced.\n"
            "Where: half/set\nDo: Run the same command again; what came whole is kept."
        )),
        ("zipped/set", None, (
            "E-NET-010 The data set holds no Parquet files, but: images.zip, load.py.\nWhere: zipped/set\n"
            "Why: Other forms may need code of the data set's own, which is not run.\n"
            "Do: The hub makes Parquet of most data sets: --data.revision refs/convert/parquet"
        )),
        ("down/set", None, (
            "E-NET-001 The hub cannot be reached (HTTP 503), and these files are not on this machine: *.parquet.\n"
            "Where: down/set\n"
            "Do: On a machine with network: hf download down/set --repo-type dataset --include \"*.parquet\" "
            "--local-dir set; then copy its folder here and give its path."
        )),
    ],
)  # fmt: skip
def test_each_fault_of_the_hub_has_its_words(
    hub: ThreadingHTTPServer, home: Path, client: Client, source: str, revision: str | None, text: str
) -> None:
    """F28; a half file leaves nothing that counts as whole."""
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    told = client("fetch", source=source, revision=revision)
    assert told == {"text": text.replace("{endpoint}", endpoint), "exit": 9}
    assert not list((home / "fusain" / "hub").glob(f"{source.replace('/', '--')}@{revision or 'main'}.json"))


def test_nothing_half_is_left_in_the_cache(
    client: Client, home: Path, parquet: dict[str, bytes], monkeypatch: Any
) -> None:
    """F28; and what is fetched once the hub is well again is whole."""
    assert client("fetch", source="half/again", revision=None)["text"].startswith("E-NET-007")
    cache = home / "hub" / "datasets--half--again"
    assert [path.name for path in cache.glob("blobs/*") if not path.name.endswith(".incomplete")] == []
    assert [path for path in cache.glob("snapshots/**/*") if path.is_file()] == []
    monkeypatch.setattr(Hub, "is_whole", True)
    assert client("fetch", source="half/again", revision=None)[1] == sorted(parquet)
    for name, content in parquet.items():
        assert (cache / "snapshots" / COMMIT / name).read_bytes() == content


def test_files_that_are_gone_from_the_cache_are_named(client: Client, offline: Client, home: Path) -> None:
    """F27: their names are known from when they were fetched."""
    client("fetch", source="me/gone", revision=None)
    name = "data/train-00001-of-00002.parquet"
    (home / "hub" / "datasets--me--gone" / "snapshots" / COMMIT / name).unlink()
    assert offline("fetch", source="me/gone", revision=None)["text"].startswith(
        "E-NET-001 The hub cannot be reached (offline mode is on, HF_HUB_OFFLINE), and these files are not on this "
        f"machine: {name}.\nWhere: me/gone\n"
    )
    assert client("fetch", source="me/gone", revision=COMMIT)[0] == COMMIT
    assert offline("fetch", source="me/gone", revision=None)[0] == COMMIT


def test_of_many_missing_files_a_few_are_named() -> None:
    assert hub_data._shown([f"{number}.parquet" for number in range(7)]) == [
        *(f"{number}.parquet" for number in range(5)),
        "and 2 more",
    ]
    assert hub_data._shown(["0.parquet"]) == ["0.parquet"]


def test_without_a_network(offline: Client) -> None:
    """F27: what was fetched starts; of what was not nothing is known but how it ends."""
    Hub.asked.clear()
    assert offline("fetch", source="me/sprites", revision=None)[0] == COMMIT
    assert offline("fetch", source="me/others", revision=None) == {
        "text": (
            "E-NET-001 The hub cannot be reached (offline mode is on, HF_HUB_OFFLINE), "
            "and these files are not on this machine: *.parquet.\n"
            "Where: me/others\n"
            'Do: On a machine with network: hf download me/others --repo-type dataset --include "*.parquet" '
            "--local-dir others; then copy its folder here and give its path."
        ),
        "exit": 9,
    }
    assert Hub.asked == []


def test_a_run_equals_one_on_the_same_images_in_a_folder_and_keeps_its_commit(
    client: Client, offline: Client, settings: Path, runs: Path, undisturbed: Path
) -> None:
    """Trained to step 8, gone on with without a network, while the branch has moved on."""
    changes = SHORT | {"runs_folder": str(runs), "data.path": "me/sprites", "data.kind": "datasets"}
    eight = as_overrides(changes | {"train.steps": 8})
    assert client("train", source=str(settings), name="run", overrides=eight) is None
    assert json.loads((runs / "run" / "settings.json").read_text())["data"]["revision"] == COMMIT
    assert json.loads((runs / "run" / "settings.json").read_text())["data"]["path"] == "me/sprites"
    Hub.commit = OTHER
    try:
        assert client("train", source=str(settings), name="run", overrides=as_overrides(changes)) is None
    finally:
        Hub.commit = COMMIT
    assert f"me/sprites stays at commit {COMMIT}, as the run began." in [
        row["text"] for row in kinds(runs / "run", "note")
    ]
    assert_equal_runs(undisturbed, runs / "run")


def test_a_saved_data_set_trains_as_the_same_images_in_a_folder(
    sprites: Path, settings: Path, runs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rows = datasets.Dataset.from_list(list(stored(sprites))).cast_column("bild", datasets.Image())
    rows.save_to_disk(str(tmp_path / "saved"))
    train_here(settings, "run", runs, SHORT | {"data.path": str(tmp_path / "saved"), "data.memory_gb": 0})
    assert_equal_runs(undisturbed, runs / "run")


def test_a_stream_of_the_hub_is_read_in_parts_and_keeps_its_commit(
    hub: ThreadingHTTPServer, client: Client, settings: Path, runs: Path, parquet: dict[str, bytes], tmp_path: Path
) -> None:
    """The same run as from a folder of these files, gone on with while the branch has moved on; nothing is fetched."""
    for name, content in parquet.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    changes = SHORT | {"runs_folder": str(runs), "data.streaming": True, "data.stream_window": 32, "data.held_out": 8}
    changes |= {"family.condition": "none", "method.condition_dropout": 0, "method.condition_warmup": 0}
    train_here(settings, "folder", runs, changes | {"data.path": str(tmp_path / "set")})
    changes |= {"data.path": "me/streamed", "data.kind": "datasets", "data.workers": 1}
    eight = as_overrides(changes | {"train.steps": 8})
    Hub.asked.clear()
    assert client("train", source=str(settings), name="run", overrides=eight) is None
    assert json.loads((runs / "run" / "settings.json").read_text())["data"]["revision"] == COMMIT
    Hub.commit = OTHER
    try:
        assert client("train", source=str(settings), name="run", overrides=as_overrides(changes)) is None
    finally:
        Hub.commit = COMMIT
    assert_equal_runs(runs / "folder", runs / "run")
    assert {path for path in Hub.asked if "/resolve/" in path} == {
        f"/datasets/me/streamed/resolve/{COMMIT}/{name}" for name in parquet
    }


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("lost/set", (
            "E-NET-012 The data set lacks 'data/train-00000-of-00002.parquet': the hub answers that there is no such "
            "file (404).\nWhere: lost/set\n"
            "Why: It belongs to it, so it was removed, or never uploaded.\n"
            "Do: Look at {endpoint}/datasets/lost/set whether it is there. If not, ask its owner, or use another data "
            "set."
        )),
        ("hotel/set", (
            "E-NET-005 What answered is not the hub (a page in place of 'data/train-00000-of-00002.parquet').\n"
            "Where: hotel/set\nWhy: A proxy, or the log-in page of a network, may stand between.\n"
            "Do: Open {endpoint}/datasets/hotel/set in a browser on this machine, then try again."
        )),
        ("gated/set", (
            "E-NET-002 The hub lets in only who accepted the data set's terms.\nWhere: gated/set\n"
            "Do: Accept them at {endpoint}/datasets/gated/set, then log in: hf auth login"
        )),
        ("down/set", (
            "E-NET-001 The hub cannot be reached (HTTP 503), and these files are not on this machine: *.parquet.\n"
            "Where: down/set\n"
            "Do: On a machine with network: hf download down/set --repo-type dataset --include \"*.parquet\" "
            "--local-dir set; then copy its folder here and give its path."
        )),
    ],
)  # fmt: skip
def test_faults_of_the_hub_while_it_streams(
    hub: ThreadingHTTPServer, client: Client, settings: Path, runs: Path, source: str, text: str
) -> None:
    changes = {"runs_folder": str(runs), "data.path": source, "data.kind": "datasets", "data.streaming": True}
    told = client("train", source=str(settings), name="run", overrides=as_overrides(changes))
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    assert told == {"text": text.replace("{endpoint}", endpoint), "exit": 9}
