"""The demo's project: sixteen maps that Microsoft has published, some of whose rows follow a dozen references."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.processes import examined, running, sync
from bench.report import report
from dualwrite.demo.data import LEFT, RIGHT, build
from dualwrite.testing.demo_postgresql import build_on_postgresql
from dualwrite.testing.postgresql import Server

Ask = Callable[[str], object]
"""Runs a statement on one side; returns its first cell."""
LARGE = "UPDATE accounts SET creditlimit = coalesce(creditlimit, 0) + 2000000"
OURS = "SELECT count(*) FROM accounts WHERE customertypecode = 3 AND msdyn_company IS NOT NULL"
ARRIVED = 'SELECT count(*) FROM "CustomersV3" WHERE "CREDITLIMIT" > 1000000'
PATIENCE = 900.0


def on_sqlite(folder: Path, customers: int) -> None:
    """Between two files."""
    build(folder, customers=customers)

    def asking(file: str) -> Ask:
        def ask(statement: str) -> object:
            with closing(sqlite3.connect(folder / file, timeout=60)) as database, database:
                found = database.execute(statement).fetchone()
            return found and found[0]

        return ask

    _measure(folder, customers, asking(LEFT), asking(RIGHT))


def on_postgresql(folder: Path, customers: int, left: Server, right: Server) -> None:
    """Between two servers."""
    with left.database() as finops, right.database() as crm:
        build_on_postgresql(folder, finops, crm, customers=customers)

        def asking(run: Callable[[str], list[tuple[object, ...]]]) -> Ask:
            def ask(statement: str) -> object:
                found = run(statement)
                return found[0][0] if found else None

            return ask

        _measure(folder, customers, asking(finops.run), asking(crm.run))


def _measure(folder: Path, customers: int, finops: Ask, crm: Ask) -> None:
    found = examined(sync, folder)
    note = f"processor {1e6 * found.worked / customers:,.0f} µs per customer, peak {found.peak:.0f} MB"
    report("demo's maps, initial sync, by customers", customers, found.seconds, note=note)
    accounts = crm(OURS)
    assert isinstance(accounts, int)
    with running(folder) as engine:
        began = time.perf_counter()
        crm(LARGE)
        while finops(ARRIVED) != accounts:
            assert time.perf_counter() - began < PATIENCE, "it does not arrive"
            time.sleep(0.02)
        seconds = time.perf_counter() - began
    note = f"processor {1e6 * engine.worked / accounts:,.0f} µs per account, peak {engine.peak:.0f} MB"
    report("demo's maps, one update of all accounts", accounts, seconds, note=note)
