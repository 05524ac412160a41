"""How far a link's slot may be confirmed, as its own database remembers it.

PostgreSQL does not tell a slot from another one of the same name, and anybody may advance one; what it has passed over
is sent to nobody.  So nothing is confirmed that ``meta`` does not allow, and a slot that is further on was not brought
there by us.

Allowed is a little more than what is confirmed, so that not each confirmation is written, and exactly that from the end
of a stream on.  Only behind a process that was killed is the rest left, within which nothing is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

import psycopg

from dualwrite.connectors._pg_capture import ADVANCED, REMEDY
from dualwrite.connectors._pg_installed import ALLOWED, Names, set_meta
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.errors import DualwriteError, PositionLost

AHEAD: Final = 16 << 20
"""Bytes of the server's log that are allowed at once."""
_EXAMINE: Final = """
    SELECT (SELECT value FROM {meta} WHERE name = $1), confirmed_flush_lsn - '0/0'::pg_lsn
    FROM pg_replication_slots WHERE slot_name = $2"""


class Allowance:
    """That of one link, for one stream after the other."""

    def __init__(self, database: Database, names: Names) -> None:
        self._database = database
        self._names = names
        self._allowed: int | None = None  # as we know it
        self._confirmed = 0

    def examine(self) -> None:
        """Raises PositionLost where the slot, which is ours alone by now, is further on than we have brought it."""
        sql = _EXAMINE.format(meta=self._names.table("meta"))
        with self._session() as session:
            row = session.execute(sql.encode(), [ALLOWED, self._names.slot]).fetchone()
        assert row is not None
        allowed, confirmed = None if row[0] is None else int(row[0]), int(row[1])
        # what we said last is what holds: nobody else has had the slot since, unless it is another one
        limit = self._confirmed if allowed is not None and allowed == self._allowed else allowed
        if limit is None:
            self._allow(confirmed)
        elif confirmed > limit:
            self._allow(limit)
            raise PositionLost(f"{self._database.shown}: {ADVANCED}, so changes may have been missed", REMEDY)
        else:
            self._allowed = allowed
        self._confirmed = confirmed

    def cover(self, lsn: int) -> None:
        """To be called before the slot is confirmed up to here."""
        if self._allowed is None or lsn > self._allowed:
            self._allow(lsn + AHEAD)
        self._confirmed = max(self._confirmed, lsn)

    def settle(self) -> None:
        """Nothing is confirmed any more by this process."""
        with suppress(DualwriteError, psycopg.Error):  # it knows how far it came, as long as it lives
            if self._allowed is not None and self._confirmed < self._allowed:
                self._allow(self._confirmed)

    def _allow(self, lsn: int) -> None:
        with self._session() as session:
            session.execute(set_meta(self._names, ALLOWED, str(lsn)).encode())
        self._allowed = lsn

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        with closing(self._database.connect()) as session, self._database.errors():
            session.execute("SET synchronous_commit = 'local'")  # it must outlive a crash, and not wait for ourselves
            yield session
