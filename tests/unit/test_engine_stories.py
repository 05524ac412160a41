"""What happens to people's edits, story by story, on two in-memory systems and one thread.

Each story edits both sides as users do, lets the engine carry, and looks at both tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import pytest

from dualwrite.connectors.memory import Action, MemoryConnector, MemoryDatabase, MemoryTransaction, User
from dualwrite.engine import flow, release, wishes
from dualwrite.engine.agreeing import agree
from dualwrite.engine.commands import execute
from dualwrite.engine.link import RESTORE
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.errors import PositionLost, Superseded, Usage
from dualwrite.journal import Conflict, Journal, Parked
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Contested, Outcome, Side, Value, Write
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName, View

L, R = Side.LEFT, Side.RIGHT


def text(name: str, *, required: bool = False, length: int | None = None) -> Column:
    """A text column."""
    return Column(name, ColumnType(TypeName.TEXT, length=length), nullable=not required)


def number(name: str, *, identity: bool = False) -> Column:
    """An integer column, perhaps one that generates its values."""
    return Column(name, ColumnType(TypeName.INTEGER, bits=64), nullable=not identity, has_default=identity)


def table(name: str, columns: Sequence[Column], key: str, *uniques: str, **references: Reference) -> Table:
    """A table with a one-column primary key and one-column unique indexes."""
    found = tuple((column,) for column in (key, *uniques))
    return Table(name, tuple(columns), (key,), found, tuple(references.values()))


GROUPS = table("groups", [text("code", required=True), text("name")], "code")
ITEMS = table(
    "items",
    [
        text("code", required=True),
        text("name"),
        text("note", length=10),
        text("tag"),
        text("kind"),
        number("amount"),
        text("grp"),
        text("parent"),
    ],
    "code",
    "tag",
    grp=Reference("grp", ("grp",), "groups", ("code",)),
    parent=Reference("parent", ("parent",), "items", ("code",)),
)
FAMILIES = table("families", [number("id", identity=True), text("code", required=True), text("name")], "id", "code")
PRODUCTS = table(
    "products",
    [
        number("id", identity=True),
        text("code", required=True),
        text("name"),
        text("note", length=10),
        text("tag"),
        text("kind"),
        number("amount"),
        number("family"),
        number("parent"),
    ],
    "id",
    "code",
    "tag",
    family=Reference("family", ("family",), "families", ("id",)),
    parent=Reference("parent", ("parent",), "products", ("id",)),
)
LEFT_SCHEMA = Schema({one.name: one for one in (GROUPS, ITEMS)})
RIGHT_SCHEMA = Schema({one.name: one for one in (FAMILIES, PRODUCTS)})

ITEM_MAP = """
map: Items
left: items
right: products
columns:
  - code = code
  - name = name
  - note = note
  - tag = tag
  - amount = amount: {conflict: sum}
"""
GROUP_MAP = """
map: Groups
left: groups
right: families
columns:
  - code = code
  - name = name
"""
WITH_GROUP = ITEM_MAP + "  - grp = family.code\n"
WITH_PARENT = ITEM_MAP + "  - parent = parent.code\n"
MAIN = {L: "items", R: "products"}


class Crash(BaseException):
    """The process dies here."""


class Story:
    """Two systems, a journal, and an engine that can be lost and taken up again."""

    def __init__(
        self,
        *maps: str,
        actions: Mapping[Side, Mapping[tuple[str, str], Action]] | None = None,
        conflict: str = "newest",
        delete_limit: int | None = None,
    ) -> None:
        """Two empty systems, linked by these maps."""
        acts = actions or {}
        self.databases = {
            L: MemoryDatabase(LEFT_SCHEMA, "left", acts.get(L)),
            R: MemoryDatabase(RIGHT_SCHEMA, "right", acts.get(R)),
        }
        self.maps: list[CompiledMap] = [
            compile_map(read_map(each, "map.yaml"), LEFT_SCHEMA, RIGHT_SCHEMA, conflict=conflict) for each in maps
        ]
        self.journal = Journal.open("sqlite://")
        self.delete_limit = delete_limit
        self.crash_at = ""
        self.at_point: dict[str, Callable[[], None]] = {}
        self.now = 1000.0
        for database in self.databases.values():
            database.now = self.clock
        self.engine = self.new_engine()

    def clock(self) -> float:
        """Both sides' time: a second later each time that somebody looks."""
        self.now += 1.0
        return self.now

    def point(self, name: str) -> None:
        """What the engine calls at each place that matters."""
        action = self.at_point.pop(name, None)
        if action:
            action()
        if name == self.crash_at:
            self.crash_at = ""
            self.engine.close()  # the process takes its files with it; nothing of it is in the systems
            raise Crash(name)

    def new_engine(self) -> Engine:
        """An engine as after a restart: it knows only what is in the two systems and the journal."""
        connectors = {side: MemoryConnector(database) for side, database in self.databases.items()}
        for database in self.databases.values():
            database.now = lambda: 1000.0  # the engine measures how far the clocks are apart, once, when it opens
        return Engine("link", connectors, self.maps, self.journal, delete_limit=self.delete_limit, point=self.point)

    def start(self, *, master: Side = L, drain: bool = True) -> Story:
        """Let all maps run."""
        for compiled in self.maps:
            self.journal.set_state(compiled.name, desired="running", master=master.value)
        return self.resume(drain=drain)

    def resume(self, *, drain: bool = True) -> Story:
        """Open the engine, bring the maps to the wanted states, carry everything."""
        self.engine = self.new_engine()
        self.engine.open()
        for database in self.databases.values():
            database.now = self.clock
        self.engine.reconcile()
        if drain:
            self.engine.drain()
        return self

    def drain(self) -> None:
        """Carry everything."""
        self.engine.drain()

    def repair(self, master: Side) -> None:
        """Make both sides of all maps agree."""
        do = partial(execute, self.engine)
        for compiled in self.maps:
            agree(self.journal, self.engine.connectors, compiled, master, "repair", do)

    def carry(self, source: Side, limit: int = 10_000) -> None:
        """One turn of the flow out of a side."""
        self.engine.flows[source].pace.limit = limit
        self.engine.flows[source].turn(0)

    def user(self, side: Side):
        """A user's transaction."""
        return self.databases[side].user()

    def insert(self, side: Side, where: str = "", /, **values: Value) -> None:
        """A user adds a record (of the main table unless another is named)."""
        with self.user(side) as user:
            user.insert(where or MAIN[side], values)

    def update(self, side: Side, code: str, where: str = "", /, **values: Value) -> None:
        """A user changes the record with this code."""
        with self.user(side) as user:
            assert user.update(where or MAIN[side], {"code": code}, values) == 1

    def delete(self, side: Side, code: str, where: str = "", /) -> None:
        """A user deletes the record with this code."""
        with self.user(side) as user:
            assert user.delete(where or MAIN[side], {"code": code}) == 1

    def rows(self, side: Side, *columns: str, where: str = "") -> set[tuple[Value, ...]]:
        """What a user sees of a table, as tuples of these columns."""
        with self.user(side) as user:
            found = user.rows(where or MAIN[side])
        return {tuple(row[name] for name in columns) for row in found}

    def both(self, *columns: str) -> set[tuple[Value, ...]]:
        """The same of both main tables, which must agree."""
        left, right = self.rows(L, *columns), self.rows(R, *columns)
        assert left == right
        return left

    def names(self, side: Side, lookup: str) -> set[tuple[Value, Value]]:
        """Codes of the right-hand main table with the code that a lookup leads to; on the left the plain column."""
        if side is L:
            return self.rows(L, "code", lookup)  # type: ignore[return-value]
        column, target = ("family", "families") if lookup == "grp" else ("parent", "products")
        with self.user(R) as user:
            codes = {row["id"]: row["code"] for row in user.rows(target)}
            return {(row["code"], codes.get(row[column])) for row in user.rows("products")}

    def conflicts(self) -> list[Conflict]:
        """The conflict log."""
        return self.journal.conflicts({})

    def parked(self) -> list[Parked]:
        """What is parked."""
        return self.journal.parked({})

    def commits(self) -> tuple[int, int]:
        """How many transactions the engine has committed in each system."""
        return tuple(database.links["link"].number for database in self.databases.values())  # type: ignore[return-value]

    def at_rest(self) -> None:
        """Nothing is parked, and carrying again writes nothing."""
        assert not self.parked()
        before = self.commits()
        self.drain()
        assert self.commits() == before


@pytest.fixture
def story() -> Story:
    """Items on both sides, linked and running; one record."""
    told = Story(ITEM_MAP)
    told.insert(L, code="1", name="one", note="a", amount="10")
    return told.start()


# -- carrying ----------------------------------------------------------------------------------------------------------


def test_existing_records_agree_after_the_initial_sync() -> None:
    """Records of one side are made on the other; where both have one, the master's values win."""
    story = Story(ITEM_MAP)
    story.insert(L, code="1", name="left")
    story.insert(R, code="1", name="right")
    story.insert(L, code="2", name="two")
    story.insert(R, code="3", name="three")
    story.start(master=R)
    assert story.both("code", "name") == {("1", "right"), ("2", "two"), ("3", "three")}
    assert not story.conflicts()
    story.at_rest()


@pytest.mark.parametrize("side", Side)
def test_insert_update_delete_arrive(side: Side) -> None:
    """What users do on one side is there on the other."""
    story = Story(ITEM_MAP).start()
    story.insert(side, code="1", name="one", amount="1")
    story.drain()
    assert story.both("code", "name", "amount") == {("1", "one", "1")}
    story.update(side, "1", name="uno")
    story.drain()
    assert story.both("code", "name", "amount") == {("1", "uno", "1")}
    story.delete(side, "1")
    story.drain()
    assert story.both("code") == set()
    story.at_rest()


def test_several_edits_of_a_record_arrive_as_their_result(story: Story) -> None:
    """Insert, update and delete within one batch leave what the last of them left."""
    story.insert(L, code="2", name="a")
    story.update(L, "2", name="b")
    story.update(L, "2", note="n")
    story.insert(L, code="3", name="gone")
    story.delete(L, "3")
    story.drain()
    assert story.both("code", "name", "note") == {("1", "one", "a"), ("2", "b", "n")}
    story.at_rest()


def test_echo_does_not_ping_pong(story: Story) -> None:
    """One edit is one commit on the other side, and none on its own."""
    left, right = story.commits()
    story.update(L, "1", name="uno")
    story.drain()
    assert story.commits() == (left, right + 1)
    story.update(R, "1", name="ein")
    story.drain()
    assert story.commits() == (left + 1, right + 1)
    story.at_rest()


def test_what_was_written_past_the_capture_is_parked_alone(story: Story) -> None:
    """A record that nobody told about is not what it should be: it alone waits, whatever else is in its batch."""
    for code in "23456":
        story.insert(L, code=code, name="old")
    story.drain()
    products = story.databases[R].tables["products"]
    (number,) = products.find(("code",), ("4",))
    products.put(number, {**products.records[number], "name": "past the capture"})
    for code in "23456":
        story.update(L, code, name="new")
    story.drain()
    assert [(entry.shown_key, entry.code) for entry in story.parked()] == [("4", "bypassed")]
    assert {code for code, name in story.rows(R, "code", "name") if name == "new"} == {"2", "3", "5", "6"}


FEEDS_TWO = """
map: Items
left: items
right: products
columns:
  - code = code
  - name = name
  - name > note
"""


@pytest.mark.parametrize("master", Side)
def test_a_column_that_feeds_two(master: Side) -> None:
    """Whoever changes a column, and on which side: both columns that it feeds follow."""
    story = Story(FEEDS_TWO)
    story.insert(L, code="1", name="left")
    story.insert(R, code="1", name="right", note="?")
    story.insert(R, code="2", name="two", note="?")
    story.start(master=master)
    name = "left" if master is L else "right"
    assert story.rows(L, "code", "name", "name") == {("1", name, name), ("2", "two", "two")}
    assert story.rows(R, "code", "name", "note") == {("1", name, name), ("2", "two", "two")}
    story.update(L, "1", name="b")
    story.update(R, "2", name="c")
    story.insert(R, code="3", name="d")
    story.drain()
    assert story.rows(R, "code", "name", "note") == {("1", "b", "b"), ("2", "c", "c"), ("3", "d", "d")}
    story.at_rest()


COMPUTED = """
map: Items
left: items
right: products
columns:
  - code = code
  - name = name
  - amount = amount
  - none >> note: {expr: "name & ' ' & grp", truncate: true}
  - none >> tag: {expr: "if(amount = null, null, code & '-' & 12 / amount)"}
  - kind >> kind: {trim: true, upper: true, default: NONE}
"""


def clean(story: Story) -> bool:
    """Do both sides agree?"""
    connectors = {side: MemoryConnector(database) for side, database in story.databases.items()}
    return all(verify(compiled, connectors).clean for compiled in story.maps)


@pytest.mark.parametrize("master", Side)
def test_computed_columns(master: Side) -> None:
    """What is computed follows its columns, whoever changes them and wherever, and is put back where it is edited."""
    story = Story(COMPUTED)
    story.insert(L, code="1", name="left", grp="g", amount="4", kind=" a ")
    story.insert(R, code="1", name="right", note="?", amount="3", kind="a")
    story.insert(R, code="2", name="two", note="?", amount="6", kind="?")
    story.start(master=master)
    name, amount = ("left", "4") if master is L else ("right", "3")
    first = ("1", name, f"{name} g", f"1-{12 // int(amount)}", "A")
    assert story.rows(R, "code", "name", "note", "tag", "kind") == {first, ("2", "two", "two ", "2-2", "NONE")}
    assert clean(story)
    story.update(L, "1", grp="h", kind="b\n")
    story.update(R, "2", name="zwei", amount="12")
    story.insert(R, code="3", name="three")
    story.insert(L, code="4", name="four", amount="1")
    story.drain()
    assert story.rows(R, "code", "note", "tag", "kind") == {
        ("1", f"{name} h", first[3], "B"),
        ("2", "zwei ", "2-1", "NONE"),
        ("3", "three ", None, "NONE"),
        ("4", "four ", "4-12", "NONE"),
    }
    story.update(R, "1", note="mine", kind="mine")
    story.update(R, "4", name="vier", note="mine")
    story.drain()
    assert story.rows(R, "code", "note", "kind") >= {("1", f"{name} h", "B"), ("4", "vier ", "NONE")}
    assert clean(story)
    story.at_rest()


CHAIN = """
map: Items
left: items
right: products
columns:
  - code = code
  - name << name: {default: none}
  - none >> note: {expr: "name & '!'"}
  - tag << note: {upper: true}
  - none >> kind: {expr: "tag & '?'"}
"""


@pytest.mark.parametrize("crash", ["", "inside restore"])
@pytest.mark.parametrize("side", Side)
def test_one_way_columns_that_feed_each_other(side: Side, crash: str) -> None:
    """A chain that goes to and fro is followed to its end, whoever changes its first column, and after a crash, too."""
    story = Story(CHAIN)
    story.insert(side, code="1")
    story.start()
    assert story.rows(L, "name", "tag") == {("none", "NONE!")}
    assert story.rows(R, "name", "note", "kind") == {(None, "none!", "NONE!?")}
    story.crash_at = crash
    story.update(R, "1", name="a")
    if crash:
        with pytest.raises(Crash):
            story.drain()
        story.resume()
    story.drain()
    story.update(L, "1", name="mine", tag="mine")
    story.drain()
    assert story.rows(L, "name", "tag") == {("a", "A!")}
    assert story.rows(R, "name", "note", "kind") == {("a", "a!", "A!?")}
    assert clean(story)
    story.at_rest()


def test_a_record_on_which_a_formula_fails_waits_alone() -> None:
    """It is parked with its reason; once its columns are corrected, a retry lets it through."""
    story = Story(COMPUTED).start()
    story.insert(L, code="1", amount="0")
    story.insert(L, code="2", amount="2")
    story.drain()
    assert story.rows(R, "code", "tag") == {("2", "2-6")}
    (parked,) = story.parked()
    assert (parked.shown_key, parked.code, parked.column) == ("1", "not_computed", "tag")
    assert "amount = '0', code = '1', cannot become right tag: it divides by zero" in parked.reason
    story.update(L, "1", amount="3")
    story.drain()
    execute(story.engine, "retry", {})
    assert story.rows(R, "code", "tag") == {("1", "1-4"), ("2", "2-6")}
    story.at_rest()


def test_two_lines_carry_one_column_both_ways() -> None:
    """The first of them carries back; what the second one leads to follows, and an edit there is undone."""
    story = Story(FEEDS_TWO.replace("name > note", "name = note"))
    story.insert(L, code="1", name="left")
    story.insert(R, code="2", name="two", note="?")
    story.start()
    assert story.rows(R, "code", "name", "note") == {("1", "left", "left"), ("2", "two", "two")}
    story.update(R, "1", name="b")
    story.update(R, "2", note="c")
    story.drain()
    assert story.rows(L, "code", "name", "name") == {("1", "b", "b"), ("2", "two", "two")}
    assert story.rows(R, "code", "name", "note") == {("1", "b", "b"), ("2", "two", "two")}
    story.at_rest()


# -- both sides at once ------------------------------------------------------------------------------------------------


def test_split_edit(story: Story) -> None:
    """Different columns edited on both sides at once: both edits stay, and nothing was in conflict."""
    story.update(L, "1", name="uno")
    story.update(R, "1", note="b")
    story.drain()
    assert story.both("code", "name", "note") == {("1", "uno", "b")}
    assert not story.conflicts()
    story.at_rest()


def test_same_column_edited_on_both_sides(story: Story) -> None:
    """The later edit wins on both sides; the loser is in the conflict log with both values and what was before."""
    story.update(L, "1", name="left")
    story.update(R, "1", name="right")
    story.drain()
    assert story.both("code", "name") == {("1", "right")}
    [conflict] = story.conflicts()
    assert (conflict.map, conflict.shown_key, conflict.unit, conflict.winner) == ("Items", "1", "name", "right")
    assert (conflict.left, conflict.right, conflict.base) == (("left",), ("right",), ("one",))
    story.at_rest()


def test_double_insert(story: Story) -> None:
    """The same record made on both sides becomes one; what only one of them filled in stays."""
    story.insert(L, code="2", name="left", note="n")
    story.insert(R, code="2", name="right", tag="t")
    story.drain()
    assert story.both("code", "name", "note", "tag") >= {("2", "right", "n", "t")}
    assert [(c.unit, c.winner) for c in story.conflicts()] == [("name", "right")]
    story.at_rest()


def test_records_that_are_brought_back_are_written_together(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Very many may be deleted on one side while they are edited on the other."""
    codes = [str(number) for number in range(10, 40)]
    for code in codes:
        story.insert(L, code=code, name="a", note="n")
    story.drain()
    for code in codes:
        story.delete(L, code)
        story.update(R, code, name="b")
    written: list[int] = []
    write = MemoryTransaction.write

    def counted(self: MemoryTransaction, view: View, writes: Sequence[Write]) -> list[Outcome]:
        written.append(len(writes))
        return write(self, view, writes)

    monkeypatch.setattr(MemoryTransaction, "write", counted)
    story.carry(R)
    assert written == [len(codes)]
    story.drain()
    assert story.both("code", "name", "note") == {("1", "one", "a"), *((code, "b", "n") for code in codes)}
    story.at_rest()


@pytest.mark.parametrize(("rows", "stays"), [("keep", True), ("delete", False), ("left", True), ("right", False)])
def test_update_against_delete(rows: str, stays: bool) -> None:
    """Edited on the left, deleted on the right at once: the map says what becomes of it, and the log what lost."""
    story = Story(f"rows: {rows}\n" + ITEM_MAP.lstrip())
    story.insert(L, code="1", name="one", note="a")
    story.start()
    story.update(L, "1", name="uno")
    story.delete(R, "1")
    story.drain()
    assert story.both("code", "name", "note") == ({("1", "uno", "a")} if stays else set())
    assert {c.winner for c in story.conflicts()} == {"left" if stays else "right"}
    story.at_rest()


def test_delete_and_insert_again(story: Story) -> None:
    """A record deleted and made anew on one side is the new record on both."""
    story.delete(L, "1")
    story.insert(L, code="1", name="new")
    story.drain()
    assert story.both("code", "name", "note") == {("1", "new", None)}
    story.delete(R, "1")
    story.drain()
    story.insert(R, code="1", note="again")
    story.drain()
    assert story.both("code", "name", "note") == {("1", None, "again")}
    story.at_rest()


def test_counter_adds_what_both_sides_added(story: Story) -> None:
    """A column that sums keeps every delta, each once."""
    story.update(L, "1", amount="13")
    story.update(R, "1", amount="17")
    story.drain()
    assert story.both("code", "amount") == {("1", "20")}
    assert not story.conflicts()
    story.at_rest()


def test_edit_between_reading_and_writing(story: Story) -> None:
    """An edit of the target that comes just before our transaction is noticed there."""
    story.update(L, "1", name="left")
    story.at_point["after read"] = lambda: story.update(R, "1", name="right")
    story.carry(L)
    assert story.rows(R, "name") == {("right",)}
    story.drain()
    assert story.both("name") == {("right",)}
    assert len(story.conflicts()) == 1


def test_a_long_backlog_of_the_target_is_read_without_its_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much the target's users did meanwhile, a change is decided with all of it."""
    read_inside = []

    def since(self, after, limit):
        found = read(self, after, limit)
        read_inside.append(len(found.changes))
        return found

    read = MemoryTransaction.since
    monkeypatch.setattr(MemoryTransaction, "since", since)
    monkeypatch.setattr(flow, "LAGGING", 3)
    story = Story(ITEM_MAP, conflict="left").start()
    story.insert(L, code="1", name="one")
    story.drain()
    for turn in range(8):
        story.update(R, "1", name=f"right {turn}")
    story.update(R, "1", note="noted")
    story.update(L, "1", name="left")
    story.carry(L)
    assert story.rows(R, "name", "note") == {("left", "noted")}
    assert max(read_inside) == 3
    story.drain()
    assert story.both("name", "note") == {("left", "noted")}
    assert len(story.conflicts()) == 8
    story.at_rest()


# -- keys and references -----------------------------------------------------------------------------------------------


def test_swap_of_two_unique_values(story: Story) -> None:
    """Two records exchange a unique value, by way of a third."""
    story.insert(L, code="2", tag="two")
    story.update(L, "1", tag="one")
    story.drain()
    story.update(L, "1", tag="aside")
    story.update(L, "2", tag="one")
    story.update(L, "1", tag="two")
    story.drain()
    assert story.both("code", "tag") == {("1", "two"), ("2", "one")}
    story.at_rest()


def test_unique_value_moves_on(story: Story) -> None:
    """A value that one record gives up and another one takes arrives, whatever the order of their keys."""
    story.insert(L, code="0", name="zero")
    story.update(L, "1", tag="t")
    story.drain()
    story.update(L, "1", tag=None)
    story.update(L, "0", tag="t")
    story.drain()
    assert story.both("code", "tag") == {("0", "t"), ("1", None)}
    story.delete(L, "0")
    story.update(L, "1", tag="t")
    story.drain()
    assert story.both("code", "tag") == {("1", "t")}
    story.at_rest()


def test_rename_of_a_key(story: Story) -> None:
    """A record that gets another key is the same record on the other side, with what the link does not carry."""
    story.update(R, "1", kind="ours")
    story.update(L, "1", code="9")
    story.drain()
    assert story.rows(R, "code", "name", "kind") == {("9", "one", "ours")}
    story.update(R, "9", code="1", name="back")
    story.drain()
    assert story.both("code", "name") == {("1", "back")}
    story.at_rest()


def test_rename_meets_an_edit(story: Story) -> None:
    """A key changed on one side and the record on the other: parked, for a person to look at."""
    story.update(L, "1", code="9")
    story.update(R, "1", name="uno")
    story.drain()
    assert {entry.code for entry in story.parked()} == {"rename", "behind"}
    assert story.rows(R, "code", "name") == {("1", "uno")}


@pytest.mark.parametrize("child_first", [True, False])
def test_child_before_its_parent(child_first: bool) -> None:
    """A record whose parent is not there yet waits, and goes through by itself when the parent comes from the left."""
    story = Story(WITH_GROUP, GROUP_MAP).start()
    if child_first:
        story.insert(L, code="1", grp="g")
        story.carry(L)
        assert [entry.code for entry in story.parked()] == ["missing_parent"]
        story.insert(L, "groups", code="g", name="G")
    else:
        story.insert(L, "groups", code="g", name="G")
        story.insert(L, code="1", grp="g")
    story.drain()
    assert story.names(R, "grp") == {("1", "g")}
    story.at_rest()


def test_parent_comes_from_the_other_side() -> None:
    """A waiting record also goes through when users of the target make its parent."""
    story = Story(WITH_GROUP, GROUP_MAP).start()
    story.insert(L, code="1", name="one", grp="g")
    story.drain()
    assert [entry.code for entry in story.parked()] == ["missing_parent"]
    story.update(L, "1", name="uno")
    story.drain()
    assert [entry.changes for entry in story.parked()] == [2]
    story.insert(R, "families", code="g")
    story.drain()
    assert story.names(R, "grp") == story.names(L, "grp") == {("1", "g")}
    assert story.both("name") == {("uno",)}
    story.at_rest()


@pytest.mark.parametrize("side", Side)
def test_renamed_parent_reaches_its_children(side: Side) -> None:
    """When a parent gets another key, the records that refer to it follow on both sides."""
    story = Story(WITH_GROUP, GROUP_MAP, actions={L: {("items", "grp"): "cascade"}})
    story.insert(L, "groups", code="g", name="G")
    story.insert(L, code="1", grp="g")
    story.start()
    story.update(side, "g", "groups" if side is L else "families", code="h")
    story.drain()
    assert story.names(L, "grp") == story.names(R, "grp") == {("1", "h")}
    story.at_rest()


def test_initial_sync_of_records_that_refer_to_each_other() -> None:
    """Two records that are each other's parent, and one that is its own, are made in two passes."""
    story = Story(WITH_PARENT)
    for code in "123":
        story.insert(L, code=code)
    story.update(L, "1", parent="2")
    story.update(L, "2", parent="1")
    story.update(L, "3", parent="3")
    story.start()
    assert story.names(R, "parent") == story.names(L, "parent") == {("1", "2"), ("2", "1"), ("3", "3")}
    story.at_rest()


# -- directions, constants, filters ------------------------------------------------------------------------------------


def test_one_way_column_edited_on_its_target_is_overwritten() -> None:
    """A column that belongs to the left takes the left value again, at once."""
    story = Story(ITEM_MAP.replace("name = name", "name > name"))
    story.insert(L, code="1", name="one", note="a")
    story.start()
    story.update(R, "1", name="mine", note="b")
    story.drain()
    assert story.both("name", "note") == {("one", "b")}
    story.insert(R, code="2", name="two", note="c")
    story.drain()
    assert story.both("code", "name", "note") == {("1", "one", "b"), ("2", None, "c")}
    story.at_rest()


def test_constant_is_written_and_written_again() -> None:
    """A constant is there after every insert, and comes back when somebody overwrites it."""
    story = Story(ITEM_MAP + "  - none >> kind: {default: item}\n").start()
    story.insert(L, code="1")
    story.insert(R, code="2", kind="other")
    story.drain()
    assert story.rows(R, "code", "kind") == {("1", "item"), ("2", "item")}
    story.update(R, "1", kind="mine")
    story.drain()
    assert story.rows(R, "code", "kind") == {("1", "item"), ("2", "item")}
    story.at_rest()


@pytest.mark.parametrize("on_leave", ["detach", "delete"])
def test_record_leaves_its_filter_and_enters_again(on_leave: str) -> None:
    """What is outside the filter is not carried; leaving means what the map says; entering is an insert."""
    head = f"filter: {{left: \"kind eq 'x'\"}}\non_leave: {on_leave}\n"
    story = Story(head + ITEM_MAP.lstrip()).start()
    story.insert(L, code="1", name="one", kind="x")
    story.insert(L, code="2", name="two", kind="y")
    story.drain()
    assert story.rows(R, "code", "name") == {("1", "one")}
    story.update(L, "1", kind="y")
    story.drain()
    assert story.rows(R, "code", "name") == ({("1", "one")} if on_leave == "detach" else set())
    story.update(L, "1", name="uno")
    story.drain()
    assert story.rows(R, "code", "name") == ({("1", "one")} if on_leave == "detach" else set())
    story.update(L, "1", kind="x")
    story.drain()
    assert story.rows(R, "code", "name") == {("1", "uno")}
    story.at_rest()


def test_deletes_that_are_not_carried() -> None:
    """With ``deletes: false`` a deleted record stays on the other side, and an edit there brings it back."""
    story = Story("deletes: false\n" + ITEM_MAP.lstrip())
    story.insert(L, code="1", name="one", note="a")
    story.start()
    story.delete(R, "1")
    story.drain()
    assert story.rows(L, "code") == {("1",)}
    assert story.rows(R, "code") == set()
    story.update(L, "1", name="uno")
    story.drain()
    assert story.both("code", "name", "note") == {("1", "uno", "a")}
    story.at_rest()


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_poison_row_among_others(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that the target refuses is parked alone, with its own later edits; the others arrive."""
    monkeypatch.setattr(release, "INTERVAL", 3600.0)  # it is not taken again by itself, however slow this machine is
    story.insert(R, code="x", tag="t")
    story.insert(L, code="2", name="two")
    story.insert(L, code="3", tag="t")
    story.insert(L, code="4", name="four")
    story.carry(L)
    [entry] = story.parked()
    assert (entry.key, entry.code, entry.side) == ('["3"]', "unique", R)
    assert "tag" in entry.reason
    assert {("2",), ("4",)} <= story.rows(R, "code")
    story.update(L, "3", name="three", tag="other")
    story.carry(L)
    assert [entry.changes for entry in story.parked()] == [2]
    execute(story.engine, "retry", {})
    story.drain()
    assert {("3", "three", "other"), ("x", None, "t")} <= story.both("code", "name", "tag")
    story.at_rest()


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
def test_a_record_that_the_target_shows_otherwise_than_it_has_it(
    story: Story, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is parked, with a reason, and the others arrive: nothing goes round and round."""
    story.insert(L, code="odd", name="one")
    story.drain()
    write = MemoryTransaction.write

    def odd(transaction: MemoryTransaction, view: View, writes: Sequence[Write]) -> list[Outcome]:
        found = write(transaction, view, [each for each in writes if each.key != ("odd",)])
        return [Contested(None) if each.key == ("odd",) else found.pop(0) for each in writes]

    monkeypatch.setattr(MemoryTransaction, "write", odd)
    if kind == "update":
        story.update(L, "odd", name="other")
    else:
        story.delete(L, "odd")
    if kind == "insert":
        story.drain()
        story.insert(L, code="odd", name="again")
    story.insert(L, code="2", name="two")
    story.carry(L)
    [entry] = story.parked()
    assert (entry.key, entry.code) == ('["odd"]', "other")
    assert "not as it is when it is written" in entry.reason
    assert ("2", "two") in story.rows(R, "code", "name")
    monkeypatch.undo()
    execute(story.engine, "retry", {})
    story.drain()
    assert not story.parked()
    story.at_rest()


def test_value_that_does_not_fit() -> None:
    """A text that is too long for the other side is parked before it is written, with the column at fault."""
    story = Story(ITEM_MAP.replace("note = note", "kind = note")).start()
    story.insert(L, code="1", kind="far too long for the other side")
    story.insert(L, code="2", kind="fits")
    story.drain()
    [entry] = story.parked()
    assert (entry.key, entry.column) == ('["1"]', "kind")
    story.update(L, "1", kind="short")
    story.drain()
    execute(story.engine, "retry", {})
    assert story.rows(R, "code", "note") == {("1", "short"), ("2", "fits")}
    story.at_rest()


def test_duplicate_key_on_one_side() -> None:
    """A key that two records hold is parked with both of them; nobody picks one."""
    schema = Schema({"plain": Table("plain", (text("code"), text("name")))})
    databases = {side: MemoryDatabase(schema, f"plain {side}") for side in Side}
    table_map = read_map(
        "map: Plain\nleft: plain\nright: plain\nkey: [code]\ncolumns:\n  - code = code\n  - name = name", "map.yaml"
    )
    compiled = compile_map(table_map, schema, schema)
    with databases[L].user() as user:
        user.insert("plain", {"code": "1", "name": "first"})
        user.insert("plain", {"code": "1", "name": "second"})
        user.insert("plain", {"code": "2", "name": "two"})
    with Journal.open("sqlite://") as journal:
        journal.set_state("Plain", desired="running")
        connectors = {side: MemoryConnector(database) for side, database in databases.items()}
        engine = Engine("link", connectors, [compiled], journal)
        engine.open()
        engine.reconcile()
        engine.drain()
        with databases[R].user() as user:
            assert [row["code"] for row in user.rows("plain")] == ["2"]
        assert [(entry.key, entry.code, entry.changes) for entry in journal.parked({})] == [
            ('["1"]', "duplicate_key", 2)
        ]
        execute(engine, "retry", {})
        assert [(entry.key, entry.code, entry.changes) for entry in journal.parked({})] == [
            ('["1"]', "duplicate_key", 2)
        ]
        with databases[L].user() as user:
            user.update("plain", {"name": "second"}, {"code": "3", "name": "third"})
        engine.drain()
        execute(engine, "retry", {})
        assert not journal.parked({})
        with databases[R].user() as user:
            assert {(row["code"], row["name"]) for row in user.rows("plain")} == {
                ("1", "first"),
                ("2", "two"),
                ("3", "third"),
            }


def test_nobody_waits_for_what_users_write_meanwhile(story: Story) -> None:
    """Users who never stop writing keep no command waiting: what was committed when it asked is carried."""
    story.insert(L, code="x", name="first")
    written = 0

    def write() -> None:
        nonlocal written
        written += 1
        assert written < 1000, "it waits for ever"
        story.insert(L, code=f"n{written}")
        story.at_point["after commit"] = write

    story.at_point["after commit"] = write
    story.drain()
    story.at_point.clear()
    assert ("x", "first") in story.rows(R, "code", "name")
    story.drain()
    assert len(story.both("code")) == written + 2
    story.at_rest()


def test_manual_conflict_and_its_resolution() -> None:
    """A person decides once; both sides follow, and later edits flow again."""
    story = Story(ITEM_MAP.replace("name = name", "name = name: {conflict: manual}"))
    story.insert(L, code="1", name="one")
    story.start()
    story.update(L, "1", name="left")
    story.update(R, "1", name="right")
    story.drain()
    assert story.rows(L, "name") == {("left",)}
    assert story.rows(R, "name") == {("right",)}
    [conflict] = story.conflicts()
    assert conflict.open
    assert {entry.code for entry in story.parked()} == {"conflict"}
    story.update(L, "1", note="later")
    story.drain()
    assert story.rows(R, "note") == {(None,)}
    execute(story.engine, "resolve", {"id": conflict.id, "winner": "left"})
    story.drain()
    assert story.both("name", "note") == {("left", "later")}
    [closed] = story.conflicts()
    assert (closed.open, closed.winner) == (False, "left")
    story.update(R, "1", name="next")
    story.drain()
    assert story.both("name") == {("next",)}
    story.at_rest()


@pytest.fixture
def contested() -> Story:
    """A record that both sides have changed at once, for a person to decide; in two columns."""
    story = Story(
        ITEM_MAP.replace("= name", "= name: {conflict: manual}").replace("= note", "= note: {conflict: manual}")
    )
    story.insert(L, code="1", name="one")
    story.start()
    story.update(L, "1", name="left", note="l")
    story.update(R, "1", name="right", note="r")
    story.drain()
    assert [(entry.unit, entry.open) for entry in story.conflicts()] == [("name", True), ("note", True)]
    assert {entry.side for entry in story.parked()} == {L, R}
    return story


def test_a_conflict_is_closed_when_what_waits_for_it_is_dropped(contested: Story) -> None:
    """There is nothing left to decide, and nobody has won; what was decided before stays so."""
    name, note = contested.conflicts()
    execute(contested.engine, "resolve", {"id": note.id, "winner": "left"})
    execute(contested.engine, "discard", {"side": "right"})
    assert [entry.open for entry in contested.conflicts()] == [True, False]
    execute(contested.engine, "discard", {"side": "left"})
    assert [(entry.open, entry.winner) for entry in contested.conflicts()] == [(False, ""), (False, "left")]
    with pytest.raises(Usage, match=f"nothing waits for conflict {name.id} any more"):
        execute(contested.engine, "resolve", {"id": name.id, "winner": "left"})
    with pytest.raises(Usage, match=f"conflict {name.id} was dropped undecided"):
        execute(contested.engine, "undo", {"conflict": name.id})
    contested.repair(R)
    assert contested.both("name", "note") == {("right", "r")}
    contested.at_rest()


@pytest.mark.parametrize("crash_at", ["before commit", "after commit"])
def test_a_conflict_is_closed_with_the_commit_that_drops_it(contested: Story, crash_at: str) -> None:
    """Not where that comes to nothing."""
    execute(contested.engine, "discard", {"side": "left"})
    contested.crash_at = crash_at
    with suppress(Crash):
        execute(contested.engine, "discard", {})
    contested.resume()
    assert {entry.open for entry in contested.conflicts()} == {crash_at == "before commit"}
    assert bool(contested.parked()) == (crash_at == "before commit")


def test_a_map_that_is_stopped_leaves_no_open_conflict(contested: Story) -> None:
    """Its next start compares both sides: there is nothing to decide."""
    wishes.stop(contested.journal, ["Items"], who="ada")
    contested.engine.reconcile()
    assert [(entry.open, entry.winner) for entry in contested.conflicts()] == [(False, ""), (False, "")]


@pytest.fixture
def clash(story: Story) -> Story:
    """Both sides have made a record of their own with the same unique tag: each is parked on the other side."""
    story.insert(R, code="x", tag="t", name="ix")
    story.insert(L, code="2", tag="t", name="old", note="n")
    story.drain()
    assert {(entry.side, entry.key, entry.code) for entry in story.parked()} == {
        (R, '["2"]', "unique"),
        (L, '["x"]', "unique"),
    }
    return story


def test_clash_of_unique_values_is_cleared(clash: Story) -> None:
    """When a user gives up the value that both sides took, both records go through with the next try."""
    clash.update(R, "x", tag="free")
    clash.drain()
    execute(clash.engine, "retry", {})
    clash.drain()
    assert {("2", "t"), ("x", "free")} <= clash.both("code", "tag")
    clash.at_rest()


def test_retry_never_overwrites_newer_data(clash: Story) -> None:
    """What waited long is folded with what users of the target have done since."""
    clash.insert(R, code="2", name="newer")
    clash.drain()
    clash.update(R, "x", tag="free")
    clash.drain()
    execute(clash.engine, "retry", {})
    clash.drain()
    assert ("2", "newer", "n", "t") in clash.both("code", "name", "note", "tag")
    clash.at_rest()


def test_discarded_changes_are_gone_and_later_ones_flow(clash: Story) -> None:
    """Discarding lets go of what is parked; the record goes on from there."""
    execute(clash.engine, "discard", {})
    assert not clash.parked()
    clash.insert(R, code="2", note="new")
    clash.drain()
    assert ("2", "new") in clash.rows(L, "code", "note") & clash.rows(R, "code", "note")
    assert ("x",) not in clash.rows(L, "code")


def many(limit: int) -> Story:
    """Five records, all deleted on the left at once, where a limit is set."""
    story = Story(ITEM_MAP, delete_limit=limit)
    for code in "12345":
        story.insert(L, code=code)
    story.start()
    with story.user(L) as user:
        user.delete("items", {})
    return story


def test_many_deletes_wait_for_a_person() -> None:
    """More deletes than the limit are parked, each; everything else flows, and a word lets them through."""
    story = many(2)
    story.drain()
    assert story.rows(R, "code") == {("1",), ("2",), ("3",), ("4",), ("5",)}
    assert [entry.code for entry in story.parked()] == ["many_deletes"] * 5
    story.insert(L, code="6")
    story.update(R, "5", name="five")
    story.engine.close()
    story.resume()
    assert ("6",) in story.rows(R, "code")
    assert len(story.parked()) == 5
    execute(story.engine, "retry", {"code": "many_deletes"})
    story.drain()
    assert story.both("code", "name") == {("5", "five"), ("6", None)}
    assert [(entry.unit, entry.winner) for entry in story.conflicts()] == [("row", "right")]
    story.at_rest()


def test_many_deletes_can_be_undone() -> None:
    """Deletes that were a mistake are dropped, and a repair brings the records back."""
    story = many(2)
    story.drain()
    execute(story.engine, "discard", {"code": "many_deletes"})
    story.repair(R)
    assert story.both("code") == {("1",), ("2",), ("3",), ("4",), ("5",)}
    story.at_rest()


def test_deletes_count_together_however_they_are_read() -> None:
    """In small batches no more than the limit gets through."""
    story = many(2)
    for _ in range(5):
        story.carry(L, limit=1)
    assert len(story.rows(R, "code")) == 3
    assert [entry.code for entry in story.parked()] == ["many_deletes"] * 3


@pytest.mark.parametrize("crash_at", ["before commit", "after commit", ""])
def test_deletes_count_over_a_restart(crash_at: str) -> None:
    """Neither a restart nor a crash lets more than the limit through, and none is counted twice."""
    story = Story(ITEM_MAP, delete_limit=4)
    for code in "1234567":
        story.insert(L, code=code)
    story.start()
    for code in "12":
        story.delete(L, code)
    story.crash_at = crash_at
    with suppress(Crash):
        story.drain()
    story.engine.close()
    story.resume()
    for code in "34":
        story.delete(L, code)
    story.drain()
    assert not story.parked()
    for code in "567":
        story.delete(L, code)
    story.engine.close()
    story.resume()
    assert [entry.code for entry in story.parked()] == ["many_deletes"] * 3
    assert len(story.rows(R, "code")) == 3


def test_deletes_that_lie_apart_are_no_crowd() -> None:
    """What people delete one by one over a long time is carried."""
    story = Story(ITEM_MAP, delete_limit=2)
    for code in "12345":
        story.insert(L, code=code)
    story.start()
    for code in "12345":
        story.delete(L, code)
        story.now += 60
    story.drain()
    assert not story.both("code")


def test_what_is_being_parked_has_not_been_seen() -> None:
    """An edit behind the marker of a commit that parks its record is told apart even while that commit returns."""
    story = Story(WITH_GROUP, GROUP_MAP)
    story.insert(L, "groups", code="g", name="G")
    story.insert(L, code="1", name="one")
    story.start()
    with story.user(R) as user:
        (family,) = user.rows("families")
    other: list[threading.Thread] = []

    def edit_and_carry() -> None:
        story.update(R, "1", family=family["id"])
        other.append(threading.Thread(target=story.engine.flows[R].turn, args=(0,)))
        other[0].start()
        other[0].join(0.2)  # all that it may do meanwhile

    story.update(L, "1", grp="nobody")
    story.at_point["after commit"] = edit_and_carry
    story.carry(L)
    other[0].join()
    assert [entry.code for entry in story.parked()] == ["missing_parent"]
    story.drain()
    assert story.names(L, "grp") == {("1", "g")}
    assert [(entry.left, entry.right, entry.winner) for entry in story.conflicts()] == [(("nobody",), ("g",), "right")]


def test_a_record_that_comes_back_gets_its_constants() -> None:
    """An edit brings back what was deleted outside of its filter; constants that were edited meanwhile are restored."""
    head = "map: Items\nleft: items\nright: products\nfilter: {left: \"note eq 'x'\"}\n"
    lines = ["code = code", "name = name", "note << none: {default: x}", "none >> tag: {default: erp}"]
    story = Story(head + "columns:\n" + "".join(f"  - {line}\n" for line in lines))
    story.insert(L, code="1", name="one", note="x")
    story.start()
    story.update(L, "1", note="y")
    story.drain()
    story.update(R, "1", tag="mine")
    story.drain()
    story.update(R, "1", name="two")
    story.delete(L, "1")
    story.drain()
    assert story.rows(L, "code", "name", "note") == {("1", "two", "x")}
    assert story.rows(R, "code", "name", "tag") == {("1", "two", "erp")}
    story.at_rest()


# -- stopping, crashing ------------------------------------------------------------------------------------------------


def test_stop_and_start(story: Story) -> None:
    """What happens while a map is stopped is made good by the initial sync of its next start."""
    story.journal.set_state("Items", desired="stopped")
    story.engine.reconcile()
    story.update(L, "1", name="uno")
    story.insert(R, code="2", name="two")
    story.drain()
    assert story.rows(R, "code", "name") == {("1", "one"), ("2", "two")}
    story.journal.set_state("Items", desired="running")
    story.engine.reconcile()
    story.drain()
    assert story.both("code", "name") == {("1", "uno"), ("2", "two")}
    story.update(R, "1", name="ein")
    story.drain()
    assert story.both("code", "name") == {("1", "ein"), ("2", "two")}
    story.at_rest()


def test_work_goes_on_after_a_restart(story: Story) -> None:
    """What users did while the engine was not running arrives without an initial sync."""
    story.update(L, "1", name="uno")
    story.engine.close()
    story.update(R, "1", note="b")
    story.insert(L, code="2", name="two")
    story.resume()
    assert story.both("code", "name", "note") == {("1", "uno", "b"), ("2", "two", None)}
    story.engine.close()
    story.resume()
    story.at_rest()


def test_work_goes_on_after_idle_edits_were_forgotten(story: Story) -> None:
    """Edits that no map carries leave no trace in the target; once acknowledged, the link is taken up behind them."""
    story.journal.set_state("Items", desired="stopped")
    story.engine.reconcile()
    story.update(L, "1", name="uno")
    story.drain()
    story.engine.close()
    story.journal.set_state("Items", desired="running")
    story.resume()
    assert story.both("code", "name") == {("1", "uno")}


def test_acknowledging_waits_for_what_was_read_again(story: Story) -> None:
    """After a restart nothing is forgotten before the flow has read up to there once more."""
    story.update(L, "1", name="uno")
    story.crash_at = "after commit"
    with suppress(Crash):
        story.carry(L)
    story.resume(drain=False)
    story.engine.acknowledge()
    story.update(R, "1", note="b")
    story.drain()
    assert story.both("name", "note") == {("uno", "b")}
    story.at_rest()


POINTS = (
    "after read",
    "after map",
    "before journal",
    "before commit",
    "after commit",
    "before acknowledge",
    "after acknowledge",
)


@pytest.mark.parametrize("point", POINTS)
def test_crash_while_carrying(point: str) -> None:
    """Wherever the process dies: nothing is lost, nothing is done twice, and each conflict is in the log once."""
    story = Story(ITEM_MAP)
    story.insert(L, code="1", name="one", amount="10")
    story.start()
    story.update(L, "1", name="left", amount="11")
    story.update(R, "1", name="right", amount="12")
    story.crash_at = point
    with suppress(Crash):
        story.drain()
    assert not story.crash_at, "the engine passes this point"
    story.resume()
    assert story.both("name", "amount") == {("right", "13")}
    assert [c.unit for c in story.conflicts()] == ["name"]
    story.at_rest()


SYNC_POINTS = ("after map", "before journal", "before commit", "after commit", "between chunks", "between passes")


@pytest.mark.parametrize("point", ["between chunks", "between passes", "before commit", "after commit"])
def test_crash_while_syncing(point: str) -> None:
    """An initial sync that dies is done again; edits made meanwhile stay."""
    story = Story(ITEM_MAP)
    story.insert(L, code="1", name="one")
    story.insert(R, code="2", name="two")
    story.crash_at = point
    with suppress(Crash):
        story.start(drain=False)
    assert not story.crash_at, "the engine passes this point"
    story.insert(L, code="3", name="three")
    story.resume()
    assert story.both("code", "name") == {("1", "one"), ("2", "two"), ("3", "three")}
    story.at_rest()


@pytest.mark.parametrize("point", ["between chunks", "between passes"])
def test_edits_during_the_initial_sync(point: str) -> None:
    """What users do while their records are made to agree wins over what was found before."""
    story = Story(ITEM_MAP)
    story.insert(L, code="1", name="one")
    story.insert(R, code="1", name="eins", note="n")
    story.insert(L, code="2", name="two")

    def edits() -> None:
        story.update(R, "1", name="newer")
        story.insert(R, code="3", name="three")
        story.delete(L, "2")

    story.at_point[point] = edits
    story.start()
    assert story.both("code", "name") == {("1", "newer"), ("3", "three")}
    story.at_rest()


def test_crash_inside_a_retry(clash: Story) -> None:
    """A retry that dies has done nothing."""
    clash.update(R, "x", tag="free")
    clash.crash_at = "inside retry"
    with suppress(Crash):
        clash.drain()
    assert not clash.crash_at
    assert clash.parked()
    clash.resume()
    execute(clash.engine, "retry", {})
    assert {("2", "t"), ("x", "free")} <= clash.both("code", "tag")
    clash.at_rest()


def test_what_was_restored_is_not_restored_again_by_the_next_start() -> None:
    """Once nothing else is to be done, nothing of it is kept."""
    story = Story(ITEM_MAP.replace("name = name", "name > name"))
    story.insert(L, code="1", name="one")
    story.start()
    story.update(R, "1", name="mine")
    story.drain()
    assert story.both("name") == {("one",)}
    story.engine.flows[R].turn(0)
    assert not [entry for entry in story.engine.connectors[L].remembered(RESTORE) if entry.until is None]
    story.at_rest()


def test_crash_inside_a_restore() -> None:
    """A one-way column that was about to be put back is put back after the restart."""
    story = Story(ITEM_MAP.replace("name = name", "name > name"))
    story.insert(L, code="1", name="one")
    story.start()
    story.update(R, "1", name="mine")
    story.crash_at = "inside restore"
    with suppress(Crash):
        story.drain()
    assert not story.crash_at
    story.resume()
    assert story.both("name") == {("one",)}
    story.at_rest()


@pytest.fixture
def two_engines(story: Story) -> tuple[Story, Engine]:
    """The running engine, and one that was believed dead."""
    old = story.engine
    story.resume()
    return story, old


def test_engine_that_was_believed_dead_stops(two_engines: tuple[Story, Engine]) -> None:
    """Of two engines the one that finds the position moved stops at once, and has applied nothing twice."""
    story, old = two_engines
    story.update(L, "1", amount="11")
    story.carry(L)
    with pytest.raises(Superseded):
        old.flows[L].turn(0)
    story.drain()
    assert story.both("amount") == {("11",)}


def test_trigger_in_the_target() -> None:
    """What a target's own trigger makes of our write comes back as a change of that side."""
    story = Story(ITEM_MAP)

    def capitals(user: User, _kind: object, _old: object, new: Mapping[str, Value] | None) -> None:
        if new is not None and new["name"] and new["name"] != new["name"].upper():
            user.update("products", {"code": new["code"]}, {"name": new["name"].upper()})

    story.databases[R].trigger("products", capitals)
    story.start()
    story.insert(L, code="1", name="one")
    story.drain()
    assert story.both("code", "name") == {("1", "ONE")}
    assert not story.conflicts()
    story.at_rest()


@pytest.mark.parametrize("restored", [L, R])
def test_side_restored_from_a_backup(story: Story, restored: Side) -> None:
    """Where a backup has taken changes away on one side, the engine says so, and an initial sync mends it."""
    backup = story.databases[restored].copy()
    story.update(restored.other, "1", name="later")
    story.update(restored, "1", amount="7")
    story.drain()
    story.databases[restored].restore(backup)
    with pytest.raises(PositionLost):
        story.resume()
    name = story.maps[0].name
    story.journal.set_state(name, desired="stopped")
    story.resume()
    story.journal.set_state(name, desired="running", initial="none", master=restored.other.value)
    story.resume()
    assert story.both("name", "amount") == {("later", "7")}
    story.at_rest()


@pytest.mark.parametrize("restored", [L, R])
def test_side_restored_and_written_to_since(story: Story, restored: Side) -> None:
    """Nothing came from the other side, and the log is longer than it was before: still it is told."""
    backup = story.databases[restored].copy()
    story.update(restored, "1", amount="7")
    story.drain()
    story.databases[restored].restore(backup)
    for number in range(20):
        story.update(restored, "1", amount=str(number))
    with pytest.raises(PositionLost, match="restored from a backup"):
        story.resume()
