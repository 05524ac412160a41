"""Every published map runs: checked, brought together and kept in step on two real databases, both ways."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dualwrite import library
from dualwrite.connectors import connect
from dualwrite.connectors.base import Connector
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.journal import Journal
from dualwrite.library.__main__ import converted
from dualwrite.mapping.check import check_maps
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Side
from dualwrite.testing.postgresql import Database, Server

from .published import FACTS, World, insert, shown, where

pytestmark = pytest.mark.skipif(
    not FACTS.exists(), reason="the published facts about columns (../shared) are not there"
)

LARGEST = (
    "CDS sales order headers (salesorders)",
    "CDS sales order lines (salesorderdetails)",
    "CDS sales quotation header (quotes)",
    "Customers V3 (accounts)",
    "Customers V3 (contacts)",
    "Product receipt header (msdyn_purchaseorderreceipts)",
    "Product receipt line (msdyn_purchaseorderreceiptproducts)",
    "Product default order settings V2 (msdyn_productspecificdefaultordersettings)",
    "Purchase order headers V2 (msdyn_purchaseorders)",
    "Sales invoice headers V2 (invoices)",
    "Sales invoice lines V2 (invoicedetails)",
    "Vendors V2 (msdyn_vendors)",
    "Warehouses (msdyn_warehouses)",
)
"""Those that run on PostgreSQL, too."""


def each_map(names: Collection[str] = ()) -> Iterator[object]:
    """All maps of the library, or those of some names."""
    for table_map in library.maps():
        if not names or table_map.name in names:
            yield pytest.param(table_map, id=table_map.name)


Run = Callable[[Side, str], list[tuple]]


class Link:
    """One map under an engine, on two databases that hold nothing but its world."""

    def __init__(self, world: World, connectors: Mapping[Side, Connector], run: Run, stack: ExitStack) -> None:
        """``run`` is what the applications of both sides do: plain SQL."""
        self.world, self.connectors, self.run = world, connectors, run
        self.compiled = self._checked()
        self.journal = Journal.open("sqlite://")
        stack.callback(self.journal.close)
        self.engine = Engine("library", connectors, [self.compiled], self.journal)

    def _checked(self) -> CompiledMap:
        """The map, which has no errors on these tables."""
        schemas = [self.connectors[side].schema() for side in Side]
        errors = [each for each in check_maps([self.world.map], *schemas) if each.level == "error"]
        assert not errors, "\n".join(map(str, errors))
        return compile_map(self.world.map, *schemas)

    def start(self, stack: ExitStack) -> None:
        """Start the map; its initial sync is done then."""
        self.journal.set_state(self.world.map.name, desired="running")
        self.engine.open()
        stack.callback(self.engine.close)
        self.engine.reconcile()
        self.engine.drain()

    def add(self, side: Side, *numbers: int) -> None:
        """New records, where the map carries any from that side."""
        for number in numbers:
            self.run(side, insert(self.world.map.table(side), self.world.record(side, number)))

    def change(self, side: Side, number: int) -> None:
        """Edit what may be edited of a record."""
        edits = dict(self.world.edits(side))
        if edits:
            cells = ", ".join(f'"{name}" = {shown(cell)}' for name, cell in edits.items())
            self.run(side, f'UPDATE "{self.world.map.table(side)}" SET {cells} WHERE {self.at(side, number)}')

    def remove(self, side: Side, number: int) -> None:
        """Delete a record."""
        self.run(side, f'DELETE FROM "{self.world.map.table(side)}" WHERE {self.at(side, number)}')

    def at(self, side: Side, number: int) -> str:
        """A condition that names the record of that number."""
        return where(self.world.named(side, number))

    def agree(self, count: int) -> None:
        """Nothing is parked, and both sides have this many records, all the same."""
        parked = [f"{each.code}: {each.reason}" for each in self.journal.parked({})]
        assert not parked, "\n".join(parked)
        found = verify(self.compiled, self.connectors)
        assert not found.unusable
        assert not [(each.key, each.only, each.units) for each in found.differences]
        assert found.tally.equal + found.tally.detached == count


def story(link: Link, stack: ExitStack) -> None:
    """Initial sync, and then inserts, edits and deletes, from every side from which the map carries anything."""
    sources = [side for side in Side if link.world.carries(side)]
    for source in sources:
        link.add(source, 0, 1, *((2, 3, 4) if source is Side.LEFT else (5, 6)))
    link.start(stack)
    count = 2 + sum(3 if source is Side.LEFT else 2 for source in sources)
    link.agree(count)
    for source in sources:
        link.add(source, 8 if source is Side.LEFT else 9)
        link.change(source, 3 if source is Side.LEFT else 6)
        link.remove(source, 4 if source is Side.LEFT else 5)
    link.engine.drain()
    link.agree(count)


def test_the_library_is_what_the_facts_give() -> None:
    """Written anew from the facts, every file is the same, and no other is there."""
    assert converted(FACTS.parent / "maps", FACTS / "published_keys.json") == library.texts()


@pytest.mark.parametrize("table_map", [*each_map()])
def test_a_published_map_runs_on_sqlite(table_map: TableMap, tmp_path: Path) -> None:
    """It passes all checks on the tables it is made for; everything that people do on one side reaches the other."""
    world = World(table_map, table_map.name.rpartition(" (")[0])
    with ExitStack() as stack:
        users: dict[Side, sqlite3.Connection] = {}
        connectors: dict[Side, Connector] = {}
        for side, statements in world.scripts("INTEGER PRIMARY KEY").items():
            file = tmp_path / f"{side}.db"
            users[side] = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
            users[side].execute("PRAGMA journal_mode = WAL")
            users[side].executescript(";\n".join(statements))
            connectors[side] = connect(f"sqlite:///{file}", link="library", side=side, declared=world.declared(side))
            stack.callback(connectors[side].close)
        story(Link(world, connectors, lambda side, sql: users[side].execute(sql).fetchall(), stack), stack)


@pytest.mark.parametrize("table_map", [*each_map(LARGEST)])
def test_a_published_map_runs_on_postgresql(table_map: TableMap, postgresql: Server) -> None:
    """So do a dozen of the largest, and most used, on PostgreSQL."""
    world = World(table_map, table_map.name.rpartition(" (")[0])
    with ExitStack() as stack:
        databases: dict[Side, Database] = {}
        connectors: dict[Side, Connector] = {}
        for side, statements in world.scripts(
            "INTEGER GENERATED BY DEFAULT AS IDENTITY (START 100) PRIMARY KEY"
        ).items():
            databases[side] = stack.enter_context(postgresql.database(";\n".join(statements)))
            url = databases[side].url
            connectors[side] = connect(url, link="library", side=side, declared=world.declared(side))
            stack.callback(connectors[side].close)
        story(Link(world, connectors, lambda side, sql: databases[side].run(sql), stack), stack)
