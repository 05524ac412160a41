"""The log of a PostgreSQL database as far as it was received and is still needed.

One thread writes what the server sends (``_pg_stream``); any number of threads read, each from the place that it names.
Rows are kept as the bytes that they came as and decoded by who wants their cells: most of what our own transactions
cause is passed over unread.

What is received is kept in blocks (``_pg_blocks``), the newest in memory and older ones on disk.  After a crash the
server sends everything again from what was confirmed to it: places are the same then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from threading import Condition
from time import monotonic
from typing import Final

from dualwrite.connectors._pg_blocks import BLOCK_BYTES, HELD, Block, Blocks, Item
from dualwrite.connectors._pg_capture import REMEDY
from dualwrite.connectors._pg_entries import Committed, Done, Emptied, Entry, Note, Place, Row, lsn_text, shown
from dualwrite.connectors._pg_wire import (
    BEGIN,
    COMMIT,
    KINDS,
    MESSAGE,
    ORIGIN,
    RELATION,
    TRUNCATE,
    Message,
    Origin,
    Relation,
    Truncate,
    begin_of,
    decode,
    end_of,
)
from dualwrite.errors import DualwriteError, PositionLost, Unavailable

ROOM: Final = 4 << 30
"""Bytes of scratch files from which on the log is full."""
_PART: Final = 500  # what the readers of a large transaction see at once

# items are a version and a row's bytes, or one of these with what belongs to it
_NOTE: Final = -1
_BEGIN: Final = -2
_END: Final = -3
_TRUNCATE: Final = -4
_ALL: Final = 1 << 62


QUIET: Final = b"quiet"
"""The first message of a transaction of ours whose rows are echo, and which no reader looks up."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What follows a place, in order.  ``place``: how far that is; ``more``: the log holds further entries.

    Without ``more`` the place may lie behind the last entry: nothing was there up to it.
    """

    entries: list[Entry]
    place: Place
    more: bool


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
        self._room = room
        self._changed = Condition()
        self._error: DualwriteError | None = None
        self._is_closed = False
        # what readers see
        self._floor: Place = (start,)
        self._seen: Place = (start,)
        self._ended: Place = (start,)
        self._reached = start
        self._blocks = Blocks(held)
        self._relations: list[Relation] = []
        # the writer's own
        self._fresh: list[Item] = []
        self._fresh_bytes = 0
        self._versions: dict[bytes, int] = {}
        self._begin: bytes | None = None
        self._origin = ""
        self.is_quiet = False
        """Are the rows that are received now nothing to anybody?"""
        self._head: Committed | None = None
        self._n = 0

    # -- the writer -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take the next ``pgoutput`` message; readers may see it after ``publish`` only."""
        tag = data[0]
        if tag in KINDS:
            if self.is_quiet:
                return
            if self._head is None:
                self._open()
            self._fresh.append((self._versions[data[1:5]], data))
            self._fresh_bytes += len(data)
            if len(self._fresh) >= _PART or self._fresh_bytes >= BLOCK_BYTES:
                self.publish()
        elif tag == BEGIN:
            self._begin, self._origin, self.is_quiet = data, "", False
        elif tag == COMMIT:
            self._commit(end_of(data))
        elif tag in (ORIGIN, RELATION, MESSAGE, TRUNCATE):
            self._beside(decode(data))

    def _commit(self, end: int) -> None:
        if self._head is not None:
            self._fresh.append((_END, end))
        self._begin, self.is_quiet = None, False
        self._publish(end)

    def _beside(self, message: object) -> None:
        match message:
            case Origin(_, name):
                self._origin = name
            case Relation(oid) as relation:
                self._describe(oid.to_bytes(4), relation)
            case Message(True, _, self._prefix, content) if content == QUIET and self._origin in self._whole:
                self.is_quiet = True
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
            lsn, at, xid = begin_of(self._begin)
            self._head = Committed(lsn, xid, at, self._origin)
            self._n = 0
            self._fresh.append((_BEGIN, (lsn, xid, at, self._origin)))

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

    def _append(self, items: list[Item]) -> None:
        """Put items of one transaction behind the others."""
        assert self._head is not None, "every item belongs to a transaction"
        is_done = items[-1][0] == _END
        self._n += len(items) - (items[0][0] == _BEGIN) - is_done
        last = (items[-1][1],) if is_done else (self._head.lsn, self._n)
        begun = self._head.lsn if items[0][0] == _BEGIN else None
        self._blocks.add(items, {tag for tag, _ in items if tag >= _NOTE}, self._fresh_bytes, last, begun)
        if is_done or self._head.origin not in self._whole:
            self._seen = last
        if is_done:
            self._ended, self._head = last, None
        if self._blocks.is_due:
            self._blocks.seal(self._head, self._n)

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
        return self._blocks.held

    @property
    def stored(self) -> int:
        """Bytes of scratch files."""
        return self._blocks.stored

    @property
    def is_full(self) -> bool:
        """Whether the server should wait before it sends more transactions; never within one, which may be larger."""
        return self._begin is None and self._blocks.stored > self._room

    @property
    def has_room(self) -> bool:
        """Whether a log that was full can take a good deal again."""
        return self.stored <= self._room // 2

    def is_settled(self, lsn: int) -> bool:
        """Whether no transaction that is here, or is just being received, committed at ``lsn`` or later.

        For the writer's thread.
        """
        return self._begin is None and not self._fresh and self._seen <= (max(lsn, self._floor[0]),)

    def read(self, after: Place, limit: int, timeout: float = 0.0, size: int | None = None) -> Reading:
        """What follows a place: about ``limit`` entries, ends of transactions not counted.

        ``size`` is how many bytes of rows they have, about, at most.

        Waits up to ``timeout`` seconds for the first.  Raises PositionLost when something behind ``after`` was let go
        already, and why the stream has ended when there is nothing more to read, or the log was closed.
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
        count, left = 0, 1 if size is None else size
        for block, items in self._walk(after, seen):
            is_last = block.last >= seen
            for entry in self._entries(block, items, after):
                if is_last and entry.place > seen:
                    return entries, False
                is_end = isinstance(entry, Done)
                if (count >= limit or left <= 0) and not is_end:
                    return entries, True
                entries.append(entry)
                count += not is_end
                if size is not None and isinstance(entry, Row):
                    left -= len(entry.data)
        return entries, False

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
            for tag, content in islice(items, self._blocks.start(block, after), None):
                if tag == _BEGIN:
                    transaction, n = Committed(*content), 0
                elif tag != _END and transaction is not None:
                    n += 1
                    if tag != _NOTE and transaction.origin not in self._whole and (transaction.lsn, n) <= until:
                        last = transaction.lsn, n
        return None if last is None or last <= after else last

    def transactions(self, after: Place) -> Iterator[Done]:
        """The complete transactions that are here and end behind ``after``, oldest first."""
        while True:
            try:
                for block, items in self._walk(max(after, self._floor), self._seen):
                    transaction = block.head
                    for tag, content in items:
                        if tag == _BEGIN:
                            transaction = Committed(*content)
                        elif tag == _END and transaction is not None and (content,) > after:
                            after = (content,)
                            yield Done(transaction, content)
                return
            except PositionLost:  # it was let go meanwhile
                continue

    def within(self, place: Place) -> Committed | None:
        """The transaction that a place lies within, unless it has been let go."""
        with self._changed:
            self._check(place)
            block, head = self._blocks.after(place), self._head
            if block is not None:
                head = block.head
                for tag, content in islice(self._blocks.items(block), self._blocks.start(block, place), None):
                    if tag == _BEGIN and content[0] == place[0]:
                        return Committed(*content)
        return head if head is not None and head.lsn == place[0] else None

    def _walk(
        self, after: Place, until: Place, wanted: Collection[int] | None = None
    ) -> Iterator[tuple[Block, list[Item]]]:
        """The blocks with something between two places, loaded one by one."""
        with self._changed:
            self._check(after)
        while after < until:
            with self._changed:
                self._check(after)
                found = self._blocks.after(after, wanted)
                if found is None:
                    return
                after, items = found.last, self._blocks.items(found)
            yield found, items

    def _entries(
        self, block: Block, items: list[Item], after: Place, wanted: Collection[int] | None = None
    ) -> Iterator[Entry]:
        transaction, n = block.head, block.n
        passed = 0 if transaction is None else _passed(transaction.lsn, after)
        for tag, content in islice(items, self._blocks.start(block, after), None):
            if tag == _BEGIN:
                transaction, n = Committed(*content), 0
                passed = _passed(transaction.lsn, after)
                continue
            assert transaction is not None, "every item belongs to a transaction"
            if tag == _END:
                if (content,) > after and wanted is None:
                    yield Done(transaction, content)
                continue
            n += 1
            if n <= passed or (wanted is not None and tag not in wanted):
                continue
            if tag >= 0:
                yield Row(transaction, n, tag, self._relations[tag], content)
            elif tag == _NOTE:
                yield Note(transaction, n, content)
            else:
                yield Emptied(transaction, n, tuple(self._relations[version] for version in content))

    def _check(self, after: Place) -> None:
        if self._is_closed:  # nothing is here any more, which says nothing about what there was
            self._raise()
        if after < self._floor:
            raise PositionLost(
                f"the log is kept from {lsn_text(self._floor[0])} on, and was asked for what follows {shown(after)}",
                REMEDY,
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
            if self._blocks.reaches(until):
                self._blocks.seal(self._head, self._n)
            self._floor = max(self._floor, self._blocks.trim(until) or self._floor)

    def close(self) -> None:
        """Give memory and disk space back.  Idempotent.

        Who still reads is told why nothing more will come, wherever he is: all of it is in the log that is opened next.
        """
        self.fail(Unavailable("the log was closed", "open the connector again"))
        with self._changed:
            self._is_closed = True
            self._blocks.close()


def _passed(commit: int, after: Place) -> int:
    """How many entries of the transaction that commits there lie at or before a place."""
    if commit != after[0]:
        return 0 if commit > after[0] else _ALL
    return after[1] if len(after) > 1 else 0
