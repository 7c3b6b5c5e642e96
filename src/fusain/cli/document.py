"""Writes what is made from the schema and the catalogue (`make docs`): JSON in the package, and the reference pages.

`python -m fusain.cli.document` writes; with `--check` it changes nothing and fails where a file is out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def documents(repository: Path) -> dict[Path, str]:
    """Each made file with the text that it should have."""
    from fusain.cli.faults import EXIT_CODES
    from fusain.runs.doctor import versions
    from fusain.runs.settings import RunSettings
    from fusain.settings import described, editors, json_schema
    from fusain.settings.describe import as_json, describe, errors_page, settings_page
    from fusain.settings.user import UserSettings

    description = describe(RunSettings, UserSettings)
    reference = repository / "docs" / "reference"
    return {
        described.FILE: as_json(description),
        editors.FILE: json_schema.as_text(RunSettings),
        versions.FILE: json.dumps(tested_versions(repository), indent=1) + "\n",
        reference / "settings.md": settings_page(description),
        reference / "errors.md": errors_page(EXIT_CODES),
    }


def tested_versions(repository: Path) -> dict[str, Any]:
    """What pyproject.toml asks for and requirements.lock holds; the comment behind an extra says what it gives."""
    import tomlkit

    project: Any = tomlkit.parse((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (repository / "requirements.lock").read_text(encoding="utf-8").splitlines()
    extras = project["optional-dependencies"]
    return {
        "python": [limit.lstrip("<>=") for limit in project["requires-python"].split(",")],
        "needs": dict(_floor(text) for text in project["dependencies"]),
        "extras": {
            name: {"gives": packages.trivia.comment.lstrip("# "), "packages": dict(_floor(text) for text in packages)}
            for name, packages in extras.items()
        },
        "tested": dict(line.split("==") for line in lock if "==" in line),
    }


def _floor(requirement: str) -> tuple[str, str]:
    """A package, and the first of its versions that will do ('0' where any does)."""
    name, _, rest = requirement.partition(";")[0].partition(">=")
    return name.strip().replace("_", "-"), rest.partition(",")[0].strip() or "0"


def main() -> int:
    """Write or check all made files; 1 when one was out of date."""
    check = "--check" in sys.argv[1:]
    stale = 0
    for path, text in documents(Path.cwd()).items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = 1
        print(f"{'out of date' if check else 'written'}: {path}", file=sys.stderr)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(main())
