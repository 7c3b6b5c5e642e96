"""What a user should know though nothing is wrong: a code, its words from the catalogue, and where."""

from __future__ import annotations

from typing import Any

from fusain.messages import render


class Notice:
    """A warning; it reads and is stored like a fault but stops nothing."""

    def __init__(self, code: str, *, where: str = "", **facts: Any) -> None:
        self.code = code
        self.where = where
        self.message = render(code, facts)

    def __str__(self) -> str:
        sentences = (self.message.what, self.where and f"({self.where})", self.message.why, self.message.do)
        return " ".join([self.code, *(text for text in sentences if text)])

    def __repr__(self) -> str:
        return f"Notice({str(self)!r})"

    def as_json(self) -> dict[str, str]:
        """The form that `--format json` shows."""
        message = self.message
        return {
            "code": self.code,
            "message": message.what,
            "where": self.where,
            "why": message.why,
            "hint": message.do,
        }
