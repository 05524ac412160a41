"""Whatever PostgreSQL can hold comes through a link unchanged: into another PostgreSQL, and by way of SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.connectors.sqlite import open_sqlite
from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Journal
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.tablemap import ColumnMapping, Direction, TableMap
from dualwrite.model import Side
from dualwrite.testing.postgresql import Database, Server


def number(value: float) -> str:
    """As PostgreSQL reads it; zero without its sign, which text does not keep."""
    return repr(value + 0.0).replace("inf", "Infinity")


def array(members: list[str | None]) -> str:
    """As PostgreSQL reads it."""
    return (
        "{" + ",".join("NULL" if member is None else json.dumps(member, ensure_ascii=False) for member in members) + "}"
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(-1e15, 1e15).map(lambda value: round(value, 3) + 0.0) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
KINDS = {
    "smallint": ("SMALLINT", st.integers(-(2**15), 2**15 - 1).map(str)),
    "bigint": ("BIGINT", WHOLE.map(str)),
    "numeric": ("TEXT", st.decimals(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:.40f}"[:100])),
    "numeric(12,4)": ("TEXT", st.decimals(-99_999_999, 99_999_999, places=4).map(str)),
    "double precision": ("TEXT", st.floats().map(number)),
    "real": ("TEXT", st.floats(width=32).map(number)),
    "boolean": ("BOOLEAN", st.sampled_from(["t", "f"])),
    "text": ("TEXT", TEXT),
    "varchar(9)": ("VARCHAR(9)", TEXT.map(lambda text: text[:9])),
    "char(5)": ("TEXT", TEXT.map(lambda text: text[:5].rstrip(" "))),
    "date": ("DATE", st.dates().map(str)),
    "time": ("TIME", st.times().map(str)),
    "timestamp": ("TIMESTAMP", st.datetimes().map(str)),
    "timestamptz": ("TEXT", st.datetimes().map(lambda moment: f"{moment}+00")),
    "interval": ("TEXT", st.timedeltas().map(lambda span: f"{span.days} days {span.seconds}.{span.microseconds:06} s")),
    "uuid": ("TEXT", st.uuids().map(str)),
    "bytea": ("BLOB", st.binary(max_size=80).map(lambda data: "\\x" + data.hex())),
    "jsonb": ("TEXT", JSON.map(lambda value: json.dumps(value, ensure_ascii=False))),
    "json": ("TEXT", JSON.map(lambda value: json.dumps(value, indent=1))),
    "bigint[]": ("TEXT", st.lists(WHOLE.map(str) | st.none(), max_size=4).map(array)),
    "text[]": ("TEXT", st.lists(TEXT.map(lambda text: text.replace("\n", " ")), max_size=3).map(array)),
}
NAMES = [f"c{place}" for place in range(len(KINDS))]
ROWS = st.lists(st.tuples(*(st.none() | values for _, values in KINDS.values())), min_size=1, max_size=4)
SHOWN = ", ".join(
    f"trim_scale({name})::text" if kind == "numeric" else f"{name}::text"
    for name, kind in zip(NAMES, KINDS, strict=True)
)
EVERY = f"SELECT code, {SHOWN} FROM kinds ORDER BY code"
PLACES = ", ".join(["%s"] * (len(NAMES) + 1))
SETS = ", ".join(f"{name} = %s" for name in NAMES)


class Chain:
    """A database, its copy, and another copy behind a file of SQLite; all links run."""

    def __init__(self, server: Server, file: Path, stack: ExitStack) -> None:
        """Make and link them."""
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, KINDS, strict=True))
        script = f"CREATE TABLE kinds (code int PRIMARY KEY, {columns})"
        self.source, self.copy, self.far = (stack.enter_context(server.database(script)) for _ in range(3))
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in zip(NAMES, KINDS.values(), strict=True))
        with closing(sqlite3.connect(file)) as between:
            between.execute("PRAGMA journal_mode = WAL")
            between.execute(f"CREATE TABLE kinds (code INTEGER PRIMARY KEY NOT NULL, {columns})")
        url = f"sqlite:///{file}"
        pairs = [(self.source.url, self.copy.url), (self.source.url, url), (url, self.far.url)]
        self.engines = [self._link(f"link{place}", pair, stack) for place, pair in enumerate(pairs)]
        self.numbers = count(1)

    @staticmethod
    def _link(name: str, pair: tuple[str, str], stack: ExitStack) -> Engine:
        opened = [
            (open_sqlite if url.startswith("sqlite") else open_postgresql)(url, link=name, side=side)
            for side, url in zip(Side, pair, strict=True)
        ]
        for connector in opened:
            stack.callback(connector.close)
        columns = tuple(ColumnMapping((each,), Direction.BOTH, (each,)) for each in ("code", *NAMES))
        table_map = TableMap("kinds", "kinds", "kinds", columns, key=(("code",),))
        compiled = compile_map(table_map, *(connector.schema() for connector in opened))
        journal = Journal.open("sqlite://")
        stack.callback(journal.close)
        journal.set_state("kinds", desired="running")
        engine = Engine(name, dict(zip(Side, opened, strict=True)), [compiled], journal)
        engine.open()
        stack.callback(engine.close)
        engine.reconcile()
        return engine

    def carry(self) -> None:
        """Carry everything along the chain; nothing may be left behind."""
        for engine in self.engines:
            engine.drain()
            assert not engine.journal.parked({})

    @staticmethod
    def rows(database: Database) -> list[tuple]:
        """All that a database holds, as text."""
        with database.connect() as connection:
            connection.execute("SET timezone = 'UTC'")
            connection.execute("SET datestyle = ISO")
            return connection.execute(EVERY).fetchall()


@pytest.fixture(scope="module")
def chain(postgresql: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The same for all examples."""
    with ExitStack() as stack:
        yield Chain(postgresql, tmp_path_factory.mktemp("chain") / "between.db", stack)


@settings(max_examples=20, deadline=None)
@given(rows=ROWS, later=ROWS)
def test_values_survive_a_link_and_a_chain_of_links(chain: Chain, rows: list[tuple], later: list[tuple]) -> None:
    """As inserted and as updated, to the last bit and letter."""
    codes = [next(chain.numbers) for _ in rows]
    with chain.source.connect() as application:
        application.execute("SET timezone = 'UTC'")
        for code, row in zip(codes, rows, strict=True):
            application.execute(f"INSERT INTO kinds VALUES ({PLACES})", [code, *row])
        chain.carry()
        assert chain.rows(chain.copy) == chain.rows(chain.far) == chain.rows(chain.source)
        for code, row in zip(codes, later, strict=False):
            application.execute(f"UPDATE kinds SET {SETS} WHERE code = %s", [*row, code])
        chain.carry()
    found = chain.rows(chain.source)
    assert chain.rows(chain.copy) == found
    assert chain.rows(chain.far) == found
