"""One thing that was looked at: what was found, and the message where it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fusain.errors import EnvironmentFault, FusainError, SettingsError, StorageError
from fusain.settings.notice import Notice


@dataclass(frozen=True)
class Finding:
    """`text` is for people; `facts` are the same as plain values."""

    area: str
    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    notice: Notice | None = None

    @property
    def level(self) -> Literal["ok", "warning", "fault"]:
        """A fault keeps Fusain, or a part of it, from working; a warning does not."""
        if self.notice is None:
            return "ok"
        return "fault" if self.notice.code.startswith("E") else "warning"

    @property
    def exit_code(self) -> int:
        """What the process ends with for this finding."""
        if self.level != "fault":
            return 0
        of_area: dict[str, type[FusainError]] = {"disk": StorageError, "settings": SettingsError}
        return of_area.get(self.area, EnvironmentFault).exit_code

    def as_json(self) -> dict[str, Any]:
        """The form that `--format json` shows."""
        found = {"area": self.area, "name": self.name, "level": self.level, "text": self.text, "facts": self.facts}
        return found | ({"message": self.notice.as_json()} if self.notice else {})
