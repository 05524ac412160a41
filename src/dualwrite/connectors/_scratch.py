"""Scratch databases for what a backlog tells: they have no name, and vanish with the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import finalize

from dualwrite.errors import Unavailable


class Scratch:
    """A scratch database, which is made when it is first needed."""

    def __init__(self, script: str) -> None:
        self._script = script
        self._database: sqlite3.Connection | None = None
        self._close: Callable[[], object] = lambda: None

    @property
    def is_open(self) -> bool:
        """Is something in it?"""
        return self._database is not None

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The database; raises Unavailable where it cannot be written."""
        try:
            if self._database is None:
                database = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file without a name
                self._close = finalize(self, database.close)
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("PRAGMA synchronous = OFF")
                database.executescript(self._script)
                database.execute("BEGIN")  # nobody else reads it, and each commit would write
                self._database = database
            yield self._database
        except sqlite3.Error as exc:
            raise Unavailable(f"what the log tells of records cannot be kept ({exc})", "free some disk space") from exc

    def drop(self) -> None:
        """Forget all that is in it, and give the disk space back."""
        self._close()
        self._database = None
