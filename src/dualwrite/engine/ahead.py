"""Reads a feed one batch ahead: while the target writes a batch, the next one is decoded in a thread of its own.

Not earlier: Python runs one thread at a time, so decoding would only keep up whoever prepares what is to be written.
Only a feed that has just delivered a good deal is read ahead, and never waited for there: a quiet one is read by
whoever asks, at once.  What was read ahead and not asked for is read again from its position after the next opening.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from dualwrite.connectors.base import Feed
from dualwrite.model import Batch

WORTH_IT = 50
"""Changes in a batch from which on the next one is read ahead; of fewer, another thread costs more than it brings."""


class Ahead:
    """A ``Feed`` over another one, which nobody else may use; to be read by one thread at a time."""

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed = feed
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"ahead {name}")
        self._next: Future[Batch] | None = None
        self._limit = 0

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``; what reading ahead has met is raised here."""
        ready, self._next = self._next, None
        batch = None if ready is None else ready.result()
        if batch is None or not (batch.changes or batch.halts):
            batch = self._feed.read(limit, timeout)
        self._limit = limit if len(batch.changes) >= WORTH_IT else 0
        return batch

    def go_on(self) -> None:
        """Read the next batch, where that is worth it: whoever reads has to wait for something else now."""
        if self._limit:
            self._next, self._limit = self._reader.submit(self._feed.read, self._limit, 0.0), 0

    def close(self) -> None:
        """See ``Feed``."""
        self._next, self._limit = None, 0
        self._reader.shutdown(cancel_futures=True)
        self._feed.close()
