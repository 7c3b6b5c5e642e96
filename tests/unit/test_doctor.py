"""`fusain doctor`: what is found on a machine, on a broken one too, and what the process ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fusain.cli import document
from fusain.runs.doctor import device, examination, machine, network, storage, versions
from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice
from tests.environment import as_users_have_it

ROOT = Path(__file__).parents[2]
KNOWN = {
    "needs": {"torch": "2.11", "numpy": "2.0"},
    "tested": {"torch": "2.13.0", "numpy": "2.4.6"},
    "extras": {"track": {"gives": "curves", "packages": {"tensorboard": "2.18"}}},
}


def doctor(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*filter(None, [variables.pop("FIRST", "")]), str(ROOT / "src")])
    environment = as_users_have_it(**{"PYTHONPATH": path} | variables)
    command = [sys.executable, "-m", "fusain", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def said(finding: Finding) -> str:
    assert finding.notice is not None
    return str(finding.notice)


def test_this_machine_is_fit_and_nothing_is_left_behind(tmp_path):
    ended = doctor("--json", "--runs-folder", str(tmp_path / "not" / "there"))
    found = json.loads(ended.stdout)
    assert (ended.returncode, found["ok"], ended.stderr) == (0, True, "")
    by_name = {(one["area"], one["name"]): one for one in found["findings"]}
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {text.partition(">")[0].replace("_", "-") for text in needs} <= {name for _, name in by_name}
    assert by_name["disk", "write, fsync, rename"]["text"] == "works"
    assert by_name["network", "telemetry"]["text"] == "none: HF_HUB_DISABLE_TELEMETRY is set"
    assert by_name["devices", "cpu"]["facts"]["bf16"] in (True, False)
    assert {area for area, _ in by_name} == {
        *("versions", "extras", "machine", "settings", "disk", "network", "devices")
    }
    assert list(tmp_path.iterdir()) == []


def test_a_broken_torch_is_a_finding(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    ended = doctor("--runs-folder", str(tmp_path), FIRST=str(tmp_path))
    assert ended.returncode == 5
    assert (
        "x devices   torch                  cannot be loaded\n"
        "    E-DOC-005 torch is installed but cannot be loaded: libcudart.so.13: cannot open shared object file.\n"
        "    Install it again for this machine: in a clone of Fusain make clean setup TORCH=default, else pip install "
        "--force-reinstall torch\n"
    ) in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("1 faults, ")


def test_nothing_heavy_is_loaded_before_the_device_is_asked():
    code = (
        "import sys\n"
        "from fusain.runs.doctor import machine, network, storage, versions\n"
        "assert all([list(versions.examine()), list(machine.examine()), list(network.examine())])\n"
        "assert not {'torch', 'pydantic', 'numpy', 'diffusers'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_versions():
    found = list(versions.packages({"torch": "2.13.0+cpu", "numpy": "2.5.1", "gradio": "6.20.0"}, KNOWN))
    assert [(one.name, one.text, one.level) for one in found] == [
        ("torch", "2.13.0+cpu", "ok"),
        ("numpy", "2.5.1 (tested with 2.4.6)", "ok"),
        ("gradio", "6.20.0", "ok"),
    ]


def test_versions_that_will_not_do():
    unsafe, missing = versions.packages({"torch": "2.9.1"}, KNOWN)
    assert said(unsafe) == (
        "E-DOC-003 torch 2.9.1 has known security holes. CVE-2025-32434 and CVE-2026-24747: weights files that run "
        "code or damage memory. Install 2.10 or newer: pip install --upgrade 'torch>=2.10'"
    )
    assert said(missing) == (
        "E-DOC-002 numpy is not installed, and nothing works without it. Install it: pip install 'numpy>=2.0'"
    )
    old = next(iter(versions.packages({"torch": "2.10.1", "numpy": "2.0"}, KNOWN)))
    assert (
        said(old)
        == "E-DOC-004 torch is 2.10.1; Fusain needs 2.11 or newer. Install it: pip install --upgrade 'torch>=2.11'"
    )
    assert old.exit_code == 5


def test_another_python():
    assert versions.python((3, 13), "3.13.2").level == "ok"
    assert said(versions.python((3, 14), "3.14.0")) == (
        f"E-DOC-001 Python is 3.14.0; Fusain is made for 3.11 to 3.13. ({sys.executable}) "
        "Make the environment anew with another one: in a clone of Fusain make clean setup PYTHON=python3.12, else "
        "python3.12 -m venv ENV and pip install fusain in it."
    )


def test_extras():
    track = KNOWN["extras"]["track"]
    missing = versions.of_extra("track", track, {})
    assert (missing.level, missing.text) == ("ok", "not installed; gives curves: pip install 'fusain[track]'")
    assert versions.of_extra("track", track, {"tensorboard": "2.18.0"}).text == "installed: curves"
    assert said(versions.of_extra("track", track, {"tensorboard": "2.17"})) == (
        "W-DOC-001 The extra 'track' is installed, but tensorboard is 2.17, and 2.18 is needed. "
        "Install it anew: pip install --upgrade 'fusain[track]'"
    )


def test_every_extra_says_what_it_gives_and_floors_are_asked_for():
    known = document.tested_versions(ROOT)
    assert all(extra["gives"] and extra["packages"] for extra in known["extras"].values()), (
        "a comment behind each extra"
    )
    for name, needs in known["needs"].items():
        floor = versions.SECURITY.get(name, ("0", ""))[0]
        assert versions.numbers(needs) >= versions.numbers(floor), f"pyproject.toml allows a {name} with holes"
        assert name in known["tested"], f"{name} is not in the lock"
    assert versions.numbers(known["needs"]["safetensors"]) >= (0, 8), "older ones are refused as too old"


@pytest.mark.parametrize(
    ("less", "more"), [("2.9", "2.10"), ("2.10", "2.10.1"), ("2.12.1+cu130", "2.13.0"), ("0", "0.0.1")]
)
def test_versions_are_compared_as_numbers(less, more):
    assert versions.numbers(less) < versions.numbers(more)
    assert versions.numbers("2.10.0") == versions.numbers("2.10") == versions.numbers("2.10.0+cpu")


def test_what_a_container_allows(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("4000000000\n")
    assert (machine.quota(tmp_path), machine.limit(tmp_path)) == (1.5, 4_000_000_000)
    assert said(machine.threads(8, 16, 1.5, None)) == (
        "W-DOC-002 8 cores are seen, but only 1.5 may be used at a time: threads would wait for each other. "
        "Set engine.threads = 2."
    )
    assert machine.memory(32_000_000_000, 4_000_000_000).text == "32 GB, 4 GB allowed here"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine.quota(tmp_path), machine.limit(tmp_path)) == (None, None)
    assert machine.quota(tmp_path / "none") is None


def test_little_shared_memory():
    assert machine.shared(8 << 30).level == "ok"
    assert said(machine.shared(64 << 20)) == (
        "W-DOC-003 Only 67.1 MB of memory can be shared between processes. (/dev/shm) Processes that decode ahead hand "
        "images over through it, and end with 'bus error' where it is full. Leave data.workers at 0, or start the "
        "container with more of it: docker run --shm-size 8g"
    )


MOUNTS = "/dev/sda1 / ext4 rw 0 0\nnas:/big /mnt/my\\040disk nfs4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"


def test_file_systems():
    assert storage.file_system(Path("/srv/runs"), MOUNTS) == "ext4"
    assert storage.file_system(Path("/mnt/my disk/runs"), MOUNTS) == "nfs4"
    assert storage.file_system(Path("/srv"), "") == ""
    assert said(storage.room("runs folder", Path("/mnt/my disk/runs"), 10**12, "nfs4")) == (
        "W-DOC-005 The folder lies on a network file system (nfs4). (/mnt/my disk/runs) Checkpoints are slower there, "
        "and after a lost connection a save may fail. Keep runs on a local disk, and copy what is finished."
    )
    assert said(storage.room("runs folder", Path("/srv"), 10**9, "ext4")) == (
        "W-DOC-004 Only 1 GB are free. (/srv) Make room: a few checkpoints of a large model need more."
    )


@pytest.mark.parametrize("what", list(storage.STEPS))
def test_a_disk_that_lacks_something(tmp_path, monkeypatch, what):
    """Each step refused as the disks do that lack it; no such disk can be mounted in a test."""

    def refused(folder: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setitem(storage.STEPS, what, refused)
    finding = storage.self_test(tmp_path)
    assert said(finding) == (
        f"E-DOC-006 The disk cannot do what a run relies on: {what} (Operation not permitted). ({tmp_path}) "
        "A checkpoint would not survive a power cut, or two processes could hold one run. "
        "Keep your runs on a local disk: --runs_folder DIR"
    )
    assert (finding.exit_code, list(tmp_path.iterdir())) == (8, [])


def test_a_folder_that_cannot_be_written():
    finding = storage.self_test(Path("/proc"))
    assert finding.exit_code == 8
    assert said(finding).startswith(
        "E-DOC-007 The folder of the runs cannot be written: No such file or directory. (/proc)"
    )


def test_what_may_reach_the_network(tmp_path):
    def texts(**variables: str) -> dict[str, str]:
        return {one.name: one.text for one in network.reaches({"HF_HOME": str(tmp_path), **variables})}

    assert texts(HF_HUB_OFFLINE="1")["hub"] == "never contacted: HF_HUB_OFFLINE is set"
    assert texts(HF_ENDPOINT="https://hub.example")["hub"].startswith("https://hub.example: for a base or a data set")
    assert texts(HF_TOKEN="hf_abcdefghij")["login"] == "a token, from HF_TOKEN"
    assert texts()["login"] == "none; closed models and publishing need one: hf auth login"
    (tmp_path / "token").write_text("hf_abcdefghij")
    assert texts()["login"] == "a token, from hf auth login"
    assert texts()["hub"] == (
        "https://huggingface.co: for a base or a data set named OWNER/NAME that is not on this machine, "
        "and by `fusain publish`"
    )
    assert texts(DO_NOT_TRACK="1")["telemetry"] == "none: DO_NOT_TRACK is set"
    assert texts(HF_HUB_DISABLE_TELEMETRY="0")["telemetry"] == (
        "huggingface_hub tells versions and the agent at work with each request: HF_HUB_DISABLE_TELEMETRY asks for it"
    )
    assert texts()["trackers"] == 'W&B with track.wandb = "online"'
    server = texts(MLFLOW_TRACKING_URI="https://runs.example")["trackers"]
    assert server == 'W&B with track.wandb = "online"; MLflow, to MLFLOW_TRACKING_URI'
    space = texts(TRACKIO_SPACE_ID="me/curves", TRACKIO_SERVER_URL="")["trackers"]
    assert space == 'W&B with track.wandb = "online"; trackio, to TRACKIO_SPACE_ID'
    assert texts(https_proxy="http://u:p@proxy")["proxy"] == "set by https_proxy"


def test_a_gpu_that_is_not_used():
    assert device.without_gpu(None, None, has_driver=False).level == "ok"
    assert said(device.without_gpu(None, None, has_driver=True)) == (
        "W-DOC-006 This machine has an NVIDIA driver, but this PyTorch was built with no GPU support: the GPU is not "
        "used. Install the build for it: in a clone of Fusain make clean setup TORCH=default, else pip install "
        "--force-reinstall torch, on Windows with the --index-url that pytorch.org names."
    )
    assert said(device.without_gpu("13.0", None, has_driver=True)) == (
        "W-DOC-007 This machine has an NVIDIA driver, but PyTorch for CUDA 13.0 finds no GPU that it can use. Most "
        "often the driver is older than that CUDA, or the container was started without the GPU. Run nvidia-smi: if it "
        "shows the GPU, update the driver; if not, start the container with --gpus all."
    )


def test_a_check_that_fails_is_a_finding():
    def broken():
        yield Finding("machine", "first", "fine")
        raise ValueError("so broken\nthat it says much")

    first, last = examination.guarded("machine", broken)
    assert (first.text, last.level) == ("fine", "warning")
    assert said(last) == (
        "W-DOC-008 The look at machine failed: ValueError: so broken. "
        "Please report it, with what FUSAIN_DEBUG=1 fusain doctor says."
    )


def test_findings_have_exit_codes():
    assert Finding("disk", "x", "x").exit_code == 0
    assert Finding("versions", "x", "x", {}, Notice("W-DOC-004", free="1 GB")).exit_code == 0
