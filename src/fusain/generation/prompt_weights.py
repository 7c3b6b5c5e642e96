"""What of a prompt other tools would read as weights, such as `(red hat:1.3)`: here it is read as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from fusain.settings.notice import Notice

LONGEST_SHOWN: Final = 60
_WORD: Final = r"[^\W\d_]:(?:[0-2]?\.\d+|[0-2])"
"""The end of a word and a small number, without a space: neither a ratio (16:9) nor a time (10:30)."""
_WEIGHTS: Final = re.compile(
    rf"""
      (?<!\\)\([^()]*{_WORD}\s*(?:\)|(?=,)|$)    # (red hat:1.3), closed or not
    | [^\W\d_]{{1,60}}:[0-2]?\.\d+\s*\)           # hat:1.3), which nothing opens, or other brackets stand before it
    | (?<![\\:;(])\(\(+\s*[^\W_][^()]*\)*        # ((red hat)); after a colon that is a sad face
    | \[[^\[\]]*{_WORD}\s*\]                     # [red hat:0.5]
    | \[\[+\s*[^\W_][^\[\]]*\]*                  # [[red hat]]
    """,
    re.VERBOSE,
)


def notices(prompts: Iterable[str], *, where: str) -> Iterator[Notice]:
    """One for each prompt that weights a part of itself as A1111 and ComfyUI have it, its brackets fitting or not."""
    for prompt in dict.fromkeys(prompts):
        found = _WEIGHTS.search(prompt)
        if found:
            shown = found.group().strip()
            shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN].rstrip()}…"
            yield Notice("W-GEN-001", where=where, shown=shown)
