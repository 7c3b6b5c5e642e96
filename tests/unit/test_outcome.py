"""What a run took against what was foreseen: steps that count, sessions, pauses, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusain.runs import outcome
from fusain.runs.folder import RunFolder

PLAN = {
    "planned": 1,
    "seconds_each": {"step": 10.0, "held_out": 4.0, "samples": 20.0, "checkpoint": 2.0},
    "seconds_at_first": {},
    "seconds_per_step_range": [9.0, 12.5],
    "memory": 800_000_000,
}


def run(folder: Path, rows: list[dict[str, Any]], plan: dict[str, Any] | None = None) -> RunFolder:
    found = RunFolder(folder)
    found.events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if plan:
        found.foreseen.write_text(json.dumps(plan))
    return found


def session(
    first: int, last: int, *, at: float, seconds: float = 10.0, between: float = 0.0, **more: Any
) -> list[dict[str, Any]]:
    """A start and its steps, each `between` after the one before it was done."""
    steps = [
        {"kind": "step", "step": step, "seconds": seconds, "time": at + number * (seconds + between), **more}
        for number, step in enumerate(range(first, last + 1), 1)
    ]
    return [{"kind": "start", "step": first - 1, "time": at}, *steps]


def told(run: RunFolder) -> list[str]:
    return [f"{title}: {text}" for title, text in outcome.of(run).lines()]


def test_a_run_that_was_planned(tmp_path: Path) -> None:
    rows = [*session(1, 30, at=0, seconds=11), {"kind": "took", "memory": 880_000_000, "holder": "process"}]
    planned = run(tmp_path, rows, PLAN)
    assert told(planned) == [
        "Time: 5 min 30 s for 30 steps and all between them, 1.10 times the 5 min 00 s foreseen by the plan "
        "(4 min 30 s to 6 min 15 s)",
        "Memory: 880 MB of the whole process at the peak, 1.10 times the 800 MB foreseen by the plan",
    ]
    assert json.loads(json.dumps(outcome.of(planned).as_json())) == {
        "steps": 30,
        "seconds": 330.0,
        "seconds_compared": 330.0,
        "seconds_foreseen": 300.0,
        "seconds_foreseen_range": [270.0, 375.0],
        "seconds_ratio": pytest.approx(1.1),
        "parts": {
            "step": {"times": 30, "seconds": 330.0, "seconds_foreseen": 300.0},
            "rest": {"seconds": 0.0, "seconds_foreseen": None},
        },
        "memory": 880_000_000,
        "memory_of": "process",
        "memory_foreseen": 800_000_000,
        "memory_ratio": pytest.approx(1.1),
        "read_back": None,
    }


def test_the_whole_time_is_compared(tmp_path: Path) -> None:
    """With held-out losses, samples and checkpoints, and what the first of each take longer."""
    rows = [{"kind": "start", "step": 0, "time": 0.0}, {"kind": "held_out", "step": 0, "time": 5.0}]
    rows += session(1, 10, at=5)[1:]
    rows += [{"kind": "held_out", "step": 10, "time": 110.0}, {"kind": "samples", "step": 10, "time": 135.0}]
    rows += [{"kind": "checkpoint", "step": 10, "time": 138.0}, {"kind": "done", "step": 10, "time": 140.0}]
    planned = run(tmp_path, rows, PLAN | {"seconds_at_first": {"step": 5.0, "samples": 2.0}})
    assert told(planned) == [
        "Time: 2 min 20 s for 10 steps and all between them, 1.02 times the 2 min 17 s foreseen by the plan "
        "(2 min 07 s to 2 min 42 s)",
        "Of it: 1 min 40 s for steps (1 min 45 s foreseen), 10 s for held-out losses (8 s foreseen), "
        "25 s for samples (22 s foreseen), 3 s for checkpoints (2 s foreseen), 2 s for the rest",
    ]
    assert outcome.of(planned).seconds_foreseen == 10 * 10 + 7 + 2 * 4 + 20 + 2


def test_what_was_not_foreseen_is_no_part_of_the_ratio(tmp_path: Path) -> None:
    """Samples are drawn in another way than was planned."""
    each = {part: seconds for part, seconds in PLAN["seconds_each"].items() if part != "samples"}
    rows = [*session(1, 10, at=0, seconds=11), {"kind": "samples", "step": 10, "time": 150.0}]
    planned = run(tmp_path, rows, PLAN | {"seconds_each": each})
    assert told(planned) == [
        "Time: 2 min 30 s for 10 steps and all between them; without samples 1.10 times the 1 min 40 s "
        "foreseen by the plan (1 min 30 s to 2 min 05 s)",
        "Of it: 1 min 50 s for steps (1 min 40 s foreseen), 40 s for samples",
    ]
    assert outcome.of(planned).as_json()["seconds_compared"] == 110.0


def test_pauses_count_nothing_and_what_was_done_twice_counts_once(tmp_path: Path) -> None:
    """Stopped after ten steps, killed after five more of which two are done again, and gone on with to the end."""
    rows = session(1, 10, at=0, between=1)
    rows += [{"kind": "checkpoint", "step": 10, "time": 112.0}, {"kind": "stopped", "step": 10, "time": 112.0}]
    rows += [{"kind": "took", "memory": 700_000_000, "holder": "process", "time": 115.0}]
    rows += [{"kind": "resumed", "step": 10, "time": 9_000.0}, *session(11, 13, at=9_010)]
    rows += session(14, 15, at=9_040, superseded=True)[1:]
    rows += [{"kind": "held_out", "step": 15, "superseded": True, "time": 9_099.0}]
    rows += [{"kind": "note", "text": "taken over", "time": 50_000.0}, *session(14, 20, at=50_010)]
    rows += [{"kind": "held_out", "step": 20, "time": 50_083.0}, {"kind": "done", "step": 20, "time": 50_085.0}]
    rows += [{"kind": "took", "memory": 600_000_000, "holder": "process", "time": 50_090.0}]
    assert told(run(tmp_path, rows, PLAN | {"seconds_at_first": {"step": 1.0}})) == [
        "Time: 3 min 37 s for 20 steps and all between them, 1.04 times the 3 min 29 s foreseen by the plan "
        "(3 min 09 s to 4 min 19 s)",
        "Of it: 3 min 20 s for steps (3 min 23 s foreseen), 3 s for held-out losses (4 s foreseen), "
        "2 s for checkpoints (2 s foreseen), 12 s for the rest",
        "Memory: 700 MB of the whole process at the peak, 0.88 times the 800 MB foreseen by the plan",
    ]


def test_a_stop_before_the_loop_began_counts_nothing(tmp_path: Path) -> None:
    """Killed after ten steps; the next day class images are to be drawn anew, and that is stopped."""
    rows = session(1, 10, at=0)
    rows += [{"kind": "class_images", "done": 0, "total": 4, "time": 90_000.0}]
    rows += [{"kind": "stopped", "step": 10, "time": 90_060.0}]
    assert told(run(tmp_path, rows, PLAN)) == [
        "Time: 1 min 40 s for 10 steps and all between them, 1.00 times the 1 min 40 s foreseen by the plan "
        "(1 min 30 s to 2 min 05 s)"
    ]


def test_of_a_run_that_nobody_planned_only_what_was_is_told(tmp_path: Path) -> None:
    rows = session(1, 20, at=0, seconds=11)
    rows.append({"kind": "took", "memory": 4_000_000_000, "holder": "device"})
    assert told(run(tmp_path, rows)) == [
        "Time: 3 min 40 s for 20 steps and all between them",
        "Memory: 4 GB of the GPU at the peak",
    ]
    found = outcome.of(RunFolder(tmp_path)).as_json()
    assert (found["seconds_foreseen"], found["seconds_ratio"], found["memory_ratio"]) == (None, None, None)


@pytest.mark.parametrize(
    "plan",
    [
        *("{", "[]", '{"seconds_per_step": 1}', '{"seconds_per_step_range": 3, "memory": 1}'),
        json.dumps(PLAN | {"seconds_each": [1, 2]}),
        json.dumps(PLAN | {"seconds_each": {"samples": 2.0}}),
        json.dumps(PLAN | {"seconds_per_step_range": ["a", "b"]}),
    ],
)
def test_a_plan_that_cannot_be_read_foresaw_nothing(tmp_path: Path, plan: str) -> None:
    found = run(tmp_path, session(1, 3, at=0, seconds=1))
    found.foreseen.write_text(plan)
    assert told(found) == ["Time: 3 s for 3 steps and all between them"]


def test_a_run_without_a_step_has_nothing_to_tell(tmp_path: Path) -> None:
    found = run(
        tmp_path, [{"kind": "start", "step": 0, "steps": 5}, {"kind": "held_out", "step": 0, "loss": 0.5}], PLAN
    )
    assert told(found) == []
    assert outcome.of(found).as_json()["seconds_ratio"] is None
    assert told(RunFolder(tmp_path / "none")) == []
