"""Each tracker listens to a real run, offline, and its own reader finds the numbers of `events.jsonl` again."""

import getpass
import hashlib
import json
import os
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from fusain.errors import EnvironmentFault, FusainError
from fusain.training.events import current
from tests.runs.faults import EIGHT, SHORT, refused, warnings
from tests.runs.training import assert_equal_runs, kinds, losses, start_training, train_here

CURVES = ("loss", "norm", "rate")
PREFIXES = ("train/", "held_out/")
SAMPLED = SHORT | {"samples.every_steps": 6}
PATIENCE = 600


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take minutes to start what a tracker starts; here the end waits until it has arrived.

    However short steps are, each is a row.
    """
    monkeypatch.setattr("fusain.training.relay.PATIENCE", PATIENCE)
    monkeypatch.setattr("fusain.training.relay.ROW_SECONDS", 0.0)


def told(run: Path) -> dict[tuple[str, int], float]:
    """What a tracker of this run must hold, by curve and step."""
    rows = list(current(run / "events.jsonl"))
    found = {(f"train/{name}", row["step"]): row[name] for row in rows if row["kind"] == "step" for name in CURVES}
    assert len(found) == 3 * 12
    return found | {("held_out/loss", row["step"]): row["loss"] for row in rows if row["kind"] == "held_out"}


def leaks(folder: Path, *more: str) -> list[tuple[str, str]]:
    """The files that hold something of this machine: a path, its name, its user's."""
    words = [str(Path.home()), str(folder.absolute()), f"/{getpass.getuser()}/", *more]
    words += [name for name in (socket.gethostname(),) if len(name) > 4]  # a shorter one is found anywhere
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [(path.name, word) for path in files for word in words if word.encode() in path.read_bytes()]


def test_tensorboard(settings: Path, runs: Path, undisturbed: Path) -> None:
    train_here(settings, "run", runs, SAMPLED | {"track.tensorboard": True})
    reader = tensorboard_of(runs / "run")
    assert curves_of(reader) == pytest.approx(told(runs / "run"), rel=1e-6)
    assert [image.step for image in reader.Images("samples")] == [6, 12]
    (text,) = reader.Tensors("settings/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert "| train.learning_rate | 0.001 |" in table
    assert "data.path" not in table
    assert leaks(runs / "run" / "tensorboard") == []
    assert_equal_runs(undisturbed, runs / "run")


def test_rows_of_short_steps_are_their_means(settings: Path, runs: Path, monkeypatch: Any) -> None:
    """What a tracker is told at most twice a second; the last step is never left out."""
    monkeypatch.setattr("fusain.training.relay.ROW_SECONDS", 600.0)
    train_here(settings, "run", runs, SHORT | {"track.tensorboard": True})
    every = {row["step"]: row for row in current(runs / "run" / "events.jsonl") if row["kind"] == "step"}
    # Checkpoints and held-out losses wait for no row.
    spans = {1: [1], 4: [2, 3, 4], 6: [5, 6], 8: [7, 8], 12: [9, 10, 11, 12]}
    wanted = {("train/rate", last): every[last]["rate"] for last in spans}
    for name in ("loss", "norm"):
        wanted |= {(f"train/{name}", last): fmean(every[step][name] for step in span) for last, span in spans.items()}
    read = {
        place: value
        for place, value in curves_of(tensorboard_of(runs / "run")).items()
        if place[0].startswith("train/")
    }
    assert read == pytest.approx(wanted, rel=1e-6)


def tensorboard_of(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    return reader


def curves_of(reader: Any) -> dict[tuple[str, int], float]:
    return {(tag, row.step): row.value for tag in reader.Tags()["scalars"] for row in reader.Scalars(tag)}


def test_wandb_without_an_account(settings: Path, runs: Path, undisturbed: Path, monkeypatch: Any) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    track = {"track.wandb": "offline", "track.checkpoints": True}
    train_here(settings, "run", runs, SAMPLED | {"train.steps": 8} | track)
    train_here(settings, "run", runs, SAMPLED | track)
    assert warnings(runs / "run") == []
    folders = sorted((runs / "run" / "wandb").glob("offline-run-*"))
    read: dict[tuple[str, int], float] = {}
    ids, images = set(), []
    records = []
    for folder in folders:
        ids.add(folder.name.rsplit("-", 1)[1])
        records += whole_records(folder)
        for record in whole_records(folder):
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = row.pop("_step", -1)
            read |= {(key, step): value for key, value in row.items() if key.startswith(PREFIXES)}
            images += [step] if any(key.startswith("samples") for key in row) else []
    assert read == pytest.approx(told(runs / "run"), rel=1e-9)
    assert images == [6, 8, 12]
    assert len(folders) == 2
    assert len(ids) == 1, "a run that is gone on with is one run there too"
    settings_told = {item.key: item.value_json for record in records for item in record.config.update}
    assert settings_told["train.learning_rate"] == "0.001"
    assert "data.path" not in settings_told
    artifacts = [set(record.artifact.aliases) for record in records if record.HasField("artifact")]
    assert artifacts == [{"latest", row["path"]} for row in kinds(runs / "run", "checkpoint")]
    assert_equal_runs(undisturbed, runs / "run")


def test_wandb_is_told_nothing_of_this_machine(settings: Path, runs: Path, monkeypatch: Any) -> None:
    """Its logs and the list of its own copies of checkpoints hold paths; they stay here when a run is sent."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    from wandb.analytics.opentelemetry import opentelemetry_proxy

    prompt = {"samples.negative": "hf_canarycanary"}
    with pytest.raises(FusainError):
        train_here(settings, "run", runs, EIGHT | {"track.wandb": "offline"} | prompt)
    train_here(settings, "run", runs, EIGHT | {"track.wandb": "offline"})
    (folder,) = (runs / "run" / "wandb").glob("offline-run-*")
    assert whole_records(folder)
    shutil.rmtree(folder / "logs")
    assert opentelemetry_proxy.get_open_telemetry_proxy() is None
    assert leaks(folder, str(runs), "0" * 40, "hf_canary") == []


def whole_records(folder: Path) -> list[Any]:
    """W&B's own process writes the end of the file a little after it has said that all is done."""
    (file,) = folder.glob("*.wandb")
    until = time.monotonic() + PATIENCE
    while True:
        records = list(wandb_records(file))
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < until, "it never came to its end"
        time.sleep(0.05)


def wandb_records(file: Path) -> Iterator[Any]:
    """W&B's own messages, out of the log of blocks that LevelDB writes; its reader is a program that only uploads."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, part = file.read_bytes(), 7, b""
    assert data[:4] in (b":W&B", b"")
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):
            return
        part += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(part)
            part = b""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own calls of SQLAlchemy
def test_mlflow_in_sqlite(settings: Path, runs: Path, undisturbed: Path, monkeypatch: Any) -> None:
    pytest.importorskip("mlflow", reason="the lock has no room for it: make trackers")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track = {"track.mlflow": True, "track.checkpoints": True, "track.project": "faces"}
    train_here(settings, "run", runs, SAMPLED | {"train.steps": 8} | track)
    train_here(settings, "run", runs, SAMPLED | track)
    assert warnings(runs / "run") == []
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("faces")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["train.learning_rate"] == "0.001"
    assert "data.path" not in found.data.params
    assert found.data.tags["mlflow.user"] == "private"
    read = {
        (key, row.step): row.value
        for key in found.data.metrics
        for row in client.get_metric_history(found.info.run_id, key)
    }
    assert read == pytest.approx(told(runs / "run"), rel=1e-9)
    files = {item.path for folder in ("samples", "checkpoints") for item in client.list_artifacts(
        found.info.run_id, folder)}  # fmt: skip
    assert {"samples/step-00000006", "samples/step-00000012", "checkpoints/step-00000012"} <= files
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert_equal_runs(undisturbed, runs / "run")


def test_trackio_in_its_own_folder(settings: Path, runs: Path, undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="the lock has no room for it: make trackers")
    track = {"track.trackio": True, "track.checkpoints": True, "track.project": "faces"}
    for steps in (8, 12):
        child = start_training(
            settings, "run", runs, SAMPLED | {"train.steps": steps} | track,
            prepare=its_folder_is, arguments=(tmp_path / "trackio",),
        )  # fmt: skip
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert warnings(runs / "run") == []
    rows, its_settings, checkpoints = read_trackio(tmp_path / "trackio")
    read = {(key, step): value for step, row in rows for key, value in row.items() if key.startswith(PREFIXES)}
    assert read == pytest.approx(told(runs / "run"), rel=1e-9)
    assert [step for step, row in rows if "samples" in row] == [6, 8, 12]
    assert its_settings["train.learning_rate"] == 0.001
    assert "data.path" not in its_settings
    assert list(checkpoints) == [row["path"] for row in kinds(runs / "run", "checkpoint")]
    last = runs / "run" / "checkpoints" / "step-00000012"
    assert checkpoints[last.name] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in last.iterdir()
    }
    assert_equal_runs(undisturbed, runs / "run")


def its_folder_is(folder: Path) -> None:
    from fusain.training import relay

    relay.PATIENCE, relay.ROW_SECONDS = PATIENCE, 0.0  # another process than that of the fixture
    os.environ["TRACKIO_DIR"] = str(folder)


def read_trackio(folder: Path) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, Any], dict[str, dict[str, str]]]:
    """Rows and settings of its one run, and the files of each checkpoint with what their content hashes to."""
    import trackio.sqlite_storage as storage
    from trackio import Api

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "TRACKIO_DIR", folder)
        (run,) = Api().runs("faces")
        reader = storage.SQLiteStorage
        rows = [(row["step"], row) for row in reader.get_logs("faces", run.name)]
        (artifact,) = reader.list_artifacts("faces")
        assert (artifact["name"], artifact["type"]) == (run.name, "model")
        files = {}
        for version in reversed(artifact["versions"]):
            kept = reader.get_artifact_manifest("faces", run.name, f"v{version['version']}")
            (alias,) = set(kept["aliases"]) - {"latest"}
            files[alias] = {entry["path"]: entry["digest"].rpartition(":")[2] for entry in kept["manifest"]}
        return rows, run.config, files


@pytest.mark.parametrize(
    ("changes", "name", "extra", "key"),
    [
        ({"track.tensorboard": True}, "TensorBoard", "track", "track.tensorboard"),
        ({"track.wandb": "offline"}, "W&B", "track", "track.wandb"),
        ({"track.mlflow": True}, "MLflow", "mlflow", "track.mlflow"),
        ({"track.trackio": True}, "trackio", "trackio", "track.trackio"),
    ],
)
def test_one_that_is_not_installed_is_told_before_any_work(
    settings: Path, runs: Path, monkeypatch: Any, changes: dict[str, Any], name: str, extra: str, key: str
) -> None:
    monkeypatch.setattr("fusain.training.tracker.importlib.util.find_spec", lambda package: None)
    fault = refused(settings, runs, changes)
    assert isinstance(fault, EnvironmentFault)
    assert str(fault) == (
        f"E-ENV-006 {name} is not installed.\nWhere: {key}\n"
        f"Do: pip install 'fusain[{extra}]', or do without it: --{key} {'off' if name == 'W&B' else 'false'}."
    )
    assert not (runs / "run" / "settings.json").exists()


def test_one_that_raises_on_every_call_is_dropped(
    settings: Path, runs: Path, undisturbed: Path, monkeypatch: Any
) -> None:
    """F29, and a network that goes down while a tracker sends (F27)."""
    from accelerate.tracking import TensorBoardTracker

    def raises(self: Any, values: Any, step: int) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(TensorBoardTracker, "log", raises)
    train_here(settings, "run", runs, SHORT | {"track.tensorboard": True})
    told = ("W-TRACK-001", "TensorBoard failed (no route to host) and is left out from here on.")
    assert warnings(runs / "run") == [told]
    assert_equal_runs(undisturbed, runs / "run")


def test_one_that_blocks_is_dropped_and_training_goes_on(
    settings: Path, runs: Path, undisturbed: Path, monkeypatch: Any
) -> None:
    """F29: it never comes back, and all twelve steps are done while it holds its first call; 0.1 s are the end's."""
    import threading

    from accelerate.tracking import TensorBoardTracker

    never, asked = threading.Event(), []

    def blocks(self: Any, values: Any, step: int) -> None:
        asked.append(step)
        never.wait()

    monkeypatch.setattr(TensorBoardTracker, "log", blocks)
    monkeypatch.setattr("fusain.training.relay.PATIENCE", 0.6)
    try:
        train_here(settings, "run", runs, SHORT | {"track.tensorboard": True})
    finally:
        never.set()
    assert len(asked) == 1
    assert len(losses(runs / "run")) == 12
    (warning,) = warnings(runs / "run")
    assert warning in [
        ("W-TRACK-001", f"TensorBoard failed ({why}) and is left out from here on.")
        for why in ("no answer for 0.6 s", "no answer for 0.1 s")
    ]
    assert_equal_runs(undisturbed, runs / "run")


def test_settings_without_a_tracker_that_reads_them_are_told(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, EIGHT | {"track.checkpoints": True})
    assert [row["text"] for row in kinds(runs / "run", "warning") if "track.checkpoints" in row["text"]] == [
        "W-CFG-002 'track.checkpoints' has no effect in this run: "
        "only W&B, MLflow and trackio read it, and none is chosen. (--track.checkpoints)"
    ]
