"""Ends the learning of the text encoders after so many steps, while the rest goes on."""

from __future__ import annotations

from fusain.models.family import Family


class EncoderStop:
    """What learns of a text encoder, its own weights or layers beside them, is left as it is from a step on."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        """After which step; None never stops."""
        self.stopped_at: int | None = None

    def in_time(self, family: Family, step: int) -> str | None:
        """Called after each step; a sentence when it stopped."""
        if self.last is None or self.stopped_at is not None or step < self.last:
            return None
        self.stop(family, step)
        return f"the text encoder learns no more from step {step} on"

    def stop(self, family: Family, step: int) -> None:
        self.stopped_at = step
        for encoder in family.text_encoders().values():
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
