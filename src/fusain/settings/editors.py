"""The JSON Schema in the package as editors meet it: a file beside the settings file, which names it in a comment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parent / "settings.schema.json"
NAME: Final = "fusain.schema.json"
TITLE: Final = "A settings file of Fusain"
COMMENT: Final = f"#:schema ./{NAME}"
"""What Taplo and the editors that use it read; a path beside the file is right on every machine."""


def text() -> str:
    """What `make docs` made of the settings."""
    return FILE.read_text(encoding="utf-8")


def put_beside(settings_file: Path) -> bool:
    """Write the schema beside a settings file, unless something else has its name."""
    path = settings_file.parent / NAME
    if path.exists() and not is_beside(settings_file):
        return False
    path.write_text(text(), encoding="utf-8")
    return True


def is_beside(settings_file: Path) -> bool:
    """Whether the schema lies beside a settings file."""
    try:
        stored = json.loads((settings_file.parent / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and stored.get("title") == TITLE
