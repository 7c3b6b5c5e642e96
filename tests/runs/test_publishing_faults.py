"""Publishing where the hub or the way to it fails: each fault in its words, tries again, and nothing by halves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs.publishing import weights_of
from tests.runs.stand_in_hub import HALF, SILENCE, Fault, World

CREATE, INFO, PREUPLOAD = "POST /api/repos/create", "GET /api/models/me/model", "POST .*/preupload/main"
COMMITS, STORAGE, YAML = "POST .*/commit/main", "PUT /lfs/.*", "POST /api/validate-yaml"
STALE = {"X-Error-Message": "Invalid credentials in Authorization header"}
WRITES = "Do: Name a repository of your own, or log in with a token that may write there: hf auth login\n"
SILENT = "Do: Look at the network, then run the same command again. The model card lies here already: {card}\n"
BROKEN = "Do: Run the same command again; what arrived whole is not sent a second time.\n"
FAULTS = [
    (
        Fault("GET /api/whoami-v2", 401, headers=STALE),
        "E-NET-008 The hub does not accept the log-in on this machine (401).\nWhere: me/model\n"
        "Do: Log in anew: hf auth login\n",
    ),
    (
        Fault(CREATE, 403, b'{"error": "You don\'t have the rights"}'),
        "E-NET-022 The log-in on this machine may not write to 'me/model'; the hub says: You don't have the rights.\n"
        f"Where: me/model\n{WRITES}",
    ),
    (
        Fault(CREATE, 404),
        "E-NET-023 The hub knows no 'me/model', and nobody of that name for whom it could be made.\nWhere: me/model\n"
        "Do: Check the spelling; your own name is told by: hf auth whoami\n",
    ),
    (
        Fault(COMMITS, 409),
        "E-NET-024 Somebody else is changing the repository at this moment (409).\nWhere: me/model\n"
        "Do: Run the same command again.\n",
    ),
    (
        Fault(PREUPLOAD, 429),
        "E-NET-004 The hub refuses for now: too many requests came from here (429).\nWhere: me/model\n"
        "Do: Wait some minutes, or log in for a larger share: hf auth login\n",
    ),
    (
        Fault(CREATE, SILENCE),
        "E-NET-021 The hub cannot be reached (the connection broke); nothing was published.\n"
        f"Where: me/model\n{SILENT}",
    ),
    (
        Fault(INFO, 503),
        f"E-NET-021 The hub cannot be reached (HTTP 503); nothing was published.\nWhere: me/model\n{SILENT}",
    ),
    (
        Fault(STORAGE, 503),
        "E-NET-025 The upload broke off (HTTP 503); nothing of it can be seen, for it becomes visible as a whole.\n"
        f"Where: me/model\n{BROKEN}",
    ),
    (
        Fault("GET /api/whoami-v2", 200, b"<html>log in to the Wi-Fi</html>", {"Content-Type": "text/html"}),
        "E-NET-005 What answered is not the hub (no answer of the hub's form).\nWhere: me/model\n"
        "Why: A proxy, or the log-in page of a network, may stand between.\n"
        "Do: Open {endpoint}/me/model in a browser on this machine, then try again.\n",
    ),
    (
        Fault(YAML, 400, b'{"errors": [{"message": "\\"license\\" must be one of [mit, ...]"}]}'),
        'E-PUB-007 The hub refuses the header of the model card: "license" must be one of [mit, ...].\n'
        "Where: {card}\nDo: If it is about the licence, name another one: --licence ID\n",
    ),
    (
        Fault(COMMITS, 400, b'{"error": "No more room for hf_abcdefghijkl"}'),
        "E-NET-026 The hub refuses the upload: No more room for hf_….\nWhere: me/model\n"
        "Do: Mend what it names; the repository is at {endpoint}/me/model\n",
    ),
]


@pytest.mark.parametrize(("fault", "text"), FAULTS, ids=[f"{one.status}-{one.request}" for one, _ in FAULTS])
def test_faults_have_words_of_their_own(
    publish: Any, published_runs: Path, hub: World, fault: Fault, text: str
) -> None:
    hub.faults.append(fault)
    code, out, err = publish("classes", "--repo", "me/model", "--licence", "mit")
    card = published_runs / "classes" / "publish" / "README.md"
    notes = [line for line in err.splitlines(keepends=True) if line.startswith("The hub does not answer")]
    assert "".join(line for line in err.splitlines(keepends=True) if line not in notes) == text.format(
        card=card, endpoint=hub.endpoint
    )
    assert (code, out) == (9, "")
    assert len(notes) == (3 if "E-NET-021" in text or "E-NET-025" in text else 0)
    assert not any(repository.commits or repository.files for repository in hub.repositories.values())
    assert not (published_runs / "classes" / "lock.json").exists()


def test_nobody_is_logged_in_or_may_only_read(publish: Any, hub: World) -> None:
    words = ("classes", "--repo", "me/model", "--licence", "mit")
    assert publish(*words, token=None) == (
        9,
        "",
        "E-NET-020 Nobody is logged in to the hub on this machine.\nWhere: me/model\n"
        "Do: Log in with a token that may write: hf auth login\n",
    )
    assert hub.asked == []
    hub.role = "read"
    assert publish(*words) == (
        9,
        "",
        "E-NET-027 The log-in on this machine may only read.\nWhere: me/model\n"
        "Do: Log in with a token that may write: hf auth login --force\n",
    )
    assert hub.repositories == {}


@pytest.mark.parametrize("request_", [CREATE, COMMITS, STORAGE])
def test_a_short_silence_is_waited_out(publish: Any, published_runs: Path, hub: World, request_: str) -> None:
    hub.faults.append(Fault(request_, SILENCE, times=1))
    said = publish("classes", "--repo", "me/model", "--licence", "mit")
    assert said.code == 0
    waited = "The hub does not answer (the connection broke); trying again in 1 s.\n"
    assert said.err == ("" if request_ == STORAGE else waited)  # the hub's library asks storage again by itself
    repository = hub.repositories["me/model"]
    assert len(repository.commits) == 1
    assert weights_of(published_runs / "classes").items() <= repository.files.items()


def test_after_half_an_upload_only_the_rest_is_sent(publish: Any, published_runs: Path, hub: World) -> None:
    unet = (published_runs / "classes" / "weights" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    address = f"PUT /lfs/{hashlib.sha256(unet).hexdigest()}"
    hub.faults.append(Fault(address, HALF))
    said = publish("classes", "--repo", "me/model", "--licence", "mit")
    assert said.code == 9
    assert re.search(r"^E-NET-025 The upload broke off \([a-zA-Z ]+\); nothing of it can", said.err, re.MULTILINE)
    assert hub.repositories["me/model"].files == {}
    hub.faults.clear()
    hub.asked.clear()
    assert publish("classes", "--repo", "me/model", "--licence", "mit").code == 0
    assert [request for request in hub.asked if request.startswith("PUT")] == [address]
    assert hub.repositories["me/model"].files["unet/diffusion_pytorch_model.safetensors"] == unet
    again = publish("classes", "--repo", "me/model", "--licence", "mit")
    assert again.code == 0
    assert len(hub.repositories["me/model"].commits) == 1, "what did not change makes no commit"
