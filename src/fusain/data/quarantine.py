"""What happens to images that cannot be used: put aside by name and reason, and refused where they are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fusain.errors import DataError, FusainError

REASONS_SHOWN: Final = 3


@dataclass(frozen=True)
class Quarantined:
    """One image that is put aside, and why."""

    name: str
    code: str
    reason: str

    @classmethod
    def of(cls, fault: FusainError) -> Quarantined:
        return cls(str(fault.facts["name"]), fault.code, fault.message.what)

    def __str__(self) -> str:
        return f"{self.code} {self.reason}"


def refuse_if_too_many(quarantined: Sequence[Quarantined], total: int, most: float) -> None:
    """Some broken files are put aside in silence but for the report; many mean that something else is wrong."""
    shown = "\n".join(f"    {entry}" for entry in quarantined[:REASONS_SHOWN])
    if len(quarantined) == total:
        raise DataError("E-DATA-007", where="data.path", count=f"{total:,}", shown=shown)
    if len(quarantined) > most * total:
        share = f"{len(quarantined) / total:.1%}"
        facts = {"count": f"{len(quarantined):,}", "total": f"{total:,}", "share": share, "most": f"{most:.1%}"}
        raise DataError("E-DATA-006", where="data.max_quarantined", shown=shown, **facts)
