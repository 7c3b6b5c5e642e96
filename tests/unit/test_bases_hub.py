"""The hub: fetched from a stand-in that speaks its HTTP on this machine, with its own library."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from fusain.messages.quantities import size
from fusain.models.bases import fresh, fresh_sd3, known, tokenizers
from tests.environment import as_users_have_it, assert_telemetry_is_off

COMMIT, OTHER = "a" * 40, "b" * 40
TOKEN = "hf_" + "x" * 34
CLIENT = """
import json, sys
from fusain.errors import FusainError
from fusain.models import bases

for line in sys.stdin:
    source, more = json.loads(line)
    try:
        if source == "tokenizer":
            answer = str(bases.find_tokenizer(bases.Base(**more)))
        else:
            base = bases.open_base(source, **more)
            answer = [base.revision, base.architecture, str(base.folder), base.id]
            assert bases.build(base.components["vae"]) is not None
    except FusainError as fault:
        answer = {"text": str(fault), "exit": fault.exit_code}
    print(json.dumps(answer), flush=True)
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for models that are called after what is wrong with them."""

    files: dict[str, bytes]
    asked: list[str]
    tokens: set[str | None]
    agents: set[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *_: object) -> None: ...

    def answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        self.tokens.add(self.headers["Authorization"])
        self.agents.add(self.headers["User-Agent"])
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.about("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        else:
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)

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
        faults["gone"] = (404, {"X_Error_Code": "RepoNotFound"})  # what it says to those who are logged in
        faults["stale"] = (401, {"X_Error_Message": "Invalid credentials in Authorization header"})
        if owner in faults:
            status, headers = faults[owner]
            return self.send(status, **headers)
        if owner == "portal":
            return self.send(200, b"<html>log in to the Wi-Fi</html>", Content_Type="text/html")
        if revision not in ("main", COMMIT, OTHER):
            return self.send(404, X_Error_Code="RevisionNotFound")
        names = [
            *self.files,
            "evil.py",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.fp16.safetensors",
        ]
        if owner == "pickled":
            names = [name.replace("unet/diffusion_pytorch_model.safetensors", "unet/x.txt") for name in self.files]
            names.append("unet/diffusion_pytorch_model.bin")
        if owner == "single":
            names = ["dream.safetensors", "README.md"]
        sizes = "blobs=" in urlsplit(self.path).query
        entries = [{"rfilename": name} | ({"size": len(self.files.get(name, b""))} if sizes else {}) for name in names]
        listing = {"id": repository, "sha": COMMIT, "siblings": entries}
        return self.send(200, json.dumps(listing).encode(), Content_Type="application/json")

    def file(self, repository: str, revision: str, name: str, with_body: bool) -> None:
        owner = repository.split("/")[0]
        if owner == "gated":
            return self.send(403, X_Error_Code="GatedRepo")
        body = self.files.get(name)
        if body is None:
            return self.send(404, X_Error_Code="EntryNotFound")
        if owner == "hollow" and name.endswith(".safetensors"):
            return self.send(404, X_Error_Code="EntryNotFound")
        if owner == "full" and name.endswith(".safetensors"):
            return self.send(507)  # one that the hub's library does not wait for
        if owner == "hotel" and name.endswith(".safetensors"):
            return self.send(200, b"<html>log in</html>", with_body=with_body, Content_Type="text/html")
        etag = hashlib.sha256(body).hexdigest()
        if owner == "half" and name.endswith(".safetensors") and with_body:
            body = body[: len(body) // 2]
        return self.send(200, body, with_body=with_body, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    fresh.write(fresh.TINY, folder)
    Hub.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    Hub.files["README.md"] = b"---\nlicense: creativeml-openrail-m\n---\n"
    Hub.asked, Hub.tokens, Hub.agents = [], set(), set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.server_close()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """Asks for bases, one after the other, in a process whose hub is the stand-in."""
    home = tmp_path_factory.mktemp("home")
    changes = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": TOKEN,
        "FUSAIN_CACHE": str(home / "fusain"),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        env=as_users_have_it(**changes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(source: str, /, **more: object):
        process.stdin.write(json.dumps([source, more]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, process.stderr.read()
        assert TOKEN not in line
        return json.loads(line)

    ask.endpoint = changes["HF_ENDPOINT"]
    ask.home = home
    yield ask
    process.stdin.close()
    process.wait()
    process.stdout.close()
    process.stderr.close()


FAULTS = [
    (
        "gated/model",
        "E-NET-002 The hub lets in only who accepted the model's terms.\nWhere: gated/model\n"
        "Do: Accept them at {endpoint}/gated/model, then log in: hf auth login",
    ),
    (
        "missing/nothing",
        "E-NET-003 The hub knows no model of that name, or it is private.\nWhere: missing/nothing\n"
        "Do: Check the spelling; if it is yours, log in: hf auth login",
    ),
    (
        "gone/nothing",
        "E-NET-003 The hub knows no model of that name, or it is private.\nWhere: gone/nothing\n"
        "Do: Check the spelling; if it is yours, log in: hf auth login",
    ),
    (
        "gone/stable-diffusion-v1-5",
        "E-NET-011 The hub knows no model of that name, or it is private.\nWhere: gone/stable-diffusion-v1-5\n"
        "Do: Did you mean 'stable-diffusion-v1-5/stable-diffusion-v1-5'? If the name is right and it is yours, log in: "
        "hf auth login",
    ),
    (
        "busy/model",
        "E-NET-004 The hub refuses for now: too many requests came from here (429).\nWhere: busy/model\n"
        "Do: Wait some minutes, or log in for a larger share: hf auth login",
    ),
    (
        "portal/model",
        "E-NET-005 What answered is not the hub (no answer of the hub's form).\nWhere: portal/model\n"
        "Why: A proxy, or the log-in page of a network, may stand between.\n"
        "Do: Open {endpoint}/portal/model in a browser on this machine, then try again.",
    ),
    (
        "hotel/model",
        "E-NET-005 What answered is not the hub (no answer of the hub's form).\nWhere: hotel/model\n"
        "Why: A proxy, or the log-in page of a network, may stand between.\n"
        "Do: Open {endpoint}/hotel/model in a browser on this machine, then try again.",
    ),
    (
        "half/model",
        "E-NET-007 The download of 'unet/diffusion_pytorch_model.safetensors' broke off: it is not as long as "
        "announced.\nWhere: half/model\nDo: Run the same command again; what came whole is kept.",
    ),
    (
        "hollow/model",
        "E-NET-012 The model lacks 'unet/diffusion_pytorch_model.safetensors': the hub answers that there is no such "
        "file (404).\nWhere: hollow/model\n"
        "Why: It belongs to it, so it was removed, or never uploaded.\n"
        "Do: Look at {endpoint}/hollow/model whether it is there. If not, ask its owner, or use another model.",
    ),
    (
        "stale/model",
        "E-NET-008 The hub does not accept the log-in on this machine (401).\nWhere: stale/model\n"
        "Do: Log in anew: hf auth login",
    ),
    (
        "single/model",
        "E-NET-009 The repository holds no diffusers folder.\nWhere: single/model\n"
        "Do: Download one of its files and give its path; it holds: dream.safetensors.",
    ),
    (
        "down/model",
        "E-NET-001 The hub cannot be reached (HTTP 503), and these files are not on this machine: model_index.json, "
        "unet/config.json, unet/diffusion_pytorch_model.safetensors, vae/…, text_encoder/….\nWhere: down/model\n"
        'Do: On a machine with network: hf download down/model --include "*.json" "*.txt" "*.safetensors" '
        "--local-dir model; then copy its folder here and give its path.",
    ),
]


@pytest.mark.parametrize(("source", "text"), FAULTS, ids=[source for source, _ in FAULTS])
def test_faults_have_words_of_their_own(source, text, client):
    assert client(source) == {"text": text.format(endpoint=client.endpoint), "exit": 9}


def test_what_is_missing_is_told_with_its_size_where_the_hub_told_it(client):
    """It listed the files, and fell silent at the first large one."""
    order = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"]
    order += ["vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors"]
    files = ", ".join(f"{name} ({size(len(Hub.files[name]))})" for name in order[1:])
    assert client("full/model")["text"] == (
        f"E-NET-001 The hub cannot be reached (HTTP 507), and these files are not on this machine: {files}.\n"
        'Where: full/model\nDo: On a machine with network: hf download full/model --include "*.json" "*.txt" '
        '"*.safetensors" --local-dir model; then copy its folder here and give its path.'
    )


def test_names_that_may_be_meant(tmp_path, monkeypatch):
    """Of what was fetched before, and of bases that families, recipes and the user's own settings name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("FUSAIN_CONFIG", str(tmp_path))
    (tmp_path / "settings.toml").write_text('bases = { sd = "me/chalk-faces" }\n')
    for name in ("models--me--ink-portraits", "datasets--me--ink-drawings"):
        (tmp_path / name / "snapshots" / COMMIT).mkdir(parents=True)
        (tmp_path / name / "snapshots" / COMMIT / "model_index.json").touch()
    (tmp_path / "models--me--ink-potraits" / "refs").mkdir(parents=True)  # left by an earlier mistake
    assert {name: known.nearest(name) for name in (
        "me/ink-potraits",
        "me/chalk-face",
        "runwayml/stable-diffusion-v1-5",
        "compvis/stable-difusion-v1-4",
        "StabilityAI/stable-diffusion-xl-base-1",
        "fusain/mini-sd",
        "me/ink-drawing",
        "somebody/something",
    )} == {
        "me/ink-potraits": "me/ink-portraits",
        "me/chalk-face": "me/chalk-faces",
        "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "compvis/stable-difusion-v1-4": "CompVis/stable-diffusion-v1-4",
        "StabilityAI/stable-diffusion-xl-base-1": "stabilityai/stable-diffusion-xl-base-1.0",
        "fusain/mini-sd": "fusain:mini-sd",
        "me/ink-drawing": None,
        "somebody/something": None,
    }  # fmt: skip
    assert known.nearest("me/ink-drawing", "data set") == "me/ink-drawings"
    assert known.nearest("me/chalk-face", "data set") is None


def test_nothing_half_is_left_in_the_cache(client):
    client("half/model")
    blobs = client.home / "hub" / "models--half--model" / "blobs"
    whole = {hashlib.sha256(body).hexdigest() for body in Hub.files.values()}
    for blob in blobs.iterdir():
        if not blob.name.endswith(".incomplete"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() in whole


def test_a_model_of_pickles(client):
    answer = client("pickled/model")
    assert answer["exit"] == 10
    assert answer["text"].startswith(
        "E-SEC-006 The unet is there only as a pickle ('unet/diffusion_pytorch_model.bin'), and reading such a file "
        "can run any code.\nWhere: pickled/model\nDo: Download the model (hf download pickled/model"
    )


def test_revisions(client):
    assert client("good/model", revision="nope")["text"].startswith(
        "E-NET-006 The model has no revision 'nope'.\nWhere: good/model\n"
    )
    answer = client("good/model", revision=OTHER)
    assert f"E-NET-005 What answered is not the hub (asked for {OTHER}, it sends {COMMIT})." in answer["text"]


def test_of_stable_diffusion_3_what_is_left_out_is_not_fetched(client, tmp_path, monkeypatch):
    """T5 is as large as all else; asked for later, it is all that is fetched."""
    fresh_sd3.write(tmp_path / "three", with_t5=True)
    files = {p.relative_to(tmp_path / "three").as_posix(): p.read_bytes() for p in (tmp_path / "three").rglob("*.*")}
    monkeypatch.setattr(Hub, "files", files)
    Hub.asked.clear()
    commit, architecture, _, without = client("three/model", without=["text_encoder_3", "tokenizer_3"])
    assert (commit, architecture) == (COMMIT, "sd3")
    weights = {name for name in files if name.endswith(".safetensors")}
    assert loaded("three/model") & weights == weights - {"text_encoder_3/model.safetensors"}
    Hub.asked.clear()
    *_, whole = client("three/model")
    assert "text_encoder_3/model.safetensors" in loaded("three/model")
    assert whole != without


def loaded(repository):
    """The names of files that the stand-in was asked for."""
    asked = (path.strip("/").split("/") for path in Hub.asked if path.startswith(f"/{repository}/resolve/"))
    return {"/".join(parts[4:]) for parts in asked}


def test_fetched_once_pinned_and_then_without_the_hub(client, hub):
    """Only what is read is fetched; a pinned commit asks nobody; with the hub gone, the cache does."""
    Hub.asked.clear()
    answer = client("good/model")
    commit, architecture, folder, _ = answer
    assert (commit, architecture) == (COMMIT, "sd1")
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for path in Hub.asked if "/resolve/" in path}
    assert {"unet/diffusion_pytorch_model.safetensors", "README.md"} <= fetched
    assert not [name for name in fetched if name.endswith((".py", ".bin")) or "fp16" in name]
    assert Hub.tokens == {f"Bearer {TOKEN}"}
    assert_telemetry_is_off(Hub.agents)

    Hub.asked.clear()
    assert client("good/model", revision=COMMIT) == answer
    assert Hub.asked == []
    bare = {"source": "x.safetensors", "architecture": "sd1", "components": {}}
    Hub.files |= dict.fromkeys(("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"), b"{}")
    found = client("tokenizer", **bare)
    assert sorted(os.listdir(found)) == sorted(tokenizers.FILES)

    hub.shutdown()
    hub.server_close()
    assert client("good/model") == answer
    assert client("tokenizer", **bare) == found
    missing = client("new/model", revision="v1")
    assert missing["text"].startswith("E-NET-001 The hub cannot be reached (no connection), and these files are not")
    assert "hf download new/model --revision v1 --include" in missing["text"]
    os.remove(os.path.join(folder, "vae", "config.json"))
    assert "are not on this machine: vae/config.json.\n" in client("good/model")["text"]
    answer = client("tokenizer", **bare | {"architecture": "sd2"})
    assert answer == {
        "text": "E-MODEL-046 The tokenizer is not at hand: a single file brings none, and "
        "'stabilityai/stable-diffusion-2' cannot be fetched (no connection).\nWhere: x.safetensors\n"
        "Do: On a machine with network: hf download stabilityai/stable-diffusion-2 tokenizer/vocab.json "
        "tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json --local-dir tokenizer; "
        "then give that folder as the tokenizer.",
        "exit": 9,
    }
