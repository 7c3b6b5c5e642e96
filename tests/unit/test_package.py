"""The wheel that users install: it carries every file of the package, with the bytes that stand here."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = {
    "py.typed",
    "messages/en.toml",
    "recipes/text-to-image.toml",
    "settings/described.json",
    "settings/settings.schema.json",
    "models/bases/configs/sd1.json",
    "runs/doctor/tested.json",
    "evaluation/page.py",
    "worlds/mini/drawing.toml",
    "worlds/mini/face-reader.safetensors",
    *(f"worlds/mini/{name}/unet/diffusion_pytorch_model.safetensors" for name in ("mini-sd", "mini-sdxl")),
    *(f"worlds/mini/{name}/tokenizer/tokenizer.json" for name in ("mini-sd", "mini-sdxl")),
}
"""One of each kind of file that is read when it runs: were they missing from the folder too, nobody would see it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    words = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(out), str(source)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_carries_the_whole_package(wheel: Path) -> None:
    package = ROOT / "src" / "fusain"
    here = {
        path.relative_to(package).as_posix(): path
        for path in package.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts[len(ROOT.parts) :])
    }
    assert set(here) >= NEEDED
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.removeprefix("fusain/") for name in archive.namelist() if name.startswith("fusain/")}
        assert (sorted(set(here) - inside), sorted(inside - set(here))) == ([], [])
        changed = [name for name, path in here.items() if archive.read(f"fusain/{name}") != path.read_bytes()]
        assert changed == []
        (about,) = {name.partition("/")[0] for name in archive.namelist() if not name.startswith("fusain/")}
        assert "fusain = fusain.cli.main:main" in archive.read(f"{about}/entry_points.txt").decode()
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
