"""An SQLite file for tests: an application that writes plain SQL, and a connector that watches it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dualwrite.connectors.sqlite import SqliteConnector, open_sqlite
from dualwrite.declared import Declared
from dualwrite.model import Change, Key, Outcome, Position, Row, Side, Write
from dualwrite.schema import Lookup, View
from dualwrite.testing.example import drain


def view(table: str, *paths: str, key: int = 1, lookups: Sequence[Lookup] = (), name: str = "") -> View:
    """A view on dotted paths, all of them written; the first ``key`` cells are its key."""
    split = tuple(tuple(path.split(".")) for path in paths)
    return View(name or table, table, split, tuple(range(key)), tuple(lookups), written=tuple(range(len(paths))))


class Laboratory:
    """A database file: ``app`` is the application's connection in autocommit mode."""

    def __init__(self, folder: Path, script: str, *, link: str = "lab", declared: Declared | None = None) -> None:
        """Create the file with a script of SQL."""
        self.path = folder / "lab.db"
        self.declared = declared
        self.link = link
        self._connectors: list[SqliteConnector] = []
        self.app = self.application()
        self.app.executescript(script)
        self.connector = self.connect()
        self._read: Position | None = None

    def application(self) -> sqlite3.Connection:
        """Another connection of the application."""
        return sqlite3.connect(self.path, isolation_level=None, timeout=20)

    def connect(self) -> SqliteConnector:
        """Another connector, as after a restart."""
        connector = open_sqlite(f"sqlite:///{self.path}", link=self.link, side=Side.LEFT, declared=self.declared)
        self._connectors.append(connector)
        return connector

    def install(self, *views: View) -> None:
        """Capture for these views; ``changes`` are those from now on."""
        self.views = views
        self.connector.install(views)
        self._read = self.connector.end()

    def changes(self) -> list[Change]:
        """What has come out of the feed since the last call."""
        feed = self.connector.feed(self.views, self._read)
        try:
            batches = drain(feed, self.connector.end())
        finally:
            feed.close()
        self._read = batches[-1].position
        return [change for batch in batches for change in batch.changes]

    def told(self) -> list[tuple[str, Row | None, Row | None]]:
        """The same, as kind, before and after."""
        return [(str(change.kind), change.before, change.after) for change in self.changes()]

    def write(self, view: View, *writes: Write, position: Position | None = None) -> list[Outcome]:
        """One transaction of ours."""
        with self.connector.transaction("flow", self.views) as transaction:
            outcomes = transaction.write(view, writes)
            transaction.commit(position)
        return outcomes

    def rows(self, view: View) -> list[Row]:
        """What a snapshot shows, sorted."""
        with self.connector.snapshot(view) as snapshot:
            return sorted((row for block in snapshot.blocks() for row in block), key=repr)

    def fetch(self, view: View, *key: str | None) -> list[Row]:
        """The rows of one key."""
        wanted: Key = key
        return self.connector.fetch(view, [wanted]).get(wanted, [])

    def objects(self) -> list[str]:
        """What links have left in the database."""
        rows = self.app.execute("SELECT name FROM sqlite_master WHERE name LIKE 'dualwrite%' ORDER BY name")
        return [row[0] for row in rows]

    def close(self) -> None:
        """Close everything."""
        for connector in self._connectors:
            connector.close()
        self.app.close()
