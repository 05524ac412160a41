"""Rows on disk: what is too many to be held in memory while two tables are compared.

Most of it is scratch: files in the temporary folder that vanish with the process.  A ``Spool`` may be given a file that
outlives it: each block says how long it is and what it adds up to, so what was not written whole is noticed.
"""

from __future__ import annotations

import json
import marshal
import sqlite3
import struct
import tempfile
import threading
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, TypeAlias

from dualwrite.lined import LARGEST, PIECE, Lined, joined, weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Change, Key, Kind, Position, Row, Side

Entry: TypeAlias = tuple[Key, Row]
_NO_ROWS: Sequence[Row] = ()
BLOCK = 500
IN_MEMORY = 20_000
"""Rows of a table that are kept in memory before its partitions go to disk."""
PARTITIONS = 64
LARGEST_PART = 4 * LARGEST
"""Bytes on disk up to which a part is taken back into memory as a whole."""
DEEPEST = 3
"""How often a part that is larger is cut up: what is larger still, after that, has one key."""


def _plain(row: Row) -> tuple[str | bool | None, ...]:
    return tuple(False if cell is ABSENT else cell for cell in row) if ABSENT in row else row  # type: ignore[return-value]


def _row(plain: tuple[str | bool | None, ...]) -> Row:
    return tuple(ABSENT if cell is False else cell for cell in plain) if False in plain else plain  # type: ignore[return-value,misc]


def _text(key: Key) -> str:
    """A key to look for; ``marshal`` would not do, as it may write equal values in several ways."""
    return json.dumps(key)


def _key(text: str) -> Key:
    return tuple(json.loads(text))


def scratch(owner: object) -> IO[bytes]:
    """A file that vanishes when it is closed, at the latest with its owner."""
    file = tempfile.TemporaryFile(prefix="dualwrite-")  # noqa: SIM115 (its owner closes it)
    weakref.finalize(owner, file.close)
    return file


def scratch_database(owner: object) -> sqlite3.Connection:
    """The same as a database."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    weakref.finalize(owner, database.close)
    return database


_HEAD = struct.Struct(">QII")
"""Before each block: its bytes, their sum, its rows."""
FORMAT = 3
"""The number of the blocks' format."""


def write_rows(file: IO[bytes], beside: Sequence[Any], rows: Sequence[Row]) -> int:
    """Append a block: rows, and something beside each (or beside all of them); returns how many bytes it has."""
    text = b""  # of lines, which stands behind the rest: so it is copied nowhere but into the file
    if isinstance(rows, Lined):
        text = rows.text
        packed = marshal.dumps((None, list(beside), (len(text), rows.width, rows.cells)))
    else:
        try:
            packed = marshal.dumps((False, list(beside), list(rows)))
        except ValueError:  # marshal does not know ABSENT
            packed = marshal.dumps((True, list(beside), [_plain(row) for row in rows]))
    size = len(packed) + len(text)
    file.write(_HEAD.pack(size, zlib.crc32(text, zlib.crc32(packed)), len(rows)) + packed)
    file.write(text)
    return _HEAD.size + size


def _unpacked_rows(packed: bytes) -> tuple[list[Any], Sequence[Row]]:
    is_plain, beside, rows = marshal.loads(packed)
    if is_plain is None:
        size, width, cells = rows
        return beside, Lined(packed[len(packed) - size :].splitlines(keepends=True), width, cells)
    return beside, [_row(plain) for plain in rows] if is_plain else rows


def _read_packed(file: IO[bytes]) -> tuple[int, bytes] | None:
    """The next block and how many rows it has; None at the end, or where it is not whole."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    size, checksum, count = _HEAD.unpack(head)
    packed = file.read(size)
    return (count, packed) if len(packed) == size and zlib.crc32(packed) == checksum else None


def read_rows(file: IO[bytes]) -> tuple[list[Any], Sequence[Row]] | None:
    """The next block: what is beside its rows, and these; None at the end, or where it is not whole."""
    found = _read_packed(file)
    return None if found is None else _unpacked_rows(found[1])


class Partitioned:
    """The rows of one side, cut by the hash of their keys so that one part fits into memory (see ``parts_of``)."""

    def __init__(self, depth: int = 0) -> None:
        """``depth``: how often the rows have been cut up already."""
        self.depth = depth
        self._divisor = PARTITIONS**depth
        self._parts: list[list[Entry]] = [[] for _ in range(PARTITIONS)]
        self._files: list[IO[bytes] | None] = [None] * PARTITIONS
        self._held = 0
        self._weight = 0
        self._spilling = False

    def add(self, keys: Sequence[Key], rows: Sequence[Row]) -> None:
        """Put rows into their parts."""
        parts, divisor = self._parts, self._divisor
        for entry in zip(keys, rows, strict=True):
            parts[hash(entry[0]) // divisor % PARTITIONS].append(entry)
        self._held += len(keys)
        self._weight += weight(rows)
        if self._held > IN_MEMORY:
            self._spilling = True
        if self._weight > LARGEST:
            self._spill_from(1)
            self._weight = 0
        elif self._spilling:
            self._spill_from(BLOCK)

    def _spill_from(self, count: int) -> None:
        """Move the parts to disk that have so many rows in memory."""
        for index, part in enumerate(self._parts):
            if len(part) >= count:
                self._spill(index)

    def _spill(self, index: int) -> None:
        part = self._parts[index]
        file = self._files[index]
        if file is None:
            file = self._files[index] = scratch(self)
        keys, rows = zip(*part, strict=True)
        self._weight = max(0, self._weight - write_rows(file, keys, rows))
        self._held -= len(part)
        part.clear()

    def size(self, index: int) -> int:
        """How many bytes of a part are on disk."""
        file = self._files[index]
        return 0 if file is None else file.tell()

    def part(self, index: int) -> list[Entry]:
        """The rows of one part; to be read once."""
        return [entry for entries in self._read(index) for entry in entries]

    def cut(self, index: int) -> Partitioned:
        """The same, cut up once more."""
        finer = Partitioned(self.depth + 1)
        for entries in self._read(index):
            finer.add(*zip(*entries, strict=True))
        return finer

    def _read(self, index: int) -> Iterator[list[Entry]]:
        file, left = self._files[index], self._parts[index]
        self._files[index], self._parts[index] = None, []
        if file is not None:
            with file:
                file.seek(0)
                while block := read_rows(file):
                    yield list(zip(*block, strict=True))
        if left:
            yield left


def parts_of(*several: Partitioned) -> Iterator[tuple[list[Entry], ...]]:
    """The rows of several, part by part, so that those with the same key come together; to be read once."""
    for index in range(PARTITIONS):
        if sum(each.size(index) for each in several) > LARGEST_PART and several[0].depth < DEEPEST:
            yield from parts_of(*[each.cut(index) for each in several])
        else:
            yield tuple([each.part(index) for each in several])


def _packed(change: Change) -> bytes:
    images = [None if row is None else _plain(row) for row in (change.before, change.after)]
    places = [None if at is None else (at.feed, at.place) for at in (change.position, change.seen)]
    return marshal.dumps((change.view, change.kind.value, change.key, *images, change.at, *places, change.mark))


def _unpacked(packed: bytes) -> Change:
    view, kind, key, before, after, at, position, seen, mark = marshal.loads(packed)
    return Change(
        view,
        Kind(kind),
        key,
        None if before is None else _row(before),
        None if after is None else _row(after),
        at,
        Position(*position),
        None if seen is None else Position(*seen),
        mark,
    )


MANY = 100
"""A record with so many changes on disk is held as it was found: it is asked for again with every batch."""
REMEMBERED = 8 << 20
"""Bytes of changes that are held so, as they are on disk."""


class Overflow:
    """Changes of records, oldest first, when there are too many of them to be held in memory."""

    def __init__(self) -> None:
        self._database = scratch_database(self)
        self._database.execute(
            "CREATE TABLE old (number INTEGER PRIMARY KEY, map TEXT, key TEXT, place BLOB, change BLOB)"
        )
        self._database.execute("CREATE INDEX old_record ON old (map, key)")
        self._count = 0
        self._found: dict[tuple[str, Key], tuple[list[Change], int]] = {}  # with their bytes on disk
        self._held = 0

    def __len__(self) -> int:
        return self._count

    def add(self, entries: Sequence[tuple[str, Key, Change]]) -> None:
        """Append changes, each with the record under which it is looked for."""
        rows = [
            (map_name, _text(key), marshal.dumps((change.position.feed, change.position.place)), _packed(change))
            for map_name, key, change in entries
        ]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO old (map, key, place, change) VALUES (?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")
        self._count += len(rows)
        for (map_name, key, _), row in zip(entries, rows, strict=True):
            held = self._found.get((map_name, key))
            if held is not None:
                held[0].append(_unpacked(row[3]))
                self._remember((map_name, key), held[0], held[1] + len(row[3]))

    def find(self, map_name: str, key: Key) -> Sequence[Change]:
        """The changes of a record."""
        held = self._found.get((map_name, key))
        if held is not None:
            return held[0]
        query = "SELECT change FROM old WHERE map = ? AND key = ? ORDER BY number"
        size, found = 0, []
        for (packed,) in self._database.execute(query, (map_name, _text(key))):
            size += len(packed)
            found.append(_unpacked(packed))
        self._remember((map_name, key), found, size)
        return found

    def _remember(self, record: tuple[str, Key], changes: list[Change], size: int) -> None:
        """Hold the changes of a record, where they are worth it and there is room."""
        self._held -= self._found.pop(record, ((), 0))[1]
        if len(changes) >= MANY and self._held + size <= REMEMBERED:
            self._found[record] = changes, size
            self._held += size

    def _forget(self, until: Position) -> None:
        """Of the changes that are held, those up to a position are not on disk any more."""
        for record, (changes, size) in list(self._found.items()):
            gone = bisect_right(changes, until, key=lambda change: change.position)
            if gone:
                self._remember(record, changes[gone:], size * (len(changes) - gone) // len(changes))

    def _unremember(self) -> None:
        """What is on disk has changed."""
        self._found.clear()
        self._held = 0

    def oldest(self) -> Position | None:
        """The position of the first change."""
        found = self._database.execute("SELECT place FROM old ORDER BY number LIMIT 1").fetchone()
        return None if found is None else Position(*marshal.loads(found[0]))

    def take(
        self, until: Position, keep: Callable[[str, Key], bool] | None
    ) -> tuple[list[tuple[str, Key, Change]], bool]:
        """Remove a block of the changes up to a position; gives those of records that are to be kept, and whether that
        was all."""
        kept: list[tuple[str, Key, Change]] = []
        execute = self._database.execute
        rows = execute("SELECT number, map, key, place FROM old ORDER BY number LIMIT ?", (BLOCK,)).fetchall()
        gone = [row[:3] for row in rows if Position(*marshal.loads(row[3])) <= until]
        for number, name, text in gone:
            if keep is not None and keep(name, key := _key(text)):
                packed = execute("SELECT change FROM old WHERE number = ?", (number,)).fetchone()[0]
                kept.append((name, key, _unpacked(packed)))
        if gone:
            execute("DELETE FROM old WHERE number <= ?", (gone[-1][0],))
            self._count -= len(gone)
        is_all = len(gone) < BLOCK
        if is_all:
            self._forget(until)
        return kept, is_all

    def pass_over(self, is_elsewhere: Callable[[str, Position], bool]) -> None:
        """Remove the first changes as long as they are kept elsewhere."""
        while self._count:
            rows = self._database.execute("SELECT number, map, place FROM old ORDER BY number LIMIT ?", (BLOCK,))
            gone = list(takewhile(lambda row: is_elsewhere(row[1], Position(*marshal.loads(row[2]))), rows.fetchall()))
            if gone:
                self._database.execute("DELETE FROM old WHERE number <= ?", (gone[-1][0],))
                self._count -= len(gone)
                self._unremember()
            if len(gone) < BLOCK:
                return

    def drop(self, map_name: str) -> None:
        """Forget a map."""
        self._unremember()
        self._count -= self._database.execute("DELETE FROM old WHERE map = ?", (map_name,)).rowcount


def in_chunks(
    blocks: Iterable[tuple[list[bool], Sequence[Row]]], size: Callable[[], int], largest: int = LARGEST
) -> Iterator[tuple[list[bool], Sequence[Row]]]:
    """The same in chunks of as many rows as are asked for each of them, or fewer large ones."""
    inserts, rows, room = list[bool](), _NO_ROWS, largest
    for more_inserts, more_rows in blocks:
        inserts, rows, room = inserts + more_inserts, joined(rows, more_rows), room - weight(more_rows)
        while rows and (len(rows) >= (most := size()) or room <= 0):
            yield inserts[:most], rows[:most]
            inserts, rows, room = inserts[most:], rows[most:], largest
    if rows:
        yield inserts, rows


@dataclass(frozen=True, slots=True)
class Weak:
    """Weak changes that follow one another, without an object for each: nearly all of them are simply inserted.

    ``start`` is the number of the first one, ``inserts`` tells which of them are inserts; the others are updates.
    """

    spool: Spool
    start: int
    inserts: Sequence[bool]
    rows: Sequence[Row]

    @property
    def compiled(self) -> CompiledMap:
        """Their map."""
        return self.spool.compiled

    @property
    def last(self) -> Position:
        """The position of the last one."""
        return self.spool.place(self.start + len(self.rows) - 1)

    def change(self, index: int) -> Change:
        """One of them."""
        return self.spool.change(self.start + index, self.inserts[index], self.rows[index])


class Spool:
    """The weak changes that an initial sync of one map carries out of one side, in the order in which it does.

    They are numbered from 1.  One thread may append by ``passing`` while another one asks ``find``.
    """

    def __init__(self, compiled: CompiledMap, side: Side, file: IO[bytes] | None = None) -> None:
        """In a ``file`` that outlives it, if given; what stands there is taken up by ``recover``."""
        self.compiled = compiled
        self.side = side
        self._file = scratch(self) if file is None else file
        self._lock = threading.Lock()  # around the file's place
        self._inserts: list[bool] = []
        self._rows: list[Row] = []
        self._weight = 0
        self._index: sqlite3.Connection | None = None
        self._indexed = 0  # bytes of the file that the index knows
        self._boundary: Position | None = None
        self._seen: Position | None = None
        self._recovered = 0  # bytes of the file that another process wrote
        self.before = 0  # changes of other initial syncs at the same boundary
        self.count = 0

    def add(self, rows: Sequence[Row], *, insert: bool) -> None:
        """Append changes of these rows of the side."""
        self._rows += rows
        self._inserts += [insert] * len(rows)
        self._weight += weight(rows)
        self.count += len(rows)
        if len(self._rows) >= BLOCK or self._weight >= LARGEST:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            write_rows(self._file, self._inserts, self._rows)
            self._inserts, self._rows, self._weight = [], [], 0

    def seal(self, boundary: Position, seen: Position, carried: Position | None = None) -> None:
        """Say where the changes lie: just behind ``boundary`` of their side, having seen the other up to ``seen``.

        Where nobody has written since another initial sync, theirs lie there as well: ours come behind those that were
        ``carried``, or the other side would seem to have seen them.
        """
        self._flush()
        self._file.flush()
        self._boundary, self._seen = boundary, seen
        if carried is not None and carried.feed == boundary.feed and carried.place[:-1] == (*boundary.place, 0):
            self.before = carried.place[-1]

    def recover(self) -> None:
        """Take up what stands in the file, up to where it is not whole any more; that is cut off."""
        self._file.seek(0)
        end = 0
        while found := _read_packed(self._file):
            self.count += found[0]
            end = self._file.tell()
        self._file.truncate(end)
        self._recovered = end

    def go_on(self, boundary: Position, seen: Position, before: int) -> None:
        """As ``seal``, for what was sealed with these in another process."""
        self.seal(boundary, seen)
        self.before = before

    def reread(self) -> Iterator[Sequence[Row]]:
        """The rows of all changes that ``recover`` has found; for any thread."""
        with Path(self._file.name).open("rb") as file:
            while file.tell() < self._recovered and (block := read_rows(file)):
                yield block[1]

    @property
    def last(self) -> Position | None:
        """The position of the last change; None before ``seal``."""
        return None if self._boundary is None else self.place(self.count)

    def place(self, number: int) -> Position:
        """The position of a change."""
        assert self._boundary is not None, "seal() comes first"
        place = (*self._boundary.place, 0, self.before + number)  # no change of the feed lies there
        return Position(self._boundary.feed, place)

    def change(self, number: int, insert: bool, row: Row) -> Change:
        """A change as the flow carries it."""
        kind = Kind.INSERT if insert else Kind.UPDATE
        natural = self.compiled.views[self.side].natural_key(row)
        at = float("-inf")
        return Change(self.compiled.name, kind, natural, None, row, at, self.place(number), self._seen, weak=True)

    def chunks(self, size: Callable[[], int], after: int = 0) -> Iterator[Weak]:
        """All changes behind the first ``after``, in chunks of at most the size that is asked for each of them."""
        start = after + 1
        for inserts, rows in in_chunks(self._behind(after), size):
            yield Weak(self, start, inserts, rows)
            start += len(rows)

    def _behind(self, after: int) -> Iterator[tuple[list[bool], Sequence[Row]]]:
        """The blocks without the first so many changes."""
        for inserts, rows in self._blocks():
            gone = min(len(rows), after)
            after -= gone
            if gone < len(rows):
                yield inserts[gone:], rows[gone:]

    def passing(self, rows: Sequence[Row]) -> Weak:
        """Inserts of these rows, to be carried at once; for this, ``seal`` comes first."""
        start, inserts = self.count + 1, [True] * len(rows)
        with self._lock:
            for at in range(0, len(rows), PIECE):
                write_rows(self._file, inserts[at : at + PIECE], rows[at : at + PIECE])
            self._file.flush()
            self.count += len(rows)
        return Weak(self, start, inserts, rows)

    def _blocks(self, where: int = 0) -> Iterator[tuple[list[bool], Sequence[Row]]]:
        end = self._file.seek(0, 2)
        while where < end:
            self._file.seek(where)  # ``find`` may have moved it meanwhile
            block = read_rows(self._file)
            where = self._file.tell()
            if block is None:
                return
            yield block

    def find(self, key: Key) -> Change | None:
        """The change of a record.  The first call builds an index on disk: few syncs ever need one."""
        if self._boundary is None or not self.count:
            return None
        if self._index is None:
            self._index = scratch_database(self)
            columns = "key TEXT PRIMARY KEY, number INTEGER, inserted INTEGER, row BLOB"
            self._index.execute(f"CREATE TABLE weak ({columns}) WITHOUT ROWID")
        with self._lock:
            self._extend(self._index)
        query = "SELECT number, inserted, row FROM weak WHERE key = ?"
        found = self._index.execute(query, (_text(key),)).fetchone()
        return None if found is None else self.change(found[0], bool(found[1]), _row(marshal.loads(found[2])))

    def _extend(self, index: sqlite3.Connection) -> None:
        """Put into the index what has come since it was asked last."""
        end = self._file.seek(0, 2)
        if end == self._indexed:
            return
        index.execute("BEGIN")
        number = index.execute("SELECT coalesce(max(number), 0) FROM weak").fetchone()[0]
        for inserts, rows in self._blocks(self._indexed):
            entries = []
            for insert, row in zip(inserts, rows, strict=True):
                number += 1
                key = self.compiled.key(self.side, row)
                entries.append((_text(key), number, insert, marshal.dumps(_plain(row))))
            index.executemany("INSERT OR IGNORE INTO weak VALUES (?, ?, ?, ?)", entries)
        index.execute("COMMIT")
        self._indexed = end

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
        if self._index is not None:
            self._index.close()
