"""A run that ends copies its weights where the user's own settings want them."""

from __future__ import annotations

from safetensors.torch import load_file

from tests.runs.training import train_here


def test_the_end_of_a_run_copies_its_weights(tmp_path, settings, runs, monkeypatch):
    (tmp_path / "settings.toml").write_text(f'weights_folder = "{tmp_path / "finished"}"\n')
    monkeypatch.setenv("FUSAIN_CONFIG", str(tmp_path))
    heard: list[dict] = []
    result = train_here(settings, "first", runs, {"train.steps": 2}, report=heard.append)
    assert result.step == 2
    copied = tmp_path / "finished" / "first"
    assert f"The weights were copied to {copied}." in [event["text"] for event in heard if event["kind"] == "note"]
    files = sorted(path.relative_to(copied) for path in copied.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(result.folder / "weights") for path in (result.folder / "weights").rglob("*") if path.is_file()
    )
    weights = next(path for path in copied.rglob("*.safetensors"))
    assert load_file(weights)
