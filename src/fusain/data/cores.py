"""Work on many small pieces, spread over all cores by forked processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


def spread(work: Callable[..., Result], pieces: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """What `work` makes of each piece, in order; here where there is one core, or where nothing can be forked."""
    done = 0
    if len(pieces) > 1 and usable_cores() > 1 and "fork" in multiprocessing.get_all_start_methods():
        with _pool() as pool:
            try:
                for found in pool.map(work, *zip(*pieces, strict=True)):
                    done += 1
                    yield found
            except BrokenProcessPool:
                pass  # one was killed, mostly for memory: what is left is done here, one piece at a time
    for piece in pieces[done:]:
        yield work(*piece)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    """A process a core. They are forked: a fresh interpreter would run the user's script once more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        pool = ProcessPoolExecutor(
            usable_cores(), mp_context=multiprocessing.get_context("fork"), initializer=_be_quiet
        )
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _be_quiet() -> None:
    """Ctrl-C is answered by the parent alone, and a request to stop ends this process at once."""
    gc.freeze()  # else the first collection would write to, and so copy, all memory shared with the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
