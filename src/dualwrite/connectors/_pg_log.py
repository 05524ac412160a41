"""The log of a PostgreSQL database as far as it was received and is still needed.

One thread writes what the server sends (``_pg_stream``); any number of threads read, each from the place that it names.
Rows are kept as the bytes that they came as and decoded by who wants their cells: most of what our own transactions
cause is passed over unread.

The newest rows are in memory, older ones in scratch files that vanish with the process, so that neither a large
transaction nor a long backlog needs more memory (some 300 bytes per thousand rows apart).  After a crash the server
sends everything again from what was confirmed to it: places are the same then.

A *place* is ``(commit, n)`` for the n-th entry of the transaction whose commit stands at that LSN, and ``(end,)``
behind the transaction: ``(commit, n) < (end,) < (next commit, 1)``.
"""

from __future__ import annotations

import marshal
import os
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import IO, Any, Final, NamedTuple, TypeAlias

from dualwrite.connectors._pg_wire import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    MESSAGE,
    ORIGIN,
    RELATION,
    TRUNCATE,
    UNCHANGED,
    UPDATE,
    Begin,
    Commit,
    Image,
    Message,
    Origin,
    Relation,
    Truncate,
    decode,
    row_change,
)
from dualwrite.errors import DualwriteError, PositionLost, Unavailable
from dualwrite.model import Kind

Place: TypeAlias = tuple[int, ...]

HELD: Final = 20_000
"""Rows held in memory."""
HELD_BYTES: Final = 32 << 20
"""Bytes of them: rows may be large."""
ROOM: Final = 4 << 30
"""Bytes of scratch files from which on the log is full."""
BLOCK: Final = 1_000
"""Rows that are written to disk, and read from there, as one."""
_BLOCK_BYTES: Final = 1 << 20
_PART: Final = 500  # what the readers of a large transaction see at once
_SEGMENT: Final = 64 << 20
_LOADED: Final = 3  # blocks from disk that are kept: one for each of several readers

_Item: TypeAlias = tuple[int, Any]  # a version and a row's bytes, or one of these with what belongs to it
_NOTE: Final = -1
_BEGIN: Final = -2
_END: Final = -3
_TRUNCATE: Final = -4

_KINDS: Final = {INSERT: Kind.INSERT, UPDATE: Kind.UPDATE, DELETE: Kind.DELETE}

QUIET: Final = b"quiet"
"""The first message of a transaction of ours whose rows are echo, and which no reader looks up."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction: the LSN of its commit, its top-level id, its user's commit time, and its origin ('' = none)."""

    lsn: int
    xid: int
    at: float
    origin: str


class Row(NamedTuple):
    """A row was inserted, updated or deleted.

    ``version`` numbers the shapes of all tables within one log: the same number, the same ``relation``.
    """

    transaction: Committed
    n: int
    version: int
    relation: Relation
    data: bytes

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n

    @property
    def kind(self) -> Kind:
        """What happened to the row."""
        return _KINDS[self.data[0]]

    def images(self) -> tuple[Image | None, Image | None]:
        """The row before and after, decoded at each call.

        UNCHANGED is what the server did not send: of the old row all that is no key unless the table's identity is
        full, of the new one then also large values that stayed.
        """
        _, _, old, new, full = row_change(self.data)
        if old is not None and not full:
            columns = self.relation.columns
            old = tuple(cell if column.key else UNCHANGED for column, cell in zip(columns, old, strict=True))
        return old, new


class Note(NamedTuple):
    """A message with our prefix: what a transaction said of itself.  Anybody can write one: look at the origin."""

    transaction: Committed
    n: int
    content: str

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n


class Emptied(NamedTuple):
    """Tables were truncated."""

    transaction: Committed
    n: int
    relations: tuple[Relation, ...]

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n


class Done(NamedTuple):
    """The transaction is complete."""

    transaction: Committed
    end: int

    @property
    def place(self) -> Place:
        """The place behind the transaction."""
        return (self.end,)


Entry: TypeAlias = Row | Note | Emptied | Done


@dataclass(frozen=True, slots=True)
class Reading:
    """What follows a place, in order.  ``place``: how far that is; ``more``: the log holds further entries.

    Without ``more`` the place may lie behind the last entry: nothing was there up to it.
    """

    entries: list[Entry]
    place: Place
    more: bool


@dataclass(slots=True)
class _Segment:
    """A scratch file, and how many blocks in it are still needed."""

    file: IO[bytes]
    size: int = 0
    blocks: int = 0


class _Block:
    """Entries that follow one another, in memory or on disk."""

    __slots__ = ("bytes", "head", "items", "last", "n", "offset", "rows", "segment", "size", "versions")

    def __init__(self, head: Committed | None, n: int) -> None:
        self.head = head  # the transaction that is open where the block begins, and how many entries it had so far
        self.n = n
        self.items: list[_Item] | None = []
        self.last: Place = ()
        self.versions: set[int] = set()
        self.rows = 0
        self.bytes = 0
        self.segment: _Segment | None = None
        self.offset = 0
        self.size = 0


def _last(block: _Block) -> Place:
    return block.last


class Log:
    """What the server has sent from ``start`` on.  The messages with ``prefix`` are ours.

    Transactions of an origin in ``whole`` appear to readers as one, others as far as they were received: they are
    committed already.  Where such a one begins with the message ``QUIET``, its rows are nothing to anybody, and are not
    kept.
    """

    def __init__(
        self, start: int, prefix: str, whole: Collection[str] = (), *, held: int = HELD, room: int = ROOM
    ) -> None:
        self._prefix = prefix
        self._whole = frozenset(whole)
        self._most = held
        self._room = room
        self._changed = Condition()
        self._error: DualwriteError | None = None
        # what readers see
        self._floor: Place = (start,)
        self._seen: Place = (start,)
        self._ended: Place = (start,)
        self._reached = start
        self._blocks: list[_Block] = [_Block(None, 0)]
        self._relations: list[Relation] = []
        # the part in memory, and that on disk
        self._warm: deque[_Block] = deque()
        self._held = 0
        self._held_bytes = 0
        self._segment: _Segment | None = None
        self._stored = 0
        self._loaded: deque[tuple[_Block, list[_Item]]] = deque(maxlen=_LOADED)
        # the writer's own
        self._fresh: list[_Item] = []
        self._fresh_bytes = 0
        self._versions: dict[bytes, int] = {}
        self._begin: Begin | None = None
        self._origin = ""
        self._is_quiet = False
        self._head: Committed | None = None
        self._n = 0

    # -- the writer -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take the next ``pgoutput`` message; readers may see it after ``publish`` only."""
        tag = data[0]
        if tag in _KINDS:
            if self._is_quiet:
                return
            if self._head is None:
                self._open()
            self._fresh.append((self._versions[data[1:5]], data))
            self._fresh_bytes += len(data)
            if len(self._fresh) >= _PART or self._fresh_bytes >= _BLOCK_BYTES:
                self.publish()
        elif tag in (BEGIN, COMMIT, ORIGIN):
            self._frame(decode(data))
        elif tag in (RELATION, MESSAGE, TRUNCATE):
            self._beside(decode(data))

    def _frame(self, message: object) -> None:
        match message:
            case Begin():
                self._begin, self._origin, self._is_quiet = message, "", False
            case Origin(_, name):
                self._origin = name
            case Commit(_, end):
                if self._head is not None:
                    self._fresh.append((_END, end))
                self._begin, self._is_quiet = None, False
                self._publish(end)

    def _beside(self, message: object) -> None:
        match message:
            case Relation(oid) as relation:
                self._describe(oid.to_bytes(4), relation)
            case Message(True, _, self._prefix, content) if content == QUIET and self._origin in self._whole:
                self._is_quiet = True
            case Message(True, _, self._prefix, content):
                self._open()
                self._fresh.append((_NOTE, content.decode(errors="replace")))
                self._fresh_bytes += len(content)
            case Message(False, lsn) if self._begin is None:
                self._publish(lsn)
            case Truncate(relations):
                self._open()
                self._fresh.append((_TRUNCATE, tuple(self._versions[oid.to_bytes(4)] for oid in relations)))

    def _describe(self, oid: bytes, relation: Relation) -> None:
        known = self._versions.get(oid)
        if known is None or self._relations[known] != relation:
            with self._changed:
                self._versions[oid] = len(self._relations)
                self._relations.append(relation)

    def _open(self) -> None:
        """Only transactions with something in them get into the log."""
        if self._head is None:
            assert self._begin is not None, "the server sent a row outside of a transaction"
            self._head = Committed(self._begin.commit, self._begin.xid, self._begin.at, self._origin)
            self._n = 0
            self._fresh.append((_BEGIN, (self._head.lsn, self._head.xid, self._head.at, self._head.origin)))

    def alive(self, lsn: int) -> None:
        """The server has sent everything that was committed before ``lsn``."""
        self._publish(lsn if self._begin is None else 0)

    def publish(self) -> None:
        """Show readers what was received."""
        self._publish(0)

    def _publish(self, reached: int) -> None:
        if not self._fresh and reached <= self._reached:
            return
        with self._changed:
            if self._fresh:
                self._append(self._fresh)
                self._fresh, self._fresh_bytes = [], 0
            self._reached = max(self._reached, reached)
            self._changed.notify_all()

    def _append(self, items: list[_Item]) -> None:
        """Put items of one transaction behind the others."""
        assert self._head is not None, "every item belongs to a transaction"
        is_done = items[-1][0] == _END
        self._n += len(items) - (items[0][0] == _BEGIN) - is_done
        block = self._blocks[-1]
        assert block.items is not None, "the newest block is in memory"
        block.items += items
        block.versions.update(tag for tag, _ in items if tag >= _NOTE)
        block.rows += len(items)
        block.bytes += self._fresh_bytes
        block.last = (items[-1][1],) if is_done else (self._head.lsn, self._n)
        self._held += len(items)
        self._held_bytes += self._fresh_bytes
        if is_done or self._head.origin not in self._whole:
            self._seen = block.last
        if is_done:
            self._ended, self._head = block.last, None
        if block.rows >= BLOCK or block.bytes >= _BLOCK_BYTES:
            self._seal(block)

    def _seal(self, block: _Block) -> None:
        self._warm.append(block)
        self._blocks.append(_Block(self._head, self._n))
        while self._warm and (self._held > self._most or self._held_bytes > HELD_BYTES):
            self._spill(self._warm.popleft())

    def _spill(self, block: _Block) -> None:
        packed = marshal.dumps(block.items)
        segment = self._segment
        if segment is None or segment.size > _SEGMENT:
            segment = self._segment = _Segment(tempfile.TemporaryFile(prefix="dualwrite-"))  # noqa: SIM115 (kept open)
        block.segment, block.offset, block.size = segment, segment.size, len(packed)
        segment.file.seek(segment.size)
        segment.file.write(packed)
        segment.file.flush()
        segment.size += len(packed)
        self._stored += len(packed)
        segment.blocks += 1
        block.items = None
        self._held -= block.rows
        self._held_bytes -= block.bytes

    def fail(self, error: DualwriteError) -> None:
        """Nothing more will come: readers are told why once they have read what is there."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # -- readers --------------------------------------------------------------------------------------------------

    @property
    def reached(self) -> int:
        """Every transaction that committed before this LSN is here (or was let go)."""
        return self._reached

    @property
    def seen(self) -> Place:
        """The last place that readers see; it moves while a large transaction comes in."""
        return self._seen

    @property
    def whole(self) -> frozenset[str]:
        """The origins whose transactions appear as one."""
        return self._whole

    @property
    def ended(self) -> Place:
        """The place behind the last complete transaction."""
        return self._ended

    @property
    def floor(self) -> Place:
        """Everything behind this place is here; what is at or before it was let go, or was never asked for."""
        return self._floor

    @property
    def error(self) -> DualwriteError | None:
        """Why nothing more will come."""
        return self._error

    @property
    def held(self) -> int:
        """Rows in memory, those read from disk included."""
        return self._held + sum(len(items) for _, items in self._loaded)

    @property
    def stored(self) -> int:
        """Bytes of scratch files."""
        return self._stored

    @property
    def is_full(self) -> bool:
        """Whether the server should wait before it sends more transactions; never within one, which may be larger."""
        return self._begin is None and self._stored > self._room

    @property
    def has_room(self) -> bool:
        """Whether a log that was full can take a good deal again."""
        return self._stored <= self._room // 2

    def is_settled(self, lsn: int) -> bool:
        """Whether no transaction that is here, or is just being received, committed at ``lsn`` or later."""
        with self._changed:
            return self._begin is None and not self._fresh and self._seen <= (max(lsn, self._floor[0]),)

    def read(self, after: Place, limit: int, timeout: float = 0.0, size: int | None = None) -> Reading:
        """What follows a place: about ``limit`` entries, transactions of the ``whole`` origins to their ends.

        ``size`` is how many bytes of rows they have, about, at most.

        Waits up to ``timeout`` seconds for the first.  Raises PositionLost when something behind ``after`` was let go
        already, and why the stream has ended when there is nothing more to read.
        """
        deadline = monotonic() + timeout
        with self._changed:
            while True:
                self._check(after)
                if self._seen > after:
                    break
                self._raise()
                left = deadline - monotonic()
                if left <= 0:
                    return Reading([], self._behind(after), more=False)
                self._changed.wait(left)
            seen, reached = self._seen, self._behind(self._seen)
        entries, more = self._take(after, limit, seen, size)
        return Reading(entries, entries[-1].place if more or not entries else max(entries[-1].place, reached), more)

    def _behind(self, place: Place) -> Place:
        return max(place, (self._reached,))

    def _take(self, after: Place, limit: int, seen: Place, size: int | None) -> tuple[list[Entry], bool]:
        entries: list[Entry] = []
        left = 1 if size is None else size
        for block, items in self._walk(after, seen):
            for entry in self._entries(block, items, after):
                if entry.place > seen:
                    return entries, False
                if (len(entries) >= limit or left <= 0) and not self._is_within_whole(entries[-1]):
                    return entries, True
                entries.append(entry)
                if size is not None and isinstance(entry, Row):
                    left -= len(entry.data)
        return entries, False

    def _is_within_whole(self, entry: Entry) -> bool:
        return not isinstance(entry, Done) and entry.transaction.origin in self._whole

    def find(self, relations: Collection[int], after: Place, until: Place) -> Iterator[Row]:
        """The rows of these tables (oids) behind ``after``, up to ``until``, oldest first.

        Blocks without them are not looked at.  Raises PositionLost as ``read``.
        """
        with self._changed:
            self._check(after)
            wanted = {version for version, relation in enumerate(self._relations) if relation.oid in relations}
            until = min(until, self._seen)
        for block, items in self._walk(after, until, wanted):
            for entry in self._entries(block, items, after, wanted):
                if entry.place > until:
                    return
                if isinstance(entry, Row):
                    yield entry

    def notes(self, after: Place) -> Iterator[Note]:
        """All notes behind ``after`` that readers see by now, oldest first, as cheaply as ``find``."""
        until = self._seen
        for block, items in self._walk(after, until, {_NOTE}):
            for entry in self._entries(block, items, after, {_NOTE}):
                if entry.place > until:
                    return
                if isinstance(entry, Note):
                    yield entry

    def last_change(self, after: Place, until: Place) -> Place | None:
        """The last row or truncation between two places that is of no ``whole`` origin; the places must be kept."""
        last: Place | None = None
        for block, items in self._walk(after, min(until, self._seen)):
            transaction, n = block.head, block.n
            for tag, content in items:
                if tag == _BEGIN:
                    transaction, n = Committed(*content), 0
                elif tag != _END and transaction is not None:
                    n += 1
                    if tag != _NOTE and transaction.origin not in self._whole and (transaction.lsn, n) <= until:
                        last = transaction.lsn, n
        return None if last is None or last <= after else last

    def transactions(self, after: Place) -> Iterator[Done]:
        """The complete transactions that end behind ``after``, oldest first.  Raises PositionLost as ``read``."""
        for block, items in self._walk(after, self._seen):
            transaction = block.head
            for tag, content in items:
                if tag == _BEGIN:
                    transaction = Committed(*content)
                elif tag == _END and transaction is not None and (content,) > after:
                    yield Done(transaction, content)

    def _walk(
        self, after: Place, until: Place, wanted: Collection[int] | None = None
    ) -> Iterator[tuple[_Block, list[_Item]]]:
        """The blocks with something between two places, loaded one by one."""
        while after < until:
            with self._changed:
                self._check(after)
                found = self._next(after, wanted)
                if found is None:
                    return
                after, items = found.last, self._items(found)
            yield found, items

    def _next(self, after: Place, wanted: Collection[int] | None) -> _Block | None:
        for index in range(bisect_right(self._blocks, after, hi=self._filled, key=_last), self._filled):
            block = self._blocks[index]
            if wanted is None or not block.versions.isdisjoint(wanted):
                return block
        return None

    @property
    def _filled(self) -> int:
        return len(self._blocks) - (not self._blocks[-1].items)

    def _items(self, block: _Block) -> list[_Item]:
        if block.items is not None:
            return block.items
        for loaded, items in self._loaded:
            if loaded is block:
                return items
        assert block.segment is not None, "a block is in memory or on disk"
        found: list[_Item] = marshal.loads(os.pread(block.segment.file.fileno(), block.size, block.offset))
        self._loaded.append((block, found))
        return found

    def _entries(
        self, block: _Block, items: list[_Item], after: Place, wanted: Collection[int] | None = None
    ) -> Iterator[Entry]:
        transaction, n = block.head, block.n
        for tag, content in items:
            if tag == _BEGIN:
                transaction, n = Committed(*content), 0
                continue
            assert transaction is not None, "every item belongs to a transaction"
            if tag == _END:
                if (content,) > after and wanted is None:
                    yield Done(transaction, content)
                continue
            n += 1
            if (wanted is not None and tag not in wanted) or (transaction.lsn, n) <= after:
                continue
            if tag >= 0:
                yield Row(transaction, n, tag, self._relations[tag], content)
            elif tag == _NOTE:
                yield Note(transaction, n, content)
            else:
                yield Emptied(transaction, n, tuple(self._relations[version] for version in content))

    def _check(self, after: Place) -> None:
        if after < self._floor:
            raise PositionLost(
                f"the log is kept from {lsn_text(self._floor[0])} on, and was asked for what follows {_shown(after)}",
                "stop the map and start it again with an initial sync",
            )

    def _raise(self) -> None:
        if self._error is not None:
            raise type(self._error)(self._error.message, self._error.remedy) from self._error

    def wait(self, lsn: int, timeout: float) -> bool:
        """Wait until everything committed before ``lsn`` is here; False: not in time.  Raises why the stream ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._reached >= lsn or self._error is not None, timeout)
            if self._reached < lsn:
                self._raise()
            return self._reached >= lsn

    def trim(self, until: Place) -> None:
        """Nobody will ask for what is at or before this place again; going back is ignored."""
        with self._changed:
            last = self._blocks[-1]
            if last.items and last.last <= until:
                self._seal(last)
            gone = bisect_right(self._blocks, until, hi=self._filled, key=_last)
            for block in self._blocks[:gone]:
                self._forget(block)
            if gone:
                self._floor = max(self._floor, self._blocks[gone - 1].last)
                del self._blocks[:gone]

    def _forget(self, block: _Block) -> None:
        if block.segment is None:
            self._warm.remove(block)  # the oldest: found at once
            self._held -= block.rows
            self._held_bytes -= block.bytes
            return
        for index, (loaded, _) in enumerate(self._loaded):
            if loaded is block:
                del self._loaded[index]
                break
        block.segment.blocks -= 1
        if not block.segment.blocks:
            self._stored -= block.segment.size
            block.segment.file.close()
            if block.segment is self._segment:
                self._segment = None

    def close(self) -> None:
        """Give memory and disk space back.  Idempotent."""
        self.fail(Unavailable("the log was closed", "open the connector again"))
        with self._changed:
            for block in self._blocks:
                if block.segment is not None:
                    block.segment.file.close()
            self._segment, self._stored = None, 0
            self._warm, self._blocks = deque(), [_Block(None, 0)]
            self._loaded.clear()
            self._held = self._held_bytes = 0
            self._floor = self._seen


def lsn_text(lsn: int) -> str:
    """An LSN as PostgreSQL writes it: ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """The inverse of ``lsn_text``."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _shown(place: Place) -> str:
    return lsn_text(place[0]) if place else "the beginning"
