"""Which transactions of the log everybody can see.

A commit is in the log, and so with us, some moments before other sessions see it; where it waits for a standby, as long
as that takes.  Whoever compares tables with the log has to know which of both is ahead.
"""

from __future__ import annotations

from typing import Final

from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_session import Connection

_TOP: Final = 1 << 62  # behind every LSN


class Contents:
    """Which transactions a snapshot (as ``pg_current_snapshot`` tells it) contains; ``after`` is an LSN behind it."""

    def __init__(self, snapshot: str, after: int = _TOP) -> None:
        first, last, running = snapshot.split(":")
        self._xmin, self._xmax = int(first), int(last)
        self._running = {int(xid) for xid in running.split(",") if xid}
        self._after = after

    def __call__(self, xid: int, commit: int) -> bool:
        """Is the transaction with this xid, of 32 bits, in the snapshot?"""
        if commit >= self._after:
            return False
        distance = (xid - self._xmax) & 0xFFFFFFFF
        full = self._xmax + (distance - 2**32 if distance >> 31 else distance)
        return full < self._xmin or (full < self._xmax and full not in self._running)


class Visible:
    """How much of a log is visible; what it has let go counts as visible.  For any thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: Place = log.floor

    def since(self, connection: Connection, place: Place) -> Place:
        """A place up to which the session, in autocommit mode, sees everything from now on; at or before ``place``.

        Of the transactions behind it, it may see some and not others: where ``place`` is within one, all of that.
        """
        known = max(self._known, self._log.floor)
        if place > known:
            known = self._moved(connection, known, place)
            self._known = max(self._known, known)  # what one session has seen, all see from then on
        return min(known, place)

    def _moved(self, connection: Connection, known: Place, place: Place) -> Place:
        row = connection.execute("SELECT pg_current_snapshot()").fetchone()
        assert row is not None
        contains = Contents(row[0])
        for done in self._log.transactions(known):
            if done.place > place:
                break
            if not contains(done.transaction.xid, done.transaction.lsn):
                return known
            known = done.place
        if len(place) == 1:
            return place
        around = self._log.within(place)
        is_seen = around is not None and contains(around.xid, around.lsn)
        return place if is_seen else max(known, (place[0], 0))
