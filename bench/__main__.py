"""``make bench``: rates, and their ratios to what the machine can do at best or to what peers do on it.

``python -m bench [--only sqlite|postgresql] [--case NAME] [--rows N] [--repeat N] [--quick]``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench import postgresql, sqlite

Bench = TypeVar("Bench")


def main() -> None:
    """Measure everything that was asked for."""
    cases = sorted({*postgresql.CASES, *sqlite.CASES})
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="one kind of database")
    parser.add_argument("--case", choices=cases, action="append", help="only this case; may be repeated")
    parser.add_argument("--rows", type=int, help="rows of the table (SQLite: 200,000; PostgreSQL: 1,000,000)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement, PostgreSQL only (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, each measurement once")
    chosen = parser.parse_args()
    share, repeat = (10, 1) if chosen.quick else (1, chosen.repeat)
    with tempfile.TemporaryDirectory(prefix="dualwrite-bench-") as scratch:
        if chosen.only != "postgresql":
            announce("SQLite to SQLite")
            run(sqlite.CASES, chosen.case, sqlite.Bench(Path(scratch), (chosen.rows or 200_000) // share))
        if chosen.only != "sqlite":
            announce("PostgreSQL to PostgreSQL")
            with postgresql.Bench.started(Path(scratch), (chosen.rows or 1_000_000) // share, repeat) as bench:
                run(postgresql.CASES, chosen.case, bench)


def announce(what: str) -> None:
    """Say what is measured, and how busy the machine is already."""
    print(f"\n{what}: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)


def run(cases: dict[str, Callable[[Bench], None]], chosen: list[str] | None, bench: Bench) -> None:
    """The chosen ones of the cases, all where none is chosen."""
    for name, case in cases.items():
        if chosen is None or name in chosen:
            case(bench)


if __name__ == "__main__":
    main()
