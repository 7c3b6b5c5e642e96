"""The most memory that a process held: it sees what is gone again, and forgets when it is told to."""

import pytest
import torch

from fusain.training import peak

CPU = torch.device("cpu")
LARGE = 400_000_000
"""Bytes; far more than what else may come and go meanwhile."""


def test_what_is_gone_again_was_held() -> None:
    before = peak.reached(CPU)
    held = torch.ones(LARGE // 4)
    del held
    assert peak.reached(CPU) > before - 1
    assert peak.reached(CPU) >= LARGE
    assert peak.holder(CPU) == "process"


@pytest.mark.skipif(not peak.OWN_STATUS.exists(), reason="only Linux forgets")
def test_it_is_counted_anew() -> None:
    held = torch.ones(LARGE // 4)
    most = peak.reached(CPU)
    del held
    peak.count_anew()
    assert peak.reached(CPU) < most - LARGE // 2


def test_a_system_without_proc_tells_the_peak_of_all_its_life(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(peak, "OWN_STATUS", tmp_path / "none" / "status")
    monkeypatch.setattr(peak, "FORGET", (tmp_path / "none" / "clear_refs", "5"))
    peak.count_anew()
    assert peak.reached(CPU) > 50_000_000
