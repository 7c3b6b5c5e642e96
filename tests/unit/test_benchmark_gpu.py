"""The benchmark for GPUs: its small sizes run here, and without a GPU it says so."""

import re

import pytest
import torch
from benchmarks import gpu


@pytest.mark.prove
@pytest.mark.parametrize("more", [[], ["--channels-last"]])
def test_small_sizes_run_on_a_cpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", "")  # put back afterwards: the benchmark sets its own
    gpu.main(["--small", "--no-compile", "--steps", "1", *more])
    head, _, title, line, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("a CPU, tiny networks, torch ")
    assert title == gpu.HEAD
    assert line.count("|") == title.count("|")
    assert len(rows) == 2 * 2
    for row in rows:
        found = re.fullmatch(
            r"\| Stable Diffusion (1\.x|XL) \| (a LoRA|all weights) \| 32 \| no \| [\d.]+ "
            r"\| ([\d.]+) GB \| ([\d.]+) GB \| [\d.e-]+ \| \d+\.\d\d \|",
            row,
        )
        assert found, row


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit) as caught:
        gpu.main([])
    assert str(caught.value) == (
        "No NVIDIA GPU is usable here, so nothing was measured; --small tries the same on a CPU."
    )


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--help"])
    told = capsys.readouterr().out
    assert "usage: python -m benchmarks.gpu" in told
    assert "Seconds, peak memory, TFLOP/s and their share of what the GPU can" in told
    assert "--small" in told
