"""What stands between a run and a tracker: bounded, patient for a while, never in the way."""

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fusain.runs import tracking
from fusain.training import relay
from fusain.training.events import EventLog
from fusain.training.relay import Relay, Unresponsive
from fusain.training.tracker import Place, Tracker

START = {"kind": "start", "step": 0}


class Gate(Tracker):
    """A place that takes nothing before its gate is opened."""

    kind: ClassVar[str] = "gate"
    name: ClassVar[str] = "Gate"
    package: ClassVar[str] = "json"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.is_open, self.is_closed = threading.Event(), threading.Event()
        self.heard: list[Any] = []

    def open(self) -> Any:
        return self

    def start(self) -> None:
        self.is_open.wait()

    def describe(self, settings: Mapping[str, Any]) -> None:
        self.heard.append(dict(settings))

    def log(self, values: dict[str, float], step: int) -> None:
        self.heard.append((step, values))

    def samples(self, sheet: Path, step: int) -> None:
        self.heard.append((step, sheet.read_text()))

    def checkpoint(self, folder: Path, step: int) -> None:
        self.heard.append((step, (folder / "state.json").read_text()))

    def close(self) -> None:
        self.is_closed.set()


def step(number: int) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": 0.5, "norm": 1.0, "rate": 0.1}


def while_busy(listener: Relay) -> None:
    """Events, until the listener is tired of a call that does not come back."""
    while True:
        listener(step(1))


def curves() -> dict[str, float]:
    return {"train/loss": 0.5, "train/norm": 1.0, "train/rate": 0.1}


@pytest.fixture
def row_for_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short steps are, each is a row."""
    monkeypatch.setattr(relay, "ROW_SECONDS", 0.0)


@pytest.mark.usefixtures("row_for_row")
def test_all_events_arrive_in_their_order(tmp_path: Path) -> None:
    sheet = tmp_path / "samples" / "step-1" / "sheet.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_text("drawn")
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, lambda: {"train.steps": 2})
    for event in (START, step(1), {"kind": "samples", "step": 1, "path": "samples/step-1"}, step(2)):
        listener(event)
    listener({"kind": "warning", "code": "W-TRAIN-001", "text": "nothing for it"})
    gate.is_open.set()
    assert list(listener.finish()) == []
    assert gate.heard == [{"train.steps": 2}, (1, curves()), (1, "drawn"), (2, curves())]
    assert gate.is_closed.is_set()


def test_a_row_of_short_steps_is_their_mean(tmp_path: Path, monkeypatch: Any) -> None:
    """Half a second apart at least; what is not a step waits for none, and the last steps are not lost."""
    clock = Clock()
    monkeypatch.setattr(relay, "time", clock)
    gate = Gate(Place(tmp_path, "run"))
    gate.is_open.set()
    listener = Relay(gate, dict, patience=60)
    listener(START)
    for number in range(1, 31):
        clock.now = number / 16
        listener({"kind": "step", "step": number, "loss": float(number), "norm": number / 2, "rate": number / 4})
        if number == 11:
            listener({"kind": "warning", "code": "W-TRAIN-001", "text": "nothing for it"})
            listener({"kind": "held_out", "step": 11, "loss": 7.0})
    assert list(listener.finish()) == []
    rows = {step: values for step, values in gate.heard[1:] if "train/loss" in values}
    ends = [1, 9, 11, 19, 27, 30]
    assert list(rows) == ends
    for first, last in itertools.pairwise([0, *ends]):
        mean = (first + 1 + last) / 2
        assert rows[last] == {"train/loss": mean, "train/norm": mean / 2, "train/rate": last / 4}
    assert gate.heard[4] == (11, {"held_out/loss": 7.0})


@pytest.mark.usefixtures("row_for_row")
def test_what_finds_no_room_is_left_out_and_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(relay, "ROOM", 5)
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, dict)
    for event in (START, *map(step, range(1, 1001))):
        listener(event)
    gate.is_open.set()
    (notice,) = listener.finish()
    arrived = len(gate.heard) - 1
    assert arrived in (4, 5)
    assert str(notice) == (
        f"W-TRACK-002 Gate was slower than the training: {1000 - arrived} of the rows and files did not arrive there. "
        "events.jsonl has all rows."
    )


def test_a_checkpoint_that_gave_way_to_a_newer_one_is_left_out_and_counted(tmp_path: Path) -> None:
    gate = Gate(Place(tmp_path, "run", checkpoints=True))
    listener = Relay(gate, dict)
    gate.is_open.set()
    for event in (START, {"kind": "checkpoint", "step": 4, "path": "step-00000004"}, step(5)):
        listener(event)
    (notice,) = listener.finish()
    assert notice.message.what == (
        "Gate was slower than the training: 1 of the rows and files did not arrive there. events.jsonl has all rows."
    )
    assert gate.heard == [{}, (5, curves())]


def test_a_call_that_does_not_come_back_is_raised_at_a_later_event(tmp_path: Path, monkeypatch: Any) -> None:
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, dict, patience=0.01)
    listener(START)
    with pytest.raises(Unresponsive, match=r"^no answer for 0\.01 s$"):
        while_busy(listener)
    gate.is_open.set()


class Stuck(Gate):
    """A place that opens, and then does not come back from the first row."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.is_asked = threading.Event()

    def start(self) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        self.is_asked.set()
        self.is_open.wait()


class Clock:
    """A clock that is set by hand, so that a wait which should not be would never end."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_end_waits_for_a_while_only(tmp_path: Path) -> None:
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, dict, patience=0.05)
    listener(START)
    with pytest.raises(Unresponsive, match=r"^(no answer for 0\.05 s|not done 0\.05 s after the end)$"):
        list(listener.finish())
    gate.is_open.set()


def test_a_row_that_is_stuck_gets_little_time_at_the_end(tmp_path: Path) -> None:
    """F29, by the real clock: a short run does not end a whole patience late."""
    stuck = Stuck(Place(tmp_path, "run"))
    listener = Relay(stuck, dict, patience=0.6)
    listener(START)
    listener(step(1))
    stuck.is_asked.wait()
    with pytest.raises(Unresponsive, match=r"^no answer for 0\.1 s$"):
        list(listener.finish())
    stuck.is_open.set()


def test_a_row_that_was_stuck_before_the_end_is_not_waited_for_again(tmp_path: Path, monkeypatch: Any) -> None:
    clock = Clock()
    monkeypatch.setattr(relay, "time", clock)
    stuck = Stuck(Place(tmp_path, "run"))
    listener = Relay(stuck, dict, patience=60)
    listener(START)
    listener(step(1))
    stuck.is_asked.wait()
    clock.now = 10.5
    with pytest.raises(Unresponsive, match=r"^no answer for 10 s$"):
        list(listener.finish())
    stuck.is_open.set()


def test_what_opens_slowly_keeps_its_time_at_the_end(tmp_path: Path, monkeypatch: Any) -> None:
    """Some start a server or make a data base; a short run waits for that, and no longer than a long one."""
    clock = Clock()
    monkeypatch.setattr(relay, "time", clock)
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, dict, patience=60)
    listener(START)
    clock.now = 59.0
    gate.is_open.set()
    assert list(listener.finish()) == []
    assert gate.is_closed.is_set()


def test_trackers_end_beside_each_other(tmp_path: Path) -> None:
    """One that waits for the other would find it closing already: all are told before one is waited for."""
    first, second = Gate(Place(tmp_path, "run")), Gate(Place(tmp_path, "run"))
    first.close = second.is_closed.wait  # type: ignore[method-assign,assignment]
    log = EventLog(tmp_path / "events.jsonl", (Relay(first, dict, patience=60), Relay(second, dict, patience=60)))
    log("start", step=0)
    first.is_open.set()
    second.is_open.set()
    log.close()
    assert "warning" not in (tmp_path / "events.jsonl").read_text()


def test_a_run_that_never_starts_opens_nothing(tmp_path: Path) -> None:
    gate = Gate(Place(tmp_path, "run"))
    listener = Relay(gate, dict)
    listener({"kind": "note", "text": "Already at step 9"})
    assert list(listener.finish()) == []
    assert gate.heard == []


def test_the_same_run_is_known_by_the_same_id(tmp_path: Path) -> None:
    place = Place(tmp_path, "run")
    first = place.id
    place.remember("mlflow", "abc")
    assert (Place(tmp_path, "run").id, Place(tmp_path, "run").remembered("mlflow")) == (first, "abc")


def test_all_trackers_have_their_setting() -> None:
    from fusain.training.tracker import TrackSettings

    assert sorted(tracking.TRACKERS) == ["mlflow", "tensorboard", "trackio", "wandb"]
    assert set(tracking.TRACKERS) <= set(TrackSettings.model_fields)
