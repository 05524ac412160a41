"""What was kept while a map had other columns, another order or another key, on two in-memory systems."""

from __future__ import annotations

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase
from dualwrite.engine.commands import execute
from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Journal, Parked
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side, Value
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

L, R = Side.LEFT, Side.RIGHT


def text(name: str, length: int | None = None, *, nullable: bool = True) -> Column:
    """A text column."""
    return Column(name, ColumnType(TypeName.TEXT, length=length), nullable=nullable)


def schema(*tables: Table) -> Schema:
    """A system with these tables."""
    return Schema({each.name: each for each in tables})


NAMES = ("a", "b", "c", "d")
LEFT = schema(
    Table(
        "items",
        (text("code", nullable=False), text("part"), *(text(name) for name in NAMES), text("grp")),
        ("code",),
        (("code",),),
        (Reference("grp", ("grp",), "groups", ("code",)),),
    ),
    Table("groups", (text("code", nullable=False), text("name")), ("code",), (("code",), ("name",))),
)
RIGHT = schema(
    Table(
        "products",
        (text("code", nullable=False), text("part"), *(text(name, 3) for name in NAMES), text("family")),
        ("code",),
        (("code",),),
        (Reference("family", ("family",), "families", ("code",)),),
    ),
    Table("families", (text("code", nullable=False), text("name")), ("code",), (("code",), ("name",))),
)
SCHEMAS = {L: LEFT, R: RIGHT}
TABLES = {L: "items", R: "products"}


def items(*lines: str, key: str = "code") -> str:
    """A map of items with these lines."""
    head = ["map: Items", "left: items", "right: products", f"key: [{key}]", "columns:"]
    return "\n".join([*head, *(f"  - {each}" for each in lines)])


class Link:
    """Two systems and a journal, with a map that may be another one after each restart."""

    def __init__(self, table_map: str) -> None:
        """Two empty systems that are linked, and running."""
        self.databases = {side: MemoryDatabase(each, str(side)) for side, each in SCHEMAS.items()}
        self.journal = Journal.open("sqlite://")
        self.journal.set_state("Items", desired="running", master="left")
        self.now = 1000.0
        self.run(table_map)

    def clock(self) -> float:
        """A second later each time that somebody looks."""
        self.now += 1.0
        return self.now

    def run(self, table_map: str) -> None:
        """Take the link up as after a restart, with the map as it is now, and carry everything."""
        self.compiled: CompiledMap = compile_map(read_map(table_map, "map.yaml"), LEFT, RIGHT)
        for database in self.databases.values():
            database.now = lambda: 1000.0
        connectors = {side: MemoryConnector(database) for side, database in self.databases.items()}
        self.engine = Engine("link", connectors, [self.compiled], self.journal)
        self.engine.open()
        for database in self.databases.values():
            database.now = self.clock
        self.engine.reconcile()
        self.engine.drain()

    def insert(self, side: Side, where: str = "", /, **values: Value) -> None:
        """A user adds a record."""
        with self.databases[side].user() as user:
            user.insert(where or TABLES[side], values)

    def update(self, side: Side, code: str, **values: Value) -> None:
        """A user changes a record."""
        with self.databases[side].user() as user:
            assert user.update(TABLES[side], {"code": code}, values) == 1

    def delete(self, side: Side, code: str) -> None:
        """A user deletes a record."""
        with self.databases[side].user() as user:
            assert user.delete(TABLES[side], {"code": code}) == 1

    def rows(self, side: Side, *columns: str) -> set[tuple[Value, ...]]:
        """What a user sees."""
        with self.databases[side].user() as user:
            return {tuple(row[name] for name in columns) for row in user.rows(TABLES[side])}

    def parked(self) -> list[Parked]:
        """What is parked."""
        return self.journal.parked({})

    def retry(self) -> int:
        """Everything that is parked is taken again; returns how many records went through."""
        answer = execute(self.engine, "retry", {"ids": None, "map": None, "code": None, "who": "ann"})
        self.engine.drain()
        return answer["freed"]  # type: ignore[return-value]


CUT = ": {truncate: true}"


def test_a_parked_record_keeps_its_columns_when_the_lines_change_order() -> None:
    """Values go where their columns go, whatever the order of the lines by then."""
    link = Link(items("code = code", "a = a", "b = b"))
    link.insert(L, code="1", a="aaaa", b="bb")
    link.engine.drain()
    assert [entry.column for entry in link.parked()] == ["a"]
    link.run(items("b = b", f"a = a{CUT}", "code = code"))
    assert link.retry() == 1
    assert link.rows(R, "code", "a", "b") == {("1", "aaa", "bb")}
