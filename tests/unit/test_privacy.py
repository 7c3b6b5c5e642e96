"""What counts as a path of this machine or a token in what is published, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusain.errors import UnsafeFileError
from fusain.runs import privacy

PATHS = [
    "/home/marie/images",
    "/tmp/x",
    "see /data/faces.",
    "(/mnt/disk/a)",
    '"_name_or_path": "/data/base/unet"',
    "~/images",
    "~marie/images",
    "C:\\Users\\marie",
    "D:/images/x",
    "\\\\server\\share",
]
HARMLESS = [
    "https://huggingface.co/somebody/base",
    "[base](https://huggingface.co/somebody/base)",
    "somebody/base",
    "unet/diffusion_pytorch_model.safetensors",
    "a cat and/or a dog",
    "1/2 and 3/4",
    "image / 2 + 0.5",
    "about ~5 % of ~7/8",
    'f"{folder}/class_embedding.safetensors"',
    "a hat w/o feathers",
    "</w>",
    "16:9",
]


@pytest.mark.parametrize("text", PATHS)
def test_paths_are_seen(text: str) -> None:
    assert privacy.looks_like_a_path(text)
    with pytest.raises(UnsafeFileError):
        privacy.check([("README.md", text)], [])


@pytest.mark.parametrize("text", HARMLESS)
def test_other_words_are_left_alone(text: str) -> None:
    assert not privacy.looks_like_a_path(text)
    privacy.check([("README.md", text)], [Path("images"), Path("/")])


def test_known_places_are_seen_even_in_a_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "marie"))
    privacy.check([("tokenizer/vocab.json", '{"/usr/bin": 1, "~/": 2}')], [tmp_path / "data"])
    for word in (f"x {tmp_path}/data/y", f'"{tmp_path}/marie"'):
        with pytest.raises(UnsafeFileError) as caught:
            privacy.check([("tokenizer/vocab.json", word)], [tmp_path / "data"])
        assert str(tmp_path)[:40] in str(caught.value)


def test_a_long_path_is_shortened_and_a_token_masked() -> None:
    with pytest.raises(UnsafeFileError) as caught:
        privacy.check([("config.json", "/home/" + "x" * 200)], [])
    assert len(caught.value.message.what) < 140
    with pytest.raises(UnsafeFileError) as caught:
        privacy.check([("config.json", "hf_abcdefghijklmnop")], [])
    assert "abcdef" not in str(caught.value)
