"""What was kept while a map had other columns, another order or another key, on two in-memory systems."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase
from dualwrite.engine.commands import execute
from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Journal, Parked
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import ABSENT, Side, Value
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
    assert not link.parked()
    assert link.rows(R, "code", "a", "b") == {("1", "aaa", "bb")}


def test_columns_that_were_added_are_left_alone_and_those_that_went_are_dropped() -> None:
    """Of a record that was parked before, it is known what both maps have."""
    link = Link(items("code = code", "a = a", "b = b"))
    link.insert(L, code="1", a="aaaa", b="bb", c="cc")
    link.engine.drain()
    link.run(items("c = c", f"a = a{CUT}", "code = code"))
    assert not link.parked()
    assert link.rows(R, "code", "a", "b", "c") == {("1", "aaa", None, None)}


def test_an_update_that_was_parked_edits_the_same_column_later() -> None:
    """What was not edited, and what the map did not have, stays as the other side has it."""
    link = Link(items("code = code", "a = a", "b = b"))
    link.insert(L, code="1", a="a", b="b", c="c")
    link.engine.drain()
    link.update(L, "1", a="aaaa")
    link.engine.drain()
    link.update(R, "1", b="own", c="own")
    link.run(items("c = c", "b = b", f"a = a{CUT}", "code = code"))
    assert not link.parked()
    assert link.rows(R, "a", "b", "c") == {("aaa", "own", "own")}
    assert link.rows(L, "a", "b", "c") == {("aaaa", "own", "own")}


@pytest.mark.parametrize("winner", Side)
def test_a_kept_window_meets_a_parked_change_column_by_column(winner: Side) -> None:
    """What the other side did meanwhile, kept in the journal, is of the same columns after a restart."""
    link = Link(items("code = code", "a = a", f"b = b: {{conflict: {winner}}}"))
    link.insert(L, code="1", a="a", b="b")
    link.engine.drain()
    link.update(L, "1", a="aaaa", b="l")
    link.update(R, "1", b="r", a="r")
    link.engine.drain()
    assert [entry.side for entry in link.parked()] == [R]
    link.update(R, "1", c="c")
    link.engine.drain()
    cut = f"a = a: {{truncate: true, conflict: {winner}}}"
    link.run(items(f"b = b: {{conflict: {winner}}}", "c = c", cut, "code = code"))
    assert not link.parked()
    expected = {L: ("aaa", "l"), R: ("r", "r")}[winner]
    assert link.rows(R, "a", "b") == {expected}
    assert not link.parked()


TWO = ("part = part", "code = code", "a = a")
CUT_TWO = ("part = part", "code = code", f"a = a{CUT}")


def test_a_record_is_known_by_the_key_that_the_map_has_now() -> None:
    """The members of a key change places: later changes of the record wait behind what is parked, and all goes in."""
    link = Link(items(*TWO, key="code, part"))
    for code, part in (("1", "2"), ("2", "1")):
        link.insert(L, code=code, part=part, a="aaaa")
    link.engine.drain()
    assert {entry.shown_key for entry in link.parked()} == {"1, 2", "2, 1"}
    link.update(L, "1", a="newer")
    link.run(items(*TWO, key="part, code"))
    assert {(entry.shown_key, entry.changes) for entry in link.parked()} == {("2, 1", 2), ("1, 2", 1)}
    assert link.rows(R, "code") == set()
    link.run(items(*CUT_TWO, key="part, code"))
    assert not link.parked()
    assert link.rows(R, "code", "part", "a") == {("1", "2", "new"), ("2", "1", "aaa")}
    link.delete(L, "1")
    link.engine.drain()
    assert link.rows(R, "code") == {("2",)}


def test_a_record_without_the_present_key_stays_parked_and_says_why() -> None:
    """Nothing is guessed: it waits until the key is what it was, with everything that was parked."""
    link = Link(items("code = code", "a = a", "b = b"))
    link.insert(L, code="1", part="x", a="aaaa", b="b")
    link.engine.drain()
    link.run(items("code = code", "part = part", f"a = a{CUT}", key="part"))
    assert link.retry() == 0
    (entry,) = link.parked()
    assert (entry.shown_key, entry.attempts) == ("1", 1)
    assert "key was items (code); the key is items (part) now" in entry.reason
    link.run(items("b = b", "code = code", "a = a"))
    assert "key was" not in link.parked()[0].reason
    link.run(items("b = b", "code = code", f"a = a{CUT}"))
    assert not link.parked()
    assert link.rows(R, "code", "a", "b") == {("1", "aaa", "b")}


def test_a_record_whose_key_is_not_known_can_be_discarded() -> None:
    """After that nothing of it is left."""
    link = Link(items("code = code", "a = a"))
    link.insert(L, code="1", part="x", a="aaaa")
    link.engine.drain()
    link.run(items("code = code", "part = part", "a = a", key="part"))
    execute(link.engine, "discard", {"ids": None, "map": None, "code": None, "who": "ann"})
    link.run(items("code = code", "part = part", "a = a", key="part"))
    assert link.parked() == []


def test_a_lookup_that_names_its_record_otherwise_by_now_is_left_alone() -> None:
    """The code of a group says nothing of its name: the lookup is not known, and all else goes in."""
    link = Link(items("code = code", "a = a", "grp.code = family.code"))
    with link.databases[L].user() as user:
        user.insert("groups", {"code": "g", "name": "n"})
    with link.databases[R].user() as user:
        user.insert("families", {"code": "g", "name": "n"})
    link.insert(L, code="1", a="aaaa", grp="g")
    link.engine.drain()
    link.run(items("grp.name = family.name", "code = code", f"a = a{CUT}"))
    assert not link.parked()
    assert link.rows(R, "code", "a", "family") == {("1", "aaa", None)}


def test_a_row_under_a_delete_keeps_its_columns() -> None:
    """It comes back as it was, whatever the order of the lines by then."""
    first = items("code = code", "a = a", "b = b") + "\nrows: delete"
    link = Link(first)
    link.insert(L, code="1", a="a", b="b")
    link.engine.drain()
    link.update(L, "1", b="new")
    link.delete(R, "1")
    link.engine.flows[L].turn(0)
    hidden = link.engine.link.sides[R].hidden
    assert [row.row for record in hidden if (row := hidden.get(record))] == [("1", "a", "new")]
    link.engine.close()
    connectors = {side: MemoryConnector(database) for side, database in link.databases.items()}
    after = compile_map(read_map(items("b = b", "c = c", "code = code") + "\nrows: delete", "map.yaml"), LEFT, RIGHT)
    engine = Engine("link", connectors, [after], link.journal)
    engine.open()
    (record,) = engine.link.sides[R].hidden
    found = engine.link.sides[R].hidden.get(record)
    shown = dict(zip(after.views[R].paths, found.row, strict=True))
    assert shown == {("b",): "new", ("c",): ABSENT, ("code",): "1"}


def edit(link: Link, side: Side, values: dict[str, str]) -> None:
    """A user deletes the record (without values), changes it, or makes it anew."""
    if not link.rows(side):
        link.insert(side, code="1", part="p", **values)
    elif values:
        link.update(side, "1", **values)
    else:
        link.delete(side, "1")


def told(before: Sequence[str], edits: Sequence[Edit], *later: tuple[Sequence[str], str]) -> Link:
    """The edits under a map, then each later map in turn (columns and key), and everything is taken again."""
    names = ("code", "part")
    link = Link(items(*(f"{name} = {name}" for name in (*names, *before)), key="code, part"))
    link.insert(L, code="1", part="p", **dict.fromkeys(NAMES, "o"))
    link.engine.drain()
    for side, values, is_carried in edits:
        edit(link, side, {name: value[: 3 if side is R else 4] for name, value in values.items()})
        if is_carried:
            link.engine.drain()
    link.engine.drain()
    for columns, key in later:
        lines = [f"{name} = {name}{CUT}" for name in columns if name not in names]
        link.run(items(*(f"{name} = {name}" for name in names), *lines, key=key))
    link.retry()
    return link


Edit = tuple[Side, dict[str, str], bool]
VALUES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(("x", "y", "zzzz")), max_size=3)
EDITS = st.lists(st.tuples(st.sampled_from(Side), VALUES, st.booleans()), max_size=5)
COLUMNS = st.lists(st.sampled_from(NAMES), unique=True)
KEYS = st.sampled_from(("code, part", "part, code"))


@settings(max_examples=20, deadline=None)
@given(before=COLUMNS, edits=EDITS, maps=st.lists(st.tuples(COLUMNS, KEYS), min_size=1, max_size=3))
def test_columns_that_stay_get_what_they_would_have_got(
    before: list[str], edits: list[Edit], maps: list[tuple[list[str], str]]
) -> None:
    """Lines that change places, come and go between parking and a retry change nothing for the columns that stay."""
    at_once = told(before, edits, (before, "code, part"))
    later = told(before, edits, *maps)
    stay = ["code", "part", *(name for name in NAMES if name in before and all(name in each for each, _ in maps))]
    for side in Side:
        assert later.rows(side, *stay) == at_once.rows(side, *stay)
    assert len(later.parked()) == len(at_once.parked())
