"""Runs the same edits under dualwrite and under PostgreSQL's own logical replication both ways, and prints both.

``python docs/native.py`` rewrites the table in ``conflicts.md``.  A test runs it too and holds the table against it.

Each case has tables of its own.  Its first rows are made on the left and carried to the right.  Then both links pause;
the case's edits are made on both sides, and after them a row on each side that has nothing to do with them; then both
links go on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dualwrite.testing.postgresql import Database, Server

PAGE = Path(__file__).parent / "conflicts.md"
SETTINGS = {
    "max_worker_processes": "100",
    "max_logical_replication_workers": "80",
    "max_replication_slots": "100",
    "max_wal_senders": "100",
    "max_active_replication_origins": "100",
    "max_connections": "250",
    "track_commit_timestamp": "on",  # native conflicts are noticed only with it
    "wal_retrieve_retry_interval": "1s",  # a worker that failed is started anew after that long
    "wal_receiver_status_interval": "1s",
}
PATIENCE = 120.0
SKEW = 300
"""Seconds by which the right clock is ahead, where two clocks differ."""
MANY = 2_000
_BLOCK = re.compile(r"(<!-- native -->\n).*?(<!-- end -->)", re.DOTALL)

COLUMNS = "id int PRIMARY KEY, a text, b text"
ROW = "INSERT INTO {t} VALUES (1, 'x', 'y')"


@dataclass(frozen=True)
class Case:
    """Edits of both sides: what people expect of them, and how what came of them is shown.

    ``{t}`` is the case's table, ``{p}`` a parent of it; ``mapped`` are those of the two that are linked.  The left side
    edits after the right one.
    """

    what: str
    expected: str
    right: str = ""
    left: str = ""
    columns: str = COLUMNS
    start: str = ROW
    parent: str = ""
    mapped: tuple[str, ...] = ("{t}",)
    lines: tuple[str, ...] = ("a = a", "b = b")
    shown: str = "SELECT id || ': ' || concat_ws(', ', a, b) FROM {t} WHERE id < 90 ORDER BY id"


CASES = (
    Case(
        "an edit on the right, its row edited on the left before",
        "the edit on both",
        right="UPDATE {t} SET a = 'second'",
        start="INSERT INTO {t} VALUES (1, 'first', 'y')",
    ),
    Case(
        "different columns of one row",
        "both edits on both",
        right="UPDATE {t} SET b = 'right'",
        left="UPDATE {t} SET a = 'left'",
    ),
    Case(
        "the same column of one row: the left edit is the later one, and the right clock five minutes ahead",
        "the later edit on both, the other on record",
        right="UPDATE {t} SET a = 'right'",
        left="UPDATE {t} SET a = 'left'",
    ),
    Case(
        "both take from a stock of 10 (`conflict: sum`)",
        "5 on both",
        right="UPDATE {t} SET n = n - 3",
        left="UPDATE {t} SET n = n - 2",
        columns="id int PRIMARY KEY, n int",
        start="INSERT INTO {t} VALUES (1, 10)",
        lines=("n = n: {conflict: sum}",),
        shown="SELECT id || ': ' || n FROM {t} WHERE id < 90",
    ),
    Case(
        "both insert id 2",
        "one row on both, the other's values on record",
        right="INSERT INTO {t} VALUES (2, 'right', 'r')",
        left="INSERT INTO {t} VALUES (2, 'left', 'l')",
    ),
    Case(
        "an update against a delete",
        "the same on both, nothing lost in silence",
        right="DELETE FROM {t}",
        left="UPDATE {t} SET a = 'left'",
    ),
    Case(
        "both delete",
        "deleted on both",
        right="DELETE FROM {t}",
        left="DELETE FROM {t}",
    ),
    Case(
        "delete and insert again, nothing on the other side",
        "the new row on both",
        left="DELETE FROM {t}; INSERT INTO {t} VALUES (1, 'new', 'new')",
    ),
    Case(
        "delete and insert again, against an update",
        "the same on both, nothing lost in silence",
        right="UPDATE {t} SET b = 'right'",
        left="DELETE FROM {t}; INSERT INTO {t} VALUES (1, 'new', 'new')",
    ),
    Case(
        "two unique values are swapped",
        "swapped on both",
        left="UPDATE {t} SET a = 'spare' WHERE id = 1; UPDATE {t} SET a = 'x' WHERE id = 2; "
        "UPDATE {t} SET a = 'z' WHERE id = 1",
        columns="id int PRIMARY KEY, a text UNIQUE, b text",
        start="INSERT INTO {t} VALUES (1, 'x', 'y'), (2, 'z', 'y')",
    ),
    Case(
        "a parent and its child in one transaction, the child's table not linked",
        "the parent on both",
        left="INSERT INTO {p} VALUES ('p', 'n'); INSERT INTO {t} VALUES (1, 'p')",
        columns="id int PRIMARY KEY, parent text REFERENCES {p}",
        start="",
        parent="code text PRIMARY KEY, name text",
        mapped=("{p}",),
        lines=("name = name",),
        shown="SELECT 'parent ' || code FROM {p} WHERE code = 'p'",
    ),
    Case(
        "the same, the parent's table not linked",
        "no child without its parent",
        left="INSERT INTO {p} VALUES ('p', 'n'); INSERT INTO {t} VALUES (1, 'p')",
        columns="id int PRIMARY KEY, parent text REFERENCES {p}",
        start="",
        parent="code text PRIMARY KEY, name text",
        lines=("parent.code = parent.code",),
        shown="SELECT CASE WHEN code IS NULL THEN 'a child without its parent' ELSE 'child and parent' END "
        "FROM {t} LEFT JOIN {p} ON code = parent WHERE id < 90",
    ),
    Case(
        f"{MANY:,} queued changes, and edits of another column of each tenth row",
        "every edit on both",
        right="UPDATE {t} SET b = 'right' WHERE id % 10 = 0",
        left="UPDATE {t} SET a = 'left'",
        start=f"INSERT INTO {{t}} SELECT -i, 'x', 'y' FROM generate_series(1, {MANY}) i",
        shown="SELECT count(*) FILTER (WHERE a = 'left') || ' and ' || count(*) FILTER (WHERE b = 'right') || ' edits' "
        "FROM {t} WHERE id < 90",
    ),
)
CLOCKS = CASES[2]
"""The case that needs a server whose clock runs ahead."""


@dataclass(frozen=True)
class Result:
    """What came of a case: the rows of each side, whether the later row arrived on each, and what was noted."""

    left: str
    right: str
    flows: bool
    noted: str

    @property
    def agrees(self) -> bool:
        """Do both sides hold the same, and does what comes later arrive?"""
        return self.left == self.right and self.flows

    def text(self) -> str:
        """For the table."""
        held = self.left if self.left == self.right else f"left {self.left}, right {self.right}"
        parts = [held, self.noted, "" if self.flows else "**later rows never arrive**"]
        return "; ".join(part for part in parts if part)


def shown(rows: Sequence[tuple[str]]) -> str:
    """Rows for the table."""
    return ", ".join(f"`{row}`" for (row,) in rows) or "no row"


Ends = Mapping[str, Database]


class Runs:
    """Cases on a pair of databases, each in tables of its own, numbered."""

    def __init__(self, ends: Ends, cases: Sequence[Case]) -> None:
        """Create the tables on both sides, and the first rows on the left."""
        self.ends, self.cases = ends, cases
        for number, case in enumerate(cases):
            script = f"CREATE TABLE {{p}} ({case.parent});" if case.parent else ""
            for end in ends.values():
                end.run(self.sql(number, f"{script} CREATE TABLE {{t}} ({case.columns})"))
            ends["left"].run(self.sql(number, case.start))

    @staticmethod
    def sql(number: int, statement: str) -> str:
        """A statement on a case's tables."""
        return statement.format(t=f"case{number}", p=f"parent{number}")

    def tables_of(self, number: int) -> list[str]:
        """The linked tables of a case."""
        return [self.sql(number, name) for name in self.cases[number].mapped]

    @staticmethod
    def key(table: str) -> str:
        """The key of a table."""
        return "code" if table.startswith("parent") else "id"

    def edit(self) -> None:
        """The edits of all cases."""
        for number, case in enumerate(self.cases):
            for side, statement in (("right", case.right), ("left", case.left)):
                if statement:
                    self.ends[side].run(self.sql(number, statement))

    def later(self) -> None:
        """The unrelated rows."""
        for side, key in (("left", 98), ("right", 99)):
            for number in range(len(self.cases)):
                (table,) = self.tables_of(number)
                self.ends[side].run(f"INSERT INTO {table} VALUES ('{key}')")

    def result(self, number: int, noted: str) -> Result:
        """What came of a case."""
        (table,) = self.tables_of(number)
        statement = self.sql(number, self.cases[number].shown)
        held = {side: shown(end.run(statement)) for side, end in self.ends.items()}
        key = self.key(table)
        late = [
            end.run(f"SELECT count(*) FROM {table} WHERE {key}::text IN ('98', '99')") for end in self.ends.values()
        ]
        return Result(held["left"], held["right"], late == [[(2,)], [(2,)]], noted)


# ------------------------------------------------------------------------------------------------ dualwrite


class Dualwrite(Runs):
    """The cases under a link of dualwrite, by its command line."""

    def __init__(self, ends: Ends, cases: Sequence[Case], folder: Path) -> None:
        """Write the project."""
        super().__init__(ends, cases)
        self.folder = folder
        (folder / "maps").mkdir(parents=True)
        urls = "".join(f'{side}: {{url: "{end.url}"}}\n' for side, end in ends.items())
        (folder / "dualwrite.yaml").write_text(f"link: native\n{urls}")
        for number, case in enumerate(cases):
            (table,) = self.tables_of(number)
            key = self.key(table)
            lines = "".join(f"  - {line}\n" for line in (f"{key} = {key}", *case.lines))
            text = f"map: {table}\nleft: {table}\nright: {table}\nkey: [{key}]\ncolumns:\n{lines}"
            (folder / "maps" / f"{table}.yaml").write_text(text)

    def call(self, *arguments: str) -> str:
        """Run a command; what it prints."""
        command = [sys.executable, "-m", "dualwrite.cli", *arguments]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode in (0, 1), ran.stderr
        assert not ran.stderr, ran.stderr
        return ran.stdout

    def carry(self) -> None:
        """Carry everything that is committed by now."""
        self.call("run", "--until-idle")

    def results(self) -> Iterator[Result]:
        """What came of each case, with what is in the conflict log, and what is parked."""
        conflicts = json.loads(self.call("conflicts", "list", "--json"))
        parked = json.loads(self.call("parked", "list", "--json"))
        for number in range(len(self.cases)):
            (table,) = self.tables_of(number)
            logged = sum(entry["map"] == table for entry in conflicts)
            noted = [f"{logged} in the conflict log"] if logged else []
            noted += [f"parked with `{entry['code']}`" for entry in parked if entry["map"] == table]
            yield self.result(number, ", ".join(noted))

    def remove(self) -> None:
        """Take the link away."""
        self.call("uninstall", "--yes")


# ------------------------------------------------------------------------------------------------ native

COUNTED = ("insert_exists", "update_origin_differs", "update_missing", "delete_origin_differs", "delete_missing")
STATISTICS = "pg_stat_subscription_stats s JOIN pg_subscription u ON u.oid = subid WHERE u.subname = %s"


DROP_SLOT = """
SELECT pg_terminate_backend(active_pid, 10000), pg_drop_replication_slot(slot_name)
FROM pg_replication_slots WHERE slot_name = %s"""


class Native(Runs):
    """The cases under publications and subscriptions both ways, a pair of them for each case."""

    def __init__(self, ends: Ends, cases: Sequence[Case]) -> None:
        """Create them, switched off, before the first rows: so these are carried like all others."""
        super().__init__(ends, [replace(case, start="") for case in cases])
        for number in range(len(cases)):
            (table,) = self.tables_of(number)
            for end in ends.values():
                end.run(f"CREATE PUBLICATION p{number} FOR TABLE {table}")
        for number, target, source in self.subscriptions():
            slot = self.slot(number, target)
            ends[source].run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
            ends[target].run(
                f"CREATE SUBSCRIPTION s{number} CONNECTION '{ends[source].url}' PUBLICATION p{number} "
                f"WITH (origin = none, copy_data = false, create_slot = false, enabled = false, slot_name = {slot})"
            )
        for number, case in enumerate(cases):
            ends["left"].run(self.sql(number, case.start))

    def subscriptions(self) -> Iterator[tuple[int, str, str]]:
        """Every subscription: its case, its target and its source."""
        for number in range(len(self.cases)):
            yield number, "left", "right"
            yield number, "right", "left"

    def slot(self, number: int, target: str) -> str:
        """The slot of a subscription."""
        return f"native_{self.ends[target].name}_{target}_{number}"

    def carry(self) -> None:
        """Switch the subscriptions on until each has carried everything or keeps failing; then off again."""
        ends = {name: end.run("SELECT pg_current_wal_insert_lsn()::text")[0][0] for name, end in self.ends.items()}
        for number, target, _ in self.subscriptions():
            self.ends[target].run(f"ALTER SUBSCRIPTION s{number} ENABLE")
        for number, target, source in self.subscriptions():
            self.until(lambda: self.has_come(number, target, source, ends[source]) or self.is_stuck(number, target))  # noqa: B023
        for number, target, _ in self.subscriptions():
            self.ends[target].run(f"ALTER SUBSCRIPTION s{number} DISABLE")
        for end in self.ends.values():  # a worker that has ended has told what it has counted
            self.until(lambda: end.run("SELECT FROM pg_stat_subscription WHERE pid IS NOT NULL") == [])  # noqa: B023

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "native replication neither ends nor fails"
            time.sleep(0.02)

    def has_come(self, number: int, target: str, source: str, end: str) -> bool:
        """Has a subscription confirmed everything up to there?"""
        statement = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        return self.ends[source].run(statement, end, self.slot(number, target)) == [(True,)]

    def is_stuck(self, number: int, target: str) -> bool:
        """Has it failed again and again?"""
        return self.ends[target].run(f"SELECT apply_error_count > 1 FROM {STATISTICS}", f"s{number}") == [(True,)]

    def results(self) -> Iterator[Result]:
        """What came of each case, with the conflicts that the servers have counted."""
        for number in range(len(self.cases)):
            yield self.result(number, self.counted(number))

    def counted(self, number: int) -> str:
        """The kinds of conflicts that were counted, and whether a subscription fails."""
        kinds, failing = set(), False
        columns = ", ".join(f"confl_{kind} > 0" for kind in COUNTED)
        for side, end in self.ends.items():
            row = end.run(f"SELECT {columns} FROM {STATISTICS}", f"s{number}")[0]
            kinds |= {kind for kind, found in zip(COUNTED, row, strict=True) if found}
            failing = failing or self.is_stuck(number, side)
        told = [f"counted as {', '.join(f'`{kind}`' for kind in sorted(kinds))}"] if kinds else []
        return ", ".join([*told, *(["it fails again and again"] if failing else [])])

    def remove(self) -> None:
        """Drop the subscriptions and their slots."""
        for number, target, source in self.subscriptions():
            self.ends[target].run(f"ALTER SUBSCRIPTION s{number} DISABLE")
            self.ends[target].run(f"ALTER SUBSCRIPTION s{number} SET (slot_name = NONE)")
            self.ends[target].run(f"DROP SUBSCRIPTION s{number}")
            self.ends[source].run(DROP_SLOT, self.slot(number, target))


# ------------------------------------------------------------------------------------------------ both


@contextmanager
def databases(left: Server, right: Server) -> Iterator[Ends]:
    """A fresh pair of databases."""
    with left.database() as one, right.database() as other:
        yield {"left": one, "right": other}


def compared(left: Server, right: Server, cases: Sequence[Case]) -> list[tuple[Case, Result, Result]]:
    """Each case with what came of it under dualwrite and under native replication."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = Dualwrite(stack.enter_context(databases(left, right)), cases, place / "project")
        native = Native(stack.enter_context(databases(left, right)), cases)
        stack.callback(native.remove)
        stack.callback(ours.remove)
        for runs in (ours, native):
            runs.carry()
        for runs in (ours, native):
            runs.edit()
            runs.later()
            runs.carry()
        return list(zip(cases, ours.results(), native.results(), strict=True))


def table(found: Iterable[tuple[Case, Result, Result]]) -> list[str]:
    """The lines of the table."""
    return [f"| {case.what} | {case.expected} | {ours.text()} | {native.text()} |" for case, ours, native in found]


def written(page: str) -> list[str]:
    """The lines of the table that stand in the page."""
    block = _BLOCK.search(page)
    assert block, "the page has no place for the table"
    return [line for line in block[0].splitlines() if line.startswith("| ")][1:]


def filled(page: str, lines: Sequence[str]) -> str:
    """The page with its table written anew."""
    head = "| case | what people expect | dualwrite | native |\n|---|---|---|---|\n"
    text = head + "".join(f"{line}\n" for line in lines)
    return _BLOCK.sub(lambda block: block[1] + text + block[2], page)


def results(compiler: str | None) -> list[tuple[Case, Result, Result]]:
    """The comparison on two servers; without a C compiler their clocks agree, and the case about clocks is left out."""
    servers = [Server(settings=dict(SETTINGS)) for _ in range(2)]
    try:
        if compiler:
            servers[1].set_ahead(SKEW, compiler)
        for server in servers:
            server.start()
        return compared(servers[0], servers[1], [case for case in CASES if compiler or case is not CLOCKS])
    finally:
        for server in servers:
            server.remove()


def main() -> None:
    """Write the table."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, table(results("cc"))), encoding="utf-8")


if __name__ == "__main__":
    main()
