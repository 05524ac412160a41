"""The received log: what readers see, in which order, and how much of it is in memory."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dualwrite.connectors import _pg_blocks, _pg_log
from dualwrite.connectors._pg_entries import Committed, Done, Emptied, Note, Row, lsn_of, lsn_text
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_visible import Visible
from dualwrite.connectors._pg_wire import UNCHANGED
from dualwrite.errors import PositionLost, Unavailable
from dualwrite.model import Kind

PREFIX = "dualwrite_x"
START = 100


def begin(commit: int, xid: int = 7) -> bytes:
    """A transaction starts, at the epoch of PostgreSQL."""
    return b"B" + struct.pack(">QqI", commit, 0, xid)


def commit(at: int, end: int) -> bytes:
    """It is complete."""
    return b"C\0" + struct.pack(">QQq", at, end, 0)


def relation(oid: int, *columns: str, identity: bytes = b"f") -> bytes:
    """A table ``t<oid>``; its first column is the key."""
    described = b"".join(
        bytes([at == 0 or identity == b"f"]) + name.encode() + b"\0" + struct.pack(">Ii", 25, -1)
        for at, name in enumerate(columns)
    )
    return b"R" + struct.pack(">I", oid) + b"public\0" + f"t{oid}\0".encode() + identity + _count(columns) + described


def _count(cells) -> bytes:
    return struct.pack(">H", len(cells))


def _image(cells) -> bytes:
    return _count(cells) + b"".join(
        b"n" if cell is None else b"t" + struct.pack(">I", len(cell.encode())) + cell.encode() for cell in cells
    )


def insert(oid: int, *cells: str | None) -> bytes:
    """A row appears."""
    return b"I" + struct.pack(">I", oid) + b"N" + _image(cells)


def message(content: str, prefix: str = PREFIX, flags: bytes = b"\1") -> bytes:
    """A transaction says something."""
    return (
        b"M"
        + flags
        + struct.pack(">Q", 150)
        + prefix.encode()
        + b"\0"
        + struct.pack(">I", len(content))
        + (content.encode())
    )


def origin(name: str) -> bytes:
    """The transaction is another's."""
    return b"O" + struct.pack(">Q", 0) + name.encode() + b"\0"


def feed(log: Log, *messages: bytes) -> None:
    """Let the log receive, and show."""
    for data in messages:
        log.receive(data)
    log.publish()


def shown(log: Log, after=(START,), limit: int = 1_000_000) -> list[str]:
    """What a reader sees, shortly."""
    return [brief(entry) for entry in log.read(after, limit).entries]


def brief(entry) -> str:
    """An entry in a few letters."""
    place = ".".join(map(str, entry.place))
    match entry:
        case Row():
            return f"{place} {entry.relation.name} {entry.images()[1][0]}"
        case Note():
            return f"{place} note {entry.content}"
        case Emptied():
            return f"{place} truncate {','.join(one.name for one in entry.relations)}"
        case Done():
            return f"{place} done"


@pytest.fixture
def log() -> Iterator[Log]:
    """An empty log in which the transactions of origin ``us`` are shown as one."""
    log = Log(START, PREFIX, ["us"])
    yield log
    log.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The same with blocks of a few rows, nearly all of them on disk."""
    monkeypatch.setattr(_pg_blocks, "BLOCK", 7)
    monkeypatch.setattr(_pg_log, "_PART", 3)
    log = Log(START, PREFIX, ["us"], held=15)
    yield log
    log.close()


def test_entries_come_in_order_with_their_places(log: Log) -> None:
    """Rows, our messages and truncations are numbered within their transaction; others' messages are no entries."""
    feed(
        log,
        begin(110, xid=9), origin("somebody"), message("m"), message("theirs", "other"), relation(1, "a", "b"),
        insert(1, "x", None), b"T\0\0\0\1\0\0\0\0\1", commit(110, 118),
    )  # fmt: skip
    transaction = Committed(110, 9, 946684800.0, "somebody")
    reading = log.read((START,), 10)
    note, row, emptied, done = reading.entries
    assert [entry.place for entry in reading.entries] == [(110, 1), (110, 2), (110, 3), (118,)]
    assert all(entry.transaction == transaction for entry in reading.entries)
    assert note == Note(transaction, 1, "m")
    assert isinstance(row, Row)
    assert (row.kind, row.images()) == (Kind.INSERT, (None, ("x", None)))
    assert emptied == Emptied(transaction, 3, (row.relation,))
    assert done == Done(transaction, 118)
    assert (reading.place, reading.more, log.reached) == ((118,), False, 118)


def test_transactions_without_anything_of_ours_only_move_the_end(log: Log) -> None:
    """What is beside the link is no entry."""
    feed(log, begin(110), message("theirs", "other"), commit(110, 118))
    assert (shown(log), log.reached, log.read((START,), 1).place) == ([], 118, (118,))
    log.alive(130)
    feed(log, message("outside", flags=b"\0"))
    assert (log.reached, log.read((START,), 1).place) == (150, (150,))
    assert log.is_settled(START)


def test_a_key_is_all_that_is_known_of_the_row_before(log: Log) -> None:
    """Without full identity, the other cells were not sent."""
    update = b"U\0\0\0\1K" + _image(["1", None]) + b"N" + _image(["2", "y"])
    feed(log, begin(110), relation(1, "a", "b", identity=b"d"), update, commit(110, 118))
    row = log.read((START,), 1).entries[0]
    assert isinstance(row, Row)
    assert row.images() == (("1", UNCHANGED), ("2", "y"))


def test_a_shape_holds_for_the_rows_behind_it(log: Log) -> None:
    """Described anew without a change, it keeps its number."""
    feed(log, begin(110), relation(1, "a"), insert(1, "1"), relation(1, "a"), insert(1, "2"))
    feed(log, relation(1, "a", "b"), insert(1, "3", "x"), commit(110, 118))
    rows = [entry for entry in log.read((START,), 10).entries if isinstance(entry, Row)]
    assert [(row.version, len(row.relation.columns)) for row in rows] == [(0, 1), (0, 1), (1, 2)]


def test_others_are_seen_while_they_arrive_and_ours_when_they_are_complete(log: Log) -> None:
    """What has committed may be carried before all of it is here; ours must be judged as a whole."""
    feed(log, begin(110), relation(1, "a"), insert(1, "1"), insert(1, "2"))
    assert shown(log) == ["110.1 t1 1", "110.2 t1 2"]
    assert not log.is_settled(110)
    feed(log, commit(110, 118), begin(120), origin("us"), insert(1, "3"), insert(1, "4"))
    assert shown(log, (110, 2)) == ["118 done"]
    assert log.read((118,), 1).place == (118,)
    feed(log, commit(120, 128), begin(130), insert(1, "5"), commit(130, 138))
    assert shown(log, (118,), limit=2) == ["120.1 t1 3", "120.2 t1 4", "128 done"]
    assert log.read((118,), 1).more
    assert shown(log, (128,)) == ["130.1 t1 5", "138 done"]
    assert log.is_settled(138)


def test_a_limit_counts_rows_and_not_the_ends_of_their_transactions(log: Log) -> None:
    """Whoever asks for as many single-row transactions as it can carry at once gets so many."""
    feed(log, begin(110), relation(1, "a"), insert(1, "1"), commit(110, 118))
    for at in range(120, 160, 10):
        feed(log, begin(at), insert(1, str(at)), commit(at, at + 8))
    reading = log.read((START,), 3)
    assert [entry.place for entry in reading.entries] == [(110, 1), (118,), (120, 1), (128,), (130, 1), (138,)]
    assert reading.more
    assert shown(log, reading.place, limit=2) == ["140.1 t1 140", "148 done", "150.1 t1 150", "158 done"]


def script(seed: int) -> list[bytes]:
    """Random transactions over three tables, ours among them."""
    chance = random.Random(seed)
    messages, at, number = [relation(oid, "a") for oid in (1, 2, 3)], START, 0
    for _ in range(60):
        at += chance.randrange(1, 5)
        messages.append(begin(at))
        if chance.random() < 0.3:
            messages.append(origin("us"))
        for _ in range(chance.choice([0, 1, 1, 2, 30])):
            number += 1
            oid = 3 if number % 40 == 0 else chance.choice([1, 2])
            messages.append(message(f"{number}") if chance.random() < 0.1 else insert(oid, f"v{number}"))
        end = at + chance.randrange(1, 4)
        messages.append(commit(at, end))
        at = end
    return messages


@pytest.mark.parametrize("seed", range(5))
def test_reading_from_any_place_gives_what_follows_it(small: Log, seed: int) -> None:
    """Whatever the limit, whichever part is on disk, and the same again after a restart of the stream."""
    messages = script(seed)
    large = Log(START, PREFIX, ["us"])
    feed(large, *messages)
    everything = large.read((START,), 1_000_000).entries
    large.close()
    feed(small, *messages)
    assert small.stored > 0
    assert small.read((START,), 1_000_000).entries == everything
    for index, entry in enumerate(everything):
        reading = small.read(entry.place, 5)
        rest = everything[index + 1 :]
        assert reading.entries == rest[: len(reading.entries)]
        assert len(reading.entries) >= min(5, len(rest))
        assert reading.more == (len(reading.entries) < len(rest))
    assert small.held <= 15 + 7 + 3 + 3 * (7 + 3)


def test_what_was_read_is_not_gone_through_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the last of many small transactions meets none of those before it."""
    met = []
    feed(
        log,
        relation(1, "a"),
        *[m for n in range(110, 510, 10) for m in (begin(n), insert(1, str(n)), commit(n, n + 10))],
    )
    monkeypatch.setattr(_pg_log, "Committed", lambda *about: met.append(about[0]) or Committed(*about))
    assert shown(log, (500,)) == ["500.1 t1 500", "510 done"]
    assert shown(log, (490, 1)) == ["500 done", "500.1 t1 500", "510 done"]
    assert log.last_change((490,), (500,)) == (490, 1)
    assert set(met) == {490, 500}


def test_the_transactions_without_their_rows(small: Log) -> None:
    """Each complete one, with its end; to be judged by what a snapshot has seen."""
    feed(small, *script(2), begin(9000), insert(1, "open"))
    everything = small.read((START,), 1_000_000).entries
    ends = [entry for entry in everything if isinstance(entry, Done)]
    assert list(small.transactions((START,))) == ends
    assert list(small.transactions(ends[3].place)) == ends[4:]
    assert list(small.transactions((ends[4].transaction.lsn, 1))) == ends[4:]


def test_the_transactions_that_are_still_there(small: Log) -> None:
    """What is let go under somebody who goes through them is left out."""
    feed(small, *script(2))
    ends = list(small.transactions((START,)))
    going = small.transactions((START,))
    assert next(going) == ends[0]
    small.trim(ends[-2].place)
    rest, left = list(going), list(small.transactions((START,)))
    assert rest == [end for end in ends if end in rest]
    assert len(rest) < len(ends) - 1
    assert left == ends[-len(left) :] == rest[-len(left) :]


class Session:
    """A session that sees all transactions before a number."""

    def __init__(self) -> None:
        """It sees none."""
        self.sees = 0

    def execute(self, _: str) -> Session:
        """Whatever it is asked."""
        return self

    def fetchone(self) -> tuple[str]:
        """Its snapshot."""
        return (f"{self.sees}:{self.sees}:",)


def test_what_is_visible_is_looked_for_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all readers together, and no transaction is gone through again; also in the middle of one."""
    feed(log, relation(1, "a"))
    for n in range(110, 300, 10):
        feed(log, begin(n, xid=n), insert(1, "1"), insert(1, "2"), commit(n, n + 10))
    feed(log, begin(300, xid=300), insert(1, "1"))
    visible, session, met = Visible(log), Session(), []
    through = log.transactions
    monkeypatch.setattr(log, "transactions", lambda after: (met.append(done.place) or done for done in through(after)))
    assert visible.since(session, (200,)) == (START,)
    session.sees = 201
    assert visible.since(session, (200,)) == (200,)
    met.clear()
    assert visible.since(session, (200,)) == (200,)
    assert visible.since(session, (150,)) == (150,)
    assert met == []
    assert visible.since(session, (250, 1)) == (210,)
    assert met[:2] == [(210,), (220,)]
    session.sees = 241
    assert visible.since(session, (250, 1)) == (250, 0)
    session.sees = 251
    assert visible.since(session, (250, 1)) == (250, 1)
    session.sees = 300
    assert visible.since(session, (300, 1)) == (300, 0)
    session.sees = 301
    assert visible.since(session, (300, 1)) == (300, 1)


def test_the_transaction_around_a_place(small: Log) -> None:
    """Also of one that is only just coming in, and wherever its beginning lies by now."""
    feed(small, *script(1), begin(9000, xid=5), *(insert(1, str(n)) for n in range(50)))
    for row in small.read((START,), 1_000_000).entries:
        if isinstance(row, Row):
            assert small.within(row.place) == row.transaction
    assert small.within((9000, 50)) == Committed(9000, 5, small.within((9000, 1)).at, "")
    assert small.within((8999,)) is None


@pytest.mark.parametrize("seed", range(3))
def test_finding_the_rows_of_a_table(small: Log, seed: int) -> None:
    """Between two places, and without loading what holds none of them."""
    feed(small, *script(seed))
    rows = [entry for entry in small.read((START,), 1_000_000).entries if isinstance(entry, Row)]
    for after, until in [((START,), rows[-1].place), (rows[10].place, rows[200].place), (rows[30].place,) * 2]:
        for oids in ({3}, {1, 3}, {9}):
            wanted = [row for row in rows if row.relation.oid in oids and after < row.place <= until]
            assert list(small.find(oids, after, until)) == wanted
    loaded = small.held
    assert list(small.find({9}, (START,), rows[-1].place)) == []
    assert small.held == loaded


def test_trimming_gives_memory_and_disk_back(small: Log) -> None:
    """What was let go cannot be read; what follows it can."""
    feed(small, *script(1))
    everything = small.read((START,), 1_000_000).entries
    middle = everything[len(everything) // 2].place
    assert small.stored > 0
    small.trim(middle)
    assert (START,) < small.floor <= middle
    assert small.read(middle, 1_000_000).entries == everything[len(everything) // 2 + 1 :]
    with pytest.raises(PositionLost, match="asked for what follows 0/64"):
        small.read((START,), 1)
    with pytest.raises(PositionLost):
        list(small.find({1}, (START,), middle))
    small.trim((START,))
    small.trim(everything[-1].place)
    assert (small.held, small.stored) == (0, 0)
    feed(small, begin(9000), insert(1, "behind"), commit(9000, 9001))
    assert shown(small, everything[-1].place) == ["9000.1 t1 behind", "9001 done"]


def test_a_part_of_a_transaction_can_be_let_go(small: Log) -> None:
    """Else a transaction larger than the disk could not be carried."""
    feed(small, relation(1, "a"), begin(110), *(insert(1, f"{n}") for n in range(1, 101)))
    small.trim((110, 50))
    feed(small, *(insert(1, f"{n}") for n in range(101, 151)), commit(110, 118))
    assert shown(small, (110, 50)) == [*(f"110.{n} t1 {n}" for n in range(51, 151)), "118 done"]
    assert not small.is_settled(110)


def test_waiting_and_the_end(log: Log) -> None:
    """Readers wait for what they ask; when nothing more will come they get what is there, then the reason."""
    assert not log.wait(118, 0)
    with ThreadPoolExecutor(2) as pool:
        waiting, reading = pool.submit(log.wait, 118, 30), pool.submit(log.read, (START,), 10, 30)
        feed(log, begin(110), relation(1, "a"), insert(1, "1"), commit(110, 118))
        assert waiting.result()
        assert reading.result().entries
        late = pool.submit(log.read, (118,), 10, 30)
        log.fail(Unavailable("gone", "come back"))
        log.fail(Unavailable("too late"))
        with pytest.raises(Unavailable, match="gone — come back"):
            late.result()
    assert shown(log) == ["110.1 t1 1", "118 done"]
    assert log.wait(118, 0)
    with pytest.raises(Unavailable, match="gone"):
        log.wait(119, 30)


@pytest.mark.parametrize("after", [(START,), (110, 1), (118,), (150,)], ids=["start", "within", "end", "behind"])
def test_a_closed_log_has_ended_and_has_lost_nothing(log: Log, after: tuple[int, ...]) -> None:
    """Who still reads a log that another thread has closed, to open the next one, is told why: it goes on there.

    What nobody has let go is not lost, and that nothing is here any more does not mean that there was nothing.
    """
    feed(log, begin(110), relation(1, "a"), insert(1, "1"), message("m"), commit(110, 118))
    log.alive(150)
    log.fail(Unavailable("gone", "come back"))
    log.close()
    readings = [
        lambda: log.read(after, 10, 30),
        lambda: list(log.find({1}, after, (1000,))),
        lambda: list(log.find({1}, after, (START,))),
        lambda: list(log.notes(after)),
        lambda: list(log.transactions(after)),
        lambda: log.last_change(after, (1000,)),
    ]
    for reading in readings:
        with pytest.raises(Unavailable, match="gone — come back"):
            reading()


def test_a_log_that_is_closed_under_its_reader_does_not_look_read(small: Log) -> None:
    """Whoever is in the middle of it is told."""
    feed(small, *script(1))
    found = small.find({1}, (START,), small.seen)
    next(found)
    small.close()
    with pytest.raises(Unavailable, match="closed"):
        list(found)


def test_readers_beside_the_writer(small: Log) -> None:
    """Each of several readers gets everything once and in order."""
    last = (1_000_000,)

    def follow(limit: int) -> list[str]:
        found, after = [], (START,)
        while after < last:
            reading = small.read(after, limit, 30)
            found += [brief(entry) for entry in reading.entries]
            after = reading.place
        return found

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(follow, limit) for limit in (1, 10, 1000)]
        for data in script(1):
            small.receive(data)
        small.alive(last[0])
        first, *others = [reader.result(60) for reader in readers]
    assert len(first) > 100
    assert all(other == first for other in others)


def test_lsns_as_text() -> None:
    """Both halves are hexadecimal, without leading zeros."""
    assert lsn_text(0x16B374D848) == "16/B374D848"
    assert lsn_of("16/B374D848") == 0x16B374D848
    assert lsn_text(lsn_of("0/0")) == "0/0"


@pytest.mark.parametrize(("who", "kept"), [("ours", 0), ("another", 2)])
def test_rows_of_a_quiet_transaction_are_not_kept(who: str, kept: int) -> None:
    """Only what a transaction of ours says of itself; nobody else can keep rows out of the log."""
    log = Log(START, PREFIX, whole=["ours"])
    feed(log, begin(200), origin(who), message("quiet"), relation(1, "a"), insert(1, "x"), insert(1, "y"))
    feed(log, message("the marker"), commit(200, 210))
    feed(log, begin(220), insert(1, "z"), commit(220, 230))
    entries = log.read((START,), 100).entries
    assert [entry.content for entry in entries if isinstance(entry, Note)][-1] == "the marker"
    rows = [entry for entry in entries if isinstance(entry, Row)]
    assert [row.transaction.origin for row in rows] == [who] * kept + [""]
