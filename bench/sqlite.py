"""SQLite to SQLite."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import published
from bench.many import many
from bench.processes import catch_up, drain, examined, look_at_data, measured, queue_up, running, sync
from bench.report import latencies, median, report, timed
from bench.tables import LEFT, LEFT_COLUMNS, PROJECT, build, copy_by_sql, rows


def initial(scratch: Path, count: int) -> None:
    """Initial sync into an empty table, against what SQLite does by itself."""
    left, right = build(scratch / "limit", count)
    limit = timed(lambda: copy_by_sql(left, right))
    report("ATTACH + INSERT … SELECT, same mapping", count, limit)
    folder = scratch / "initial"
    left, right = build(folder, count)
    seconds, peak = measured(sync, folder)
    report("initial sync, empty target", count, seconds, limit, f"peak {peak:.0f} MB")
    with closing(sqlite3.connect(right)) as database:
        copied = database.execute("SELECT count(*) FROM accounts").fetchone()[0]
        assert copied == count, copied


def equal(scratch: Path, count: int) -> None:
    """Initial sync of tables that agree in 99 of 100 records, against reading both sides once."""
    folder = scratch / "equal"
    left, right = build(folder, count)
    copy_by_sql(left, right)
    with closing(sqlite3.connect(right)) as database, database:
        database.execute("UPDATE accounts SET text0 = 'different' WHERE rowid % 100 = 0")
    reading = timed(lambda: read_all(left, right))
    report("reading both sides once", 2 * count, reading)
    seconds, peak = measured(sync, folder)
    report("initial sync, 99 % equal", count, seconds, reading, f"peak {peak:.0f} MB (limit: reading both)")


def read_all(left: Path, right: Path) -> None:
    """Fetch every row of both tables."""
    for file, table in ((left, "customers"), (right, "accounts")):
        with closing(sqlite3.connect(file)) as database:
            cursor = database.execute(f"SELECT * FROM {table}")
            while cursor.fetchmany(2_000):
                pass


def update(folder: Path, count: int) -> None:
    """One large update, until the last row has arrived."""
    left, right = folder / "left.db", folder / "right.db"
    with running(folder) as engine:
        began = time.perf_counter()
        with closing(sqlite3.connect(left, timeout=60)) as database, database:
            database.execute("UPDATE customers SET TEXT1 = 'large update' WHERE rowid <= ?", (count,))
        written = time.perf_counter() - began
        last = f"C{count - 1:08d}"  # changes arrive in the order in which they were made
        wait_for(right, f"SELECT count(*) FROM accounts WHERE accountnumber = '{last}' AND text1 = 'large update'", 1)
        seconds = time.perf_counter() - began
    note = f"peak {engine.peak:.0f} MB (limit: the update)"
    report("one update, commit to arrival of the last", count, seconds, written, note)
    assert counted(right, "accounts", "text1 = 'large update'") == count


def singles(folder: Path) -> None:
    """Single-row commits: one at a time, then a burst."""
    left, right = folder / "left.db", folder / "right.db"
    with running(folder):
        latencies("single-row commits, commit to commit", [latency(left, right, number) for number in range(300)])
        commits = 5_000
        began = time.perf_counter()
        with closing(sqlite3.connect(left, timeout=60, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = NORMAL")
            for number in range(commits):
                database.execute("UPDATE customers SET TEXT2 = ? WHERE rowid = ?", (f"burst {number}", number + 1))
        written = time.perf_counter() - began
        wait_for(right, "SELECT count(*) FROM accounts WHERE text2 LIKE 'burst%'", commits)
        report("a burst of single-row commits", commits, time.perf_counter() - began, written, "(limit: the writer)")


def backlog(folder: Path, count: int) -> None:
    """Both sides edit the same records in different columns while no engine runs."""
    left, right = folder / "left.db", folder / "right.db"
    edits = (
        (left, "UPDATE customers SET TEXT6 = 'left edit' WHERE rowid <= ?"),
        (right, "UPDATE accounts SET text7 = 'right edit' WHERE rowid <= ?"),
    )
    written = sum(timed(partial(write, file, statement, [(count,)])) for file, statement in edits)
    seconds, peak = measured(sync, folder)
    report("a backlog of both sides", 2 * count, seconds, written, f"peak {peak:.0f} MB (limit: the two updates)")
    assert counted(left, "customers", "TEXT6 = 'left edit' AND TEXT7 = 'right edit'") == count
    assert counted(right, "accounts", "text6 = 'left edit' AND text7 = 'right edit'") == count


def audited(folder: Path, count: int) -> None:
    """What the audit costs: the same loads with it and without it, in turns; seconds are those of the processor."""
    costs: dict[str, list[float]] = {"off": [], "on": []}
    singly: dict[str, list[float]] = {"off": [], "on": []}
    waits: dict[str, list[float]] = {"off": [], "on": []}
    for turn in range(3):
        for audit in costs:
            (folder / "dualwrite.yaml").write_text(PROJECT + {"off": "audit: off\n", "on": ""}[audit])
            nothing = examined(sync, folder).worked
            statement = f"UPDATE customers SET TEXT8 = 'turn {turn} {audit}' || rowid WHERE rowid <= ?"
            write(folder / "left.db", statement, [(count,)])
            costs[audit].append(examined(sync, folder).worked - nothing)
            worked, found = single(folder, 1_000)
            singly[audit].append(worked)
            waits[audit] += found
    for case, rows_of, found in (("one update", count, costs), ("single-row commits", 1_000, singly)):
        without = median(found["off"])
        report(f"{case}, without the audit", rows_of, without, note="of processor")
        report(f"{case}, with the audit", rows_of, median(found["on"]), without, "(limit: without the audit)")
    for audit, found in waits.items():
        latencies(f"single-row commits, audit {audit}", found)
    (folder / "dualwrite.yaml").write_text(PROJECT)


def single(folder: Path, count: int) -> tuple[float, list[float]]:
    """Seconds of the processor for commits that come one at a time, and the seconds of each."""
    left, right = folder / "left.db", folder / "right.db"
    with running(folder) as engine:
        found = [latency(left, right, number) for number in range(count)]
    return engine.worked, found


def bad_data(scratch: Path, count: int) -> None:
    """``check --data`` of a table in which every record is bad, in three columns, against reading it once."""
    folder = scratch / "bad"
    left, right = build(folder, count)
    with closing(sqlite3.connect(left)) as database, database:
        database.execute("UPDATE customers SET TEXT0 = printf('%.70c', 'x') || rowid, FLAG0 = 'odd', AMOUNT0 = 1e17")
    reading = timed(lambda: read_all(left, right))
    report("reading the table once", count, reading)
    seconds, peak = measured(look_at_data, folder)
    report("check --data, every record bad", count, seconds, reading, f"peak {peak:.0f} MB (limit: reading)")
    with closing(sqlite3.connect(left)) as database, database:
        database.execute("UPDATE customers SET TEXT0 = 'x', FLAG0 = 'no', AMOUNT0 = NULL WHERE rowid > 1")
    seconds, peak = measured(look_at_data, folder)
    report("check --data, one record bad", count, seconds, reading, f"peak {peak:.0f} MB (limit: reading)")


def catching_up(folder: Path, count: int, records: int) -> None:
    """A paused map's queue of so many changes of so many records: until it is kept, and until it is carried."""
    left, right = folder / "left.db", folder / "right.db"
    measured(queue_up, folder)
    statement = "UPDATE customers SET TEXT8 = 'turn ' || ? WHERE rowid <= ?"
    turns = count // records
    written = timed(partial(write, left, statement, [(turn, records) for turn in range(turns)]))
    what = f"{count:,} changes of {records:,} records"
    journal = folder / ".dualwrite" / "journal.db"
    before = journal.stat().st_size
    for step, doing in (("queueing", drain), ("catching up", catch_up)):
        found = examined(doing, folder)
        note = f"{found.worked / count * 1e6:.0f} µs of processor each, peak {found.peak:.0f} MB (limit: the updates)"
        report(f"{step} {what}", count, found.seconds, written, note)
        if doing is drain:
            print(f"{'in the journal':<48} {(journal.stat().st_size - before) / count:>8,.0f} bytes each", flush=True)
    assert counted(right, "accounts", f"text8 = 'turn {turns - 1}'") == records


def counted(file: Path, table: str, condition: str) -> int:
    """How many rows of a table are so."""
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0])


def latency(left: Path, right: Path, number: int) -> float:
    """Seconds from the end of one commit to the moment at which another process sees it on the other side."""
    account, word = f"C{number:08d}", f"latency {number} {random.random()}"
    with closing(sqlite3.connect(right)) as reader, closing(sqlite3.connect(left, timeout=60)) as writer:
        with writer:
            writer.execute("UPDATE customers SET TEXT3 = ? WHERE ACCOUNT = ?", (word, account))
        began = time.perf_counter()
        while reader.execute("SELECT text3 FROM accounts WHERE accountnumber = ?", (account,)).fetchone()[0] != word:
            time.sleep(0.0002)
        return time.perf_counter() - began


def wait_for(file: Path, query: str, wanted: int) -> None:
    """Wait until a count is reached."""
    deadline = time.monotonic() + 600
    with closing(sqlite3.connect(file, timeout=60)) as database:
        while database.execute(query).fetchone()[0] != wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"{query} does not reach {wanted}")
            time.sleep(0.01)


def triggers(scratch: Path, count: int) -> None:
    """What capture costs the application."""
    folder = scratch / "triggers"
    left, _ = build(folder, 0)
    bare = scratch / "bare.db"
    with closing(sqlite3.connect(bare)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(LEFT)
    sync(folder)
    values = list(rows(count))
    marks = ", ".join("?" * len(LEFT_COLUMNS))
    for case, statement, chosen in (
        ("bulk insert", f"INSERT INTO customers VALUES ({marks})", values),
        ("bulk update", "UPDATE customers SET TEXT4 = ? WHERE ACCOUNT = ?", [("new", value[0]) for value in values]),
    ):
        limit, seconds = (timed(partial(write, file, statement, chosen)) for file in (bare, left))
        report(f"{case} with capture triggers", count, seconds, limit, "(limit: without them)")
    one = [("single", value[0]) for value in values[:2_000]]
    limit, seconds = (timed(partial(write_singly, file, one)) for file in (bare, left))
    report("single-row commits with capture triggers", len(one), seconds, limit, "(limit: without them)")


def write(file: Path, statement: str, values: Sequence[tuple[str | float, ...]]) -> None:
    """Many rows in one transaction."""
    with closing(sqlite3.connect(file, timeout=60)) as database, database:
        database.executemany(statement, values)


def write_singly(file: Path, values: list[tuple[str, str | float]]) -> None:
    """A transaction per row."""
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
        for value in values:
            database.execute("UPDATE customers SET TEXT5 = ? WHERE ACCOUNT = ?", value)


@dataclass
class Bench:
    """A folder for the databases, and how many rows they have."""

    scratch: Path
    rows: int
    _equal: Path | None = None

    def equal(self) -> Path:
        """A project whose sides agree."""
        if self._equal is None:
            self._equal = self.scratch / "agreed"
            copy_by_sql(*build(self._equal, self.rows))
            sync(self._equal)
        return self._equal


CASES: dict[str, Callable[[Bench], None]] = {
    "initial": lambda bench: initial(bench.scratch, bench.rows),
    "equal": lambda bench: equal(bench.scratch, bench.rows),
    "update": lambda bench: update(bench.equal(), bench.rows // 2),
    "singles": lambda bench: singles(bench.equal()),
    "backlog": lambda bench: backlog(bench.equal(), bench.rows // 2),
    "audit": lambda bench: audited(bench.equal(), bench.rows // 2),
    "catch-up": lambda bench: catching_up(bench.equal(), 5 * bench.rows, bench.rows // 2),
    "catch-up of few": lambda bench: catching_up(bench.equal(), 5 * bench.rows, bench.rows // 200),
    "many": lambda bench: many(bench.scratch / "many"),
    "published": lambda bench: published.on_sqlite(bench.scratch / "published", bench.rows // 20),
    "bad data": lambda bench: bad_data(bench.scratch, bench.rows),
    "triggers": lambda bench: triggers(bench.scratch, min(bench.rows, 50_000)),
}
