"""What is shown while a run goes on: pace, time left, lines for logs."""

from __future__ import annotations

from datetime import datetime

from fusain.cli.progress import Pace, lines, progress, say
from fusain.messages.quantities import precise, span


def run(pace: Pace, steps: int, *, seconds: float = 0.5, start: int = 0, between: float = 0.0) -> None:
    pace.take({"kind": "start", "step": start, "steps": 100, "images_per_step": 32, "time": 1000.0})
    for number in range(1, steps + 1):
        now = 1000.0 + number * (seconds + between)
        pace.take({"kind": "step", "step": start + number, "loss": 1.0, "seconds": seconds, "time": now})


def test_nothing_is_estimated_before_there_is_enough_to_go_by():
    pace = Pace()
    run(pace, 19)
    assert pace.describe() == "loss 1.0000, 64 images/s, estimating…"


def test_time_left_is_the_median_step_and_all_else_as_often_as_so_far():
    pace = Pace()
    run(pace, 20)
    assert pace.remaining == (40.0, 40.0)
    pace.take({"kind": "step", "step": 21, "loss": 1.0, "seconds": 30.0, "time": 1040.0})
    assert pace.remaining == (39.5, 39.5), "one slow step says nothing"
    slow = Pace()
    run(slow, 20, between=0.25)
    assert [round(end, 3) for end in slow.remaining] == [60.0, 60.0]
    assert slow.describe(datetime(2030, 1, 1, 12, 0)) == "loss 1.0000, 64 images/s, 1 min 00 s left, done at 12:01"


def test_what_comes_between_steps_counts_as_often_as_it_is_due():
    """Five held-out losses and two rounds of samples are still to come when it has done the first of each."""
    pace, due = Pace(), {"step": 100, "held_out": 6, "samples": 3, "checkpoint": 2}
    pace.take({"kind": "foreseen", "seconds_each": {"step": 9.0, "samples": 20.0, "checkpoint": 5.0}, "time": 0.0})
    pace.take({"kind": "start", "step": 0, "steps": 100, "images_per_step": 32, "to_come": due, "time": 0.0})
    pace.take({"kind": "held_out", "step": 0, "loss": 1.0, "time": 4.0})
    for step in range(1, 21):
        pace.take({"kind": "step", "step": step, "loss": 1.0, "seconds": 0.5, "time": 4.0 + step * 0.5})
    assert pace.remaining == (40.0 + 5 * 4 + 3 * 20 + 2 * 5,) * 2, "what never was is as the plan foresaw it"
    pace.take({"kind": "samples", "step": 20, "time": 16.0})
    pace.take({"kind": "note", "text": "So.", "time": 17.0})
    pace.take({"kind": "checkpoint", "step": 20, "time": 18.0})
    assert pace.remaining == (40.0 + 5 * 4 + 2 * 2 + 1 * 2,) * 2
    pace.take({"kind": "done", "step": 20, "time": 18.0})
    assert pace.foreseen == {}, "a second training may be without a plan"


def test_time_left_is_a_range_where_steps_differ():
    pace = Pace()
    pace.take({"kind": "start", "step": 0, "steps": 420, "images_per_step": 10, "time": 0.0})
    for step in range(1, 21):
        pace.take({"kind": "step", "step": step, "loss": 1.0, "seconds": 0.5 + 0.5 * (step % 2)})
    assert pace.remaining == (200.0, 400.0)
    assert pace.describe(datetime(2030, 1, 1, 12, 0)) == (
        "loss 1.0000, 13 images/s, 3 min 20 s to 6 min 40 s left, done between 12:03 and 12:06"
    )


def test_a_run_of_one_step_has_no_range():
    pace = Pace()
    pace.take({"kind": "start", "step": 0, "steps": 1, "images_per_step": 2, "time": 0.0})
    pace.take({"kind": "step", "step": 1, "loss": 1.0, "seconds": 0.5, "time": 0.5})
    assert pace.remaining == (0.0, 0.0)


def test_spans_of_time():
    assert (span(60, 89), span(100, 101), span(3600, 9000)) == ("60 s to 89 s", "2 min", "60 min to 2.5 h")


def test_after_a_resume_only_this_session_counts():
    pace = Pace()
    run(pace, 20, start=50, between=0.5)
    assert [round(end, 3) for end in pace.remaining] == [30.0, 30.0]


def test_a_second_training_of_one_command_begins_anew():
    pace = Pace()
    run(pace, 20)
    pace.take({"kind": "start", "step": 0, "steps": 50, "images_per_step": 8, "time": 2000.0})
    pace.take({"kind": "step", "step": 1, "loss": 3.0, "seconds": 2.0, "time": 2002.0})
    assert pace.describe() == "loss 3.0000, 4 images/s, estimating…"


def test_durations():
    assert [precise(seconds) for seconds in (0.4, 59.4, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]


def test_plain_lines_come_every_ten_seconds_and_at_the_end(capsys):
    times = iter([0.0, 1.0, 11.0, 11.5, 12.0])
    report = lines("steps", clock=lambda: next(times))
    report({"kind": "start", "step": 0, "steps": 4, "images_per_step": 2})
    for step in (1, 2, 3, 4):
        report({"kind": "step", "step": step, "loss": 1.0, "seconds": 1.0})
    report({"kind": "held_out", "step": 4, "loss": 0.25})
    assert capsys.readouterr().err.splitlines() == [
        "2 of 4 steps: loss 1.0000, 2 images/s, estimating…",
        "4 of 4 steps: loss 1.0000, 2 images/s, 0 s left, done at " + f"{datetime.now():%H:%M}",
        "Step 4: held-out loss 0.2500",
    ]


def test_words_of_events():
    assert say({"kind": "warning", "code": "E-X-001", "text": "Careful."}) == "Warning: Careful."
    assert say({"kind": "resumed", "step": 1200}) == "Going on from step 1,200."
    assert say({"kind": "note", "text": "So."}) == "So."
    assert say({"kind": "step", "step": 1}) == ""


def test_progress_without_a_terminal_writes_no_control_characters(capsys):
    with progress() as report:
        report({"kind": "start", "step": 0, "steps": 1})
        report({"kind": "step", "step": 1, "loss": 0.5, "seconds": 0.1})
    assert "\x1b" not in capsys.readouterr().err


def test_work_before_the_first_step_is_shown(capsys):
    times = iter([0.0, 1.0, 11.0])
    report = lines("steps", clock=lambda: next(times))
    report({"kind": "indexing", "done": 2_048, "total": 100_000})
    report({"kind": "encoding", "part": "captions", "done": 128, "total": 2_000})
    assert capsys.readouterr().err == "Encoding captions: 128 of 2,000\n"
