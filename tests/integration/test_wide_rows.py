"""Rows of many kilobytes: however many there are, an engine holds few of them at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from dualwrite.testing.postgresql import Server

ROWS, WIDTH = 1_500, 100_000
MOST = 230
"""MB that the engine may hold; one side has 150 MB of rows, and a program without any takes 70."""
TABLES = {"left": "item", "right": "thing"}
MAPS = {"items": "map: items\nleft: item\nright: thing\nkey: [code]\ncolumns:\n  - code = code\n  - note = note\n"}


@dataclass(frozen=True)
class System:
    """A database with an empty table: its url, how a statement is run in it, and a long text in its language."""

    url: str
    run: Callable[[str], list[tuple[object, ...]]]
    text: str


@pytest.fixture(params=["sqlite", "postgresql"])
def systems(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, System]]:
    """The two sides."""

    def in_file(file: Path) -> System:
        def run(statement: str) -> list[tuple[object, ...]]:
            with closing(sqlite3.connect(file)) as connection, connection:
                return connection.execute(statement).fetchall()

        return System(f"sqlite:///{file}", run, f"replace(hex(zeroblob({WIDTH // 2})), '0', 'x')")

    def on_server(server: Server) -> System:
        database = stack.enter_context(server.database(""))
        return System(database.url, database.run, f"repeat('x', {WIDTH})")

    with ExitStack() as stack:
        if request.param == "sqlite":
            found = {side: in_file(tmp_path / f"{side}.db") for side in TABLES}
        else:
            found = {side: on_server(request.getfixturevalue("postgresql")) for side in TABLES}
        for side, system in found.items():
            system.run(f"CREATE TABLE {TABLES[side]} (code text PRIMARY KEY NOT NULL, note text)")
        yield found


def fill(systems: Mapping[str, System], side: str) -> None:
    """Put the rows into a side, in an order of its own."""
    rows = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}"
    system = systems[side]
    system.run(
        f"WITH RECURSIVE n (i) AS ({rows}) INSERT INTO {TABLES[side]} "
        f"SELECT 'c' || i, {system.text} || i FROM n ORDER BY random()"
    )


@pytest.mark.parametrize("filled", [["left"], ["left", "right"]], ids=["carried", "compared"])
def test_wide_rows_are_carried_in_bounded_memory(systems: Mapping[str, System], pair, filled: list[str]) -> None:
    """In an initial sync into an empty side, in one of sides that agree, and as one large update."""
    for side in filled:
        fill(systems, side)
    project = pair({side: system.url for side, system in systems.items()}, MAPS)
    project.call("start")
    with project.engine() as process:
        systems["left"].run("UPDATE item SET note = 'y' || note")
        last = "SELECT count(*) FROM thing WHERE note LIKE 'y%'"
        project.until(lambda: process.poll() is not None or systems["right"].run(last) == [(ROWS,)])
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        assert next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")) < MOST
        assert project.end(process).code == 0
    sums = "SELECT count(*), sum(length(note)), count(DISTINCT code) FROM "
    assert systems["left"].run(sums + "item") == systems["right"].run(sums + "thing")
