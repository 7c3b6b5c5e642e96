"""Every fault that Fusain tells a user about, as one tree; the words live in `messages/`, by code.

FusainError                    exit code
├── UsageError                 2   the command line itself is wrong
├── SettingsError              3   a settings file or a setting is wrong
├── DataError                  4   the images, labels or captions are wrong
├── EnvironmentFault           5   the machine lacks something (device, precision, an extra)
├── MemoryFault                6   the device or the machine ran out of memory
├── NonFiniteError             7   a loss or a gradient is not a number
├── StorageError               8   a disk, a checkpoint or a run folder is at fault
├── NetworkFault               9   the network, the hub, or the permission to use it
└── UnsafeFileError            10  a file was refused because it could do harm

Stopping on request is no fault and has exit codes of its own: 75 (asked through the API), 130 (Ctrl-C), 143 (SIGTERM).
"""

from __future__ import annotations

from typing import Any, ClassVar

from fusain.messages import render


class FusainError(Exception):
    """A fault with a code; `what`, `where`, `why` and `do` are sentences of the message catalogue, filled in."""

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, *, where: str = "", **facts: Any) -> None:
        self.code = code
        self.where = where
        self.facts = facts
        self.message = render(code, facts)
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"{self.code} {self.message.what}"]
        parts += [
            f"{name}: {text}"
            for name, text in (("Where", self.where), ("Why", self.message.why), ("Do", self.message.do))
            if text
        ]
        return "\n".join(parts)

    def as_json(self) -> dict[str, str]:
        """The form that `--format json` and the web page show."""
        return {
            "code": self.code,
            "message": self.message.what,
            "where": self.where,
            "why": self.message.why,
            "hint": self.message.do,
        }


class UsageError(FusainError):
    exit_code = 2


class SettingsError(FusainError):
    """One or several faults of the settings, reported together."""

    exit_code = 3

    def __init__(self, code: str, *, where: str = "", also: tuple[FusainError, ...] = (), **facts: Any) -> None:
        self.also = also
        super().__init__(code, where=where, **facts)

    def __str__(self) -> str:
        return "\n\n".join([super().__str__(), *(str(fault) for fault in self.also)])

    @classmethod
    def together(cls, faults: list[FusainError]) -> SettingsError:
        """All `faults` as one error: the first one carries the others."""
        first, *others = faults
        return cls(first.code, where=first.where, also=tuple(others), **first.facts)


class DataError(FusainError):
    exit_code = 4


class EnvironmentFault(FusainError):
    exit_code = 5


class MemoryFault(FusainError):
    exit_code = 6


class NonFiniteError(FusainError):
    exit_code = 7


class StorageError(FusainError):
    exit_code = 8


class NetworkFault(FusainError):
    exit_code = 9


class UnsafeFileError(FusainError):
    exit_code = 10
