"""How often each part of a training comes, counted as the loop does it."""

from __future__ import annotations

import pytest

from fusain.training.course import Plan, Spent


def plan(steps: int, *, checkpoint: int = 10, held_out: int = 4, samples: int = 0, snapshots: tuple[int, ...] = ()):
    return Plan(
        steps,
        steps_per_epoch=5.0,
        checkpoint_every=checkpoint,
        held_out_every=held_out,
        sample_every=samples,
        snapshots=frozenset(snapshots),
    )


@pytest.mark.parametrize("step", [0, 1, 4, 7, 10, 22, 23])
@pytest.mark.parametrize("snapshots", [(), (3, 10, 23), (5, 6)])
@pytest.mark.parametrize("samples", [0, 1, 7, 100])
def test_what_is_to_come_is_what_the_loop_will_do(step: int, snapshots: tuple[int, ...], samples: int) -> None:
    given = plan(23, samples=samples, snapshots=snapshots)
    left = range(step + 1, 24)
    assert given.to_come(step) == {
        "step": len(left),
        "held_out": sum(given.is_due(one, 4) for one in left) + (step == 0),
        "samples": sum(given.is_due(one, samples) for one in left),
        "checkpoint": sum(given.is_due(one, 10) or one in snapshots for one in left),
    }


def test_at_its_end_nothing_is_to_come() -> None:
    assert set(plan(20, samples=3, snapshots=(5,)).to_come(20).values()) == {0}
    assert set(plan(20, samples=3).to_come(25).values()) == {0}


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    spent = Spent()
    spent.take({"kind": "start", "step": 0, "time": 1000.0})
    spent.take({"kind": "step", "step": 1, "seconds": 2.0, "time": 1002.0})
    spent.take({"kind": "held_out", "step": 1, "time": 500.0})
    spent.take({"kind": "checkpoint", "step": 1, "time": 503.0})
    assert spent.seconds == {"step": 2.0, "rest": 0.0, "held_out": 0.0, "checkpoint": 3.0}
    assert (spent.each("checkpoint"), spent.each("samples")) == (3.0, None)
