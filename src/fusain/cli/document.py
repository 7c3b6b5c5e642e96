"""Writes what is made from the schema and the catalogue (`make docs`): described.json and the reference pages.

`python -m fusain.cli.document` writes; with `--check` it changes nothing and fails where a file is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path


def documents(repository: Path) -> dict[Path, str]:
    """Each made file with the text that it should have."""
    from fusain.cli.faults import EXIT_CODES
    from fusain.runs.settings import RunSettings
    from fusain.settings import described
    from fusain.settings.describe import as_json, describe, errors_page, settings_page

    description = describe(RunSettings)
    reference = repository / "docs" / "reference"
    return {
        described.FILE: as_json(description),
        reference / "settings.md": settings_page(description),
        reference / "errors.md": errors_page(EXIT_CODES),
    }


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
