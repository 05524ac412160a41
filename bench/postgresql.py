"""PostgreSQL to PostgreSQL, against ``psql`` and PostgreSQL's own logical replication on the same servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import clients, published
from bench.processes import measured, running, sync
from bench.report import latencies, median, report, timed
from bench.servers import Database, Servers, copied, copy_out, pipe, started, subscribe


@dataclass
class Bench:
    """Two servers, how many rows the tables have, and how often each measurement is made."""

    servers: Servers
    rows: int
    repeat: int

    @classmethod
    @contextmanager
    def started(cls, scratch: Path, rows: int, repeat: int) -> Iterator[Bench]:
        """With servers of its own, which end with it."""
        with started(scratch) as servers:
            yield cls(servers, rows, repeat)

    def medians(self, *measurements: Callable[[], float]) -> list[float]:
        """The medians of measurements, which take turns."""
        found = [[measure() for measure in measurements] for _ in range(self.repeat)]
        return [median(column) for column in zip(*found, strict=True)]


def initial(bench: Bench) -> None:
    """Initial sync into an empty table."""
    peaks = [0.0]

    def ours() -> float:
        with bench.servers.pair(bench.rows, 0) as (left, right):
            seconds, peak = measured(sync, bench.servers.project(left, right))
            peaks.append(peak)
            assert right.run("SELECT count(*) FROM accounts") == [(bench.rows,)]
            return seconds

    def piped() -> float:
        with bench.servers.pair(bench.rows, 0) as (left, right):
            return timed(lambda: pipe(left, right))

    def native() -> float:
        with bench.servers.pair(bench.rows, 0) as (left, right):
            began = time.perf_counter()
            subscribe(left, right, copy=True)
            copied(right)
            return time.perf_counter() - began

    limit, peer, seconds = bench.medians(piped, native, ours)
    report("psql COPY out | COPY in", bench.rows, limit)
    report("initial copy of a native subscription", bench.rows, peer, limit)
    note = f"{seconds / peer:.2f} × native, peak {max(peaks):.0f} MB"
    report("initial sync, empty target", bench.rows, seconds, limit, note)


def equal(bench: Bench) -> None:
    """Initial sync of tables that agree in 99 of 100 records."""
    peaks = [0.0]

    def reading() -> float:
        with bench.servers.pair(bench.rows, bench.rows, differing=True) as (left, right):
            return timed(lambda: copy_out(left, "customers")) + timed(lambda: copy_out(right, "accounts"))

    def ours() -> float:
        with bench.servers.pair(bench.rows, bench.rows, differing=True) as (left, right):
            seconds, peak = measured(sync, bench.servers.project(left, right))
            peaks.append(peak)
            assert right.run("SELECT count(*) FROM accounts WHERE text0 = 'different'") == [(0,)]
            return seconds

    limit, seconds = bench.medians(reading, ours)
    report("reading both sides once, psql COPY out", 2 * bench.rows, limit)
    report("initial sync, 99 % equal", 2 * bench.rows, seconds, limit, f"peak {max(peaks):.0f} MB (limit: reading)")


def update(bench: Bench) -> None:
    """One large update, from its commit to the arrival of its last row."""
    count = bench.rows // 5
    peaks = [0.0]

    def one(left: Database, right: Database, table: str, key: str) -> float:
        warm(left, right, table, key)
        left.run("CHECKPOINT")
        left.run("UPDATE customers SET text1 = 'large update'")
        began = time.perf_counter()
        right.wait(f"SELECT text1 FROM {table} WHERE {key} = 'C{count - 1:08d}'", "large update")
        seconds = time.perf_counter() - began
        assert right.run(f"SELECT count(*) FROM {table} WHERE text1 = 'large update'") == [(count,)]
        return seconds

    def native(options: str) -> Callable[[], float]:
        def measure() -> float:
            with bench.servers.pair(count, count) as (left, right):
                subscribe(left, right, copy=False, options=options)
                return one(left, right, "customers", "account")

        return measure

    def ours() -> float:
        with bench.servers.pair(count, count) as (left, right):
            folder = bench.servers.project(left, right)
            sync(folder)
            with running(folder) as engine:
                seconds = one(left, right, "accounts", "accountnumber")
            peaks.append(engine.peak)
            return seconds

    peer, ahead, seconds = bench.medians(native(", streaming = off"), native(""), ours)
    report("one update, native, applied after its commit", count, peer)
    report("one update, native, applied while it runs", count, ahead, peer, "(PostgreSQL's default from 18 on)")
    note = f"{peer / seconds:.2f} × native's rate, peak {max(peaks):.0f} MB (limit: native)"
    report("one update, commit to arrival of the last", count, seconds, peer, note)


def warm(left: Database, right: Database, table: str, key: str) -> None:
    """Wait until changes flow."""
    left.run("UPDATE customers SET text2 = 'warm' WHERE account = 'C00000001'")
    right.wait(f"SELECT text2 FROM {table} WHERE {key} = 'C00000001'", "warm")


def singles(bench: Bench) -> None:
    """Eight clients, four on each side, with single-row commits: as fast as they can, then 500 a second."""
    count = bench.rows // 5
    seconds = 10 if bench.repeat > 1 else 4
    peaks = [0.0]

    def one(left: Database, right: Database, tables: clients.Tables) -> tuple[float, float, list[float]]:
        warm(left, right, *tables.right)
        written, arrived = clients.burst(left, right, tables, count, seconds)
        return written, arrived, clients.latencies(left, right, tables, count, seconds)

    def native() -> tuple[float, float, list[float]]:
        with bench.servers.pair(count, count) as (left, right):
            subscribe(left, right, copy=False, options=", origin = none")
            subscribe(right, left, copy=False, options=", origin = none")
            return one(left, right, clients.NATIVE)

    def ours() -> tuple[float, float, list[float]]:
        with bench.servers.pair(count, count) as (left, right):
            folder = bench.servers.project(left, right)
            sync(folder)
            with running(folder) as engine:
                found = one(left, right, clients.OURS)
            peaks.append(engine.peak)
            return found

    results = [(native(), ours()) for _ in range(bench.repeat)]
    for place, name in enumerate(("native, both ways", "dualwrite, both ways")):
        mine = [result[place] for result in results]
        peer = median([result[0][1] for result in results])
        written, arrived = median([each[0] for each in mine]), median([each[1] for each in mine])
        note = f"{arrived / peer:.2f} × native's rate" + f", peak {max(peaks):.0f} MB" * place
        print(f"{'8 clients, ' + name:<48} {written:>8,.0f} commits/s written, {arrived:,.0f} arrived  {note}")
        latencies(f"500 commits/s, {name}", [one for each in mine for one in each[2]])


def demo(bench: Bench) -> None:
    """The demo's project."""
    servers = bench.servers
    published.on_postgresql(servers.scratch / "published-postgresql", bench.rows // 100, servers.left, servers.right)


CASES: dict[str, Callable[[Bench], None]] = {
    "initial": initial,
    "equal": equal,
    "update": update,
    "singles": singles,
    "published": demo,
}
