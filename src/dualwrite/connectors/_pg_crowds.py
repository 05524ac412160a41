"""Rows of tables that may be very many: a few of them are in memory, more on disk."""

from __future__ import annotations

import pickle
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_events import Identity, Image
from dualwrite.connectors._pg_wire import Image as Raw
from dualwrite.connectors._scratch import Scratch
from dualwrite.lined import weight
from dualwrite.model import Value

RowKey: TypeAlias = Image
"""What tells the rows of a table apart: the primary key, else all columns that matter."""

HELD: Final = 2_000
"""Rows in memory."""
LARGEST: Final = 4 << 20
"""Characters of them: rows may be large."""
_COUNTED: Final = 1_000
_CROWD: Final = "CREATE TABLE crowd (key BLOB PRIMARY KEY, image BLOB) WITHOUT ROWID"
_FOLDS: Final = """
    CREATE TABLE fold (tab TEXT, key BLOB, n INTEGER, fold BLOB, PRIMARY KEY (tab, key)) WITHOUT ROWID;
    CREATE INDEX folds_in_order ON fold (n)"""
_LATER: Final = """
    CREATE TABLE event (key BLOB, lsn INTEGER, n INTEGER, image BLOB, PRIMARY KEY (key, lsn, n)) WITHOUT ROWID;
    CREATE TABLE latest (key BLOB PRIMARY KEY, image BLOB) WITHOUT ROWID;
    CREATE TABLE referring (name TEXT, held BLOB, key BLOB, PRIMARY KEY (name, held, key)) WITHOUT ROWID"""


def sortable(key: Sequence[object]) -> bytes:
    """A key as bytes that come in one order, whatever its members are."""
    return b"".join([b"\2" + cell.encode() + b"\0" if isinstance(cell, str) else b"\1" for cell in key])


class Crowd:
    """Rows of one table, each once, in the order of their keys."""

    def __init__(self) -> None:
        self._held: dict[bytes, Image] = {}
        self._weight = 0
        self._scratch = Scratch(_CROWD)

    def put(self, key: RowKey, image: Image) -> None:
        """Add a row, or say what it is instead."""
        self._held[sortable(key)] = image
        self._weight += weight([image])
        if len(self._held) > HELD or self._weight > LARGEST:
            self._spill()

    def discard(self, key: RowKey) -> None:
        """Leave a row out."""
        if self._scratch.is_open:
            self._spill()
            with self._scratch.database() as database:
                database.execute("DELETE FROM crowd WHERE key = ?", (sortable(key),))
        else:
            self._held.pop(sortable(key), None)

    def _spill(self) -> None:
        with self._scratch.database() as database:
            rows = [(key, pickle.dumps(image)) for key, image in self._held.items()]
            database.executemany("INSERT OR REPLACE INTO crowd VALUES (?, ?)", rows)
        self._held.clear()
        self._weight = 0

    def __iter__(self) -> Iterator[Image]:
        if not self._scratch.is_open:
            yield from [self._held[key] for key in sorted(self._held)]
            return
        self._spill()
        with self._scratch.database() as database:
            for (image,) in database.execute("SELECT image FROM crowd ORDER BY key"):
                yield pickle.loads(image)

    def __bool__(self) -> bool:
        return bool(self._held) or self._scratch.is_open


@dataclass(slots=True)
class Fold:
    """What became of one record in a transaction of ours, by its ``n``-th entry at last; of the shape with that
    ``version``.  ``keys`` are all that it had, the latest first.
    """

    n: int
    version: int
    keys: tuple[tuple[Value, ...], ...]
    first: Raw | None
    last: Raw | None


class Folds:
    """What became of records in a transaction of ours, by table and key; they come in the order of their entries.

    A single delete of ours may have taken a whole table along.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, bytes], Fold] = {}
        self._weight = 0
        self._scratch = Scratch(_FOLDS)

    def pop(self, table: str, key: Sequence[Value]) -> Fold | None:
        """Take out what became of the record that has this key by now."""
        about = (table, sortable(key))
        found = self._held.pop(about, None)
        if found is None and self._scratch.is_open:
            with self._scratch.database() as database:
                taken = "DELETE FROM fold WHERE tab = ? AND key = ? RETURNING fold"
                for (fold,) in database.execute(taken, about).fetchall():
                    found = pickle.loads(fold)
        return found

    def put(self, table: str, key: Sequence[Value], fold: Fold) -> None:
        """Keep what became of a record; nothing else is kept under its key."""
        self._held[table, sortable(key)] = fold
        self._weight += weight([row for row in (fold.first, fold.last) if row is not None])
        if len(self._held) > HELD or self._weight > LARGEST:
            self._spill()

    def _spill(self) -> None:
        with self._scratch.database() as database:
            rows = [(*about, fold.n, pickle.dumps(fold)) for about, fold in self._held.items()]
            database.executemany("INSERT OR REPLACE INTO fold VALUES (?, ?, ?, ?)", rows)
        self._held.clear()
        self._weight = 0

    def __iter__(self) -> Iterator[Fold]:
        if not self._scratch.is_open:
            yield from sorted(self._held.values(), key=lambda fold: fold.n)
            return
        self._spill()
        with self._scratch.database() as database:
            for (fold,) in database.execute("SELECT fold FROM fold ORDER BY n"):
                yield pickle.loads(fold)


class Later:
    """What the log tells of a table's rows behind a place, found by a row's key and by what rows referred to."""

    def __init__(self, place: Place) -> None:
        self.scanned = place
        """How far the log was read."""
        self._count = 0
        self._marks: list[Place] = []  # the place of every so many events
        self._pending: list[tuple[bytes, Place, Image | None, Image | None]] = []
        self._weight = 0
        self._identities: dict[str, Callable[[Image], Identity | None]] = {}
        self._scratch = Scratch(_LATER)

    def refer(self, name: str, identity: Callable[[Image], Identity | None]) -> None:
        """From now on rows are asked for by what this reference of theirs holds."""
        if name in self._identities:
            return
        self._flush()  # what is there so far is not known by it
        if self._count:
            with self._scratch.database() as database:
                images = "SELECT key, image FROM event UNION ALL SELECT key, image FROM latest"
                for key, image in database.execute(images):
                    self._note(database, name, identity, key, pickle.loads(image))
        self._identities[name] = identity

    def add(self, key: RowKey, place: Place, image: Image | None, becomes: Image | None) -> None:
        """A row was ``image`` up to a place, and is something else from there on; places come in their order."""
        self._pending.append((sortable(key), place, image, becomes))
        self._weight += weight([row for row in (image, becomes) if row is not None])
        if self._count % _COUNTED == 0:
            self._marks.append(place)
        self._count += 1
        if len(self._pending) >= HELD or self._weight > LARGEST:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        with self._scratch.database() as database:
            for key, (lsn, n), image, becomes in self._pending:
                database.execute("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?)", (key, lsn, n, pickle.dumps(image)))
                database.execute("INSERT OR REPLACE INTO latest VALUES (?, ?)", (key, pickle.dumps(becomes)))
                for name, identity in self._identities.items():
                    for one in (image, becomes):
                        self._note(database, name, identity, key, one)
        self._pending.clear()
        self._weight = 0

    @staticmethod
    def _note(
        database: sqlite3.Connection,
        name: str,
        identity: Callable[[Image], Identity | None],
        key: bytes,
        image: Image | None,
    ) -> None:
        held = None if image is None else identity(image)
        if held is not None:
            database.execute("INSERT OR IGNORE INTO referring VALUES (?, ?, ?)", (name, sortable(held), key))

    def __bool__(self) -> bool:
        return bool(self._count)

    def knows(self, key: RowKey) -> bool:
        """Does the log tell of the row?"""
        self._flush()
        with self._scratch.database() as database:
            found = database.execute("SELECT 1 FROM latest WHERE key = ?", (sortable(key),)).fetchone()
        return found is not None

    def referring(self, name: str, held: Identity, place: Place) -> Iterator[Image]:
        """What those rows of which the log tells were at a place that referred to a record at some time."""
        self._flush()
        lsn, n = place if len(place) > 1 else (place[0], -1)
        with self._scratch.database() as database:
            keys = database.execute("SELECT key FROM referring WHERE name = ? AND held = ?", (name, sortable(held)))
            for (key,) in keys:
                following = "SELECT image FROM event WHERE key = ? AND (lsn, n) > (?, ?) ORDER BY lsn, n LIMIT 1"
                found = database.execute(following, (key, lsn, n)).fetchone()
                found = found or database.execute("SELECT image FROM latest WHERE key = ?", (key,)).fetchone()
                image = pickle.loads(found[0])
                if image is not None:
                    yield image

    def is_over(self, place: Place, kept: int) -> bool:
        """Has a reader at this place passed all of it, or so much that what is left is better read again?  Never where
        it is less than ``kept`` events."""
        passed = bisect_right(self._marks, place) * _COUNTED
        return self.scanned <= place or (self._count > kept and 2 * passed > self._count)

    def drop(self) -> None:
        """Forget all of it."""
        self._scratch.drop()
