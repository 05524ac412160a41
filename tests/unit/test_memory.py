"""What the in-memory system does beyond the contract: users, constraints, references, triggers, backups."""

from __future__ import annotations

from threading import Thread

import pytest

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase, Refused, open_memory, register
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.errors import PositionLost, Unavailable, Usage
from dualwrite.model import ABSENT, Applied, Kind, MissingParent, Position, Rejected, Side, Unchanged, Write
from dualwrite.schema import Column, ColumnType, Lookup, Reference, Schema, Table, TypeName, View

TEXT = ColumnType(TypeName.TEXT)
ID = Column("id", ColumnType(TypeName.INTEGER), nullable=False, has_default=True)
GUID = Column("id", ColumnType(TypeName.UUID), nullable=False, has_default=True)

AREA = Table("area", (Column("code", TEXT), Column("title", TEXT)), ("code",))
TOWN = Table(
    "town",
    (ID, Column("name", TEXT, ignore_case=True, ignore_trailing_blanks=True), Column("area", TEXT)),
    ("id",),
    (("name",),),
    (Reference("area", ("area",), "area", ("code",)),),
)
HOUSE = Table(
    "house",
    (GUID, Column("number", TEXT), Column("town", ColumnType(TypeName.INTEGER))),
    ("id",),
    (),
    (Reference("town", ("town",), "town", ("id",)),),
)
LEGACY = Table("legacy", (Column("code", TEXT), Column("area", TEXT, empty_is_null=True)), ("code",))
SCHEMA = Schema({table.name: table for table in (AREA, TOWN, HOUSE, LEGACY)})

AREAS = View("areas", "area", (("code",), ("title",)), (0,), written=(0, 1))
TOWNS = View(
    "towns",
    "town",
    (("name",), ("area", "code"), ("area", "title")),
    (0,),
    (Lookup("area", ((("code",), 1),), (1,)),),
    written=(0, 1),
)
HOUSES = View(
    "houses",
    "house",
    (("town", "area", "code"), ("town", "name"), ("number",)),
    (1, 2),
    (Lookup("town", ((("name",), 1),), (1,)),),
    written=(1, 2),
)
VIEWS = [AREAS, TOWNS, HOUSES]
PEER = Position("peer", (1,))


def build(actions=None) -> tuple[MemoryDatabase, MemoryConnector]:
    """A database with a town in an area, and a link that captures everything from then on."""
    database = MemoryDatabase(SCHEMA, "atlas", actions)
    with database.user() as user:
        user.insert("area", {"code": "N", "title": "North"})
        town = user.insert("town", {"name": "Kiel", "area": "N"})
        user.insert("house", {"number": "1", "town": town["id"]})
    connector = MemoryConnector(database)
    connector.install(VIEWS)
    return database, connector


def told(connector: MemoryConnector, after: Position | None = None) -> list[tuple]:
    """View, kind, before and after of what the feed holds."""
    feed = connector.feed(VIEWS, after)
    return [(c.view, c.kind, c.before, c.after) for c in feed.read(1000, 0).changes]


def rows(connector: MemoryConnector, view: View) -> list[tuple]:
    """All rows of a view."""
    with connector.snapshot(view) as snapshot:
        return [row for block in snapshot.blocks() for row in block]


def write(connector: MemoryConnector, view: View, *writes: Write):
    """One transaction of the link."""
    with connector.transaction("flow") as transaction:
        outcomes = transaction.write(view, writes)
        transaction.commit(PEER)
    return outcomes


def test_users_work_in_transactions():
    """What a user does is visible to others at once when it commits, and not before."""
    database, connector = build()
    with database.user() as user:
        user.insert("area", {"code": "S"})
        assert user.rows("area", {"code": "S"}) == [{"code": "S", "title": None}]
        assert connector.fetch(AREAS, [("S",)]) == {}
        assert user.update("area", {}, {"title": "?"}) == 2
        assert user.delete("area", {"code": "N"}) == 1
    assert rows(connector, AREAS) == [("S", "?")]


@pytest.mark.parametrize(
    ("code", "statement"),
    [
        ("unique", lambda user: user.insert("area", {"code": "N"})),
        ("unique", lambda user: user.insert("town", {"name": "KIEL  "})),
        ("unique", lambda user: user.update("area", {"code": "S"}, {"code": "N"})),
        ("required", lambda user: user.insert("tight", {"short": None})),
        ("required", lambda user: user.update("tight", {}, {"short": None})),
        ("value", lambda user: user.insert("tight", {"short": "four"})),
        ("reference", lambda user: user.insert("town", {"name": "Nowhere", "area": "X"})),
        ("reference", lambda user: user.delete("area", {"code": "N"})),
        ("reference", lambda user: user.update("area", {"code": "N"}, {"code": "X"})),
    ],
)
def test_a_refused_statement_undoes_the_users_transaction(code, statement):
    """Each constraint refuses with its own code, and nothing of the transaction stays."""
    tight = Table("tight", (Column("short", ColumnType(TypeName.TEXT, length=3), nullable=False),))
    database = MemoryDatabase(Schema({**SCHEMA.tables, "tight": tight}), "atlas", {("town", "area"): "restrict"})
    with database.user() as user:
        for area in ("N", "S"):
            user.insert("area", {"code": area})
        user.insert("town", {"name": "Kiel", "area": "N"})
        user.insert("tight", {"short": "abc"})
    before = database.tables

    def transact():
        with database.user() as user:
            user.update("area", {"code": "S"}, {"title": "lost"})
            statement(user)

    with pytest.raises(Refused) as refusal:
        transact()
    assert refusal.value.code == code
    assert refusal.value.reason
    assert database.tables is before


def test_a_user_may_go_on_after_a_refusal():
    """A refused statement undoes itself alone where the user catches it."""
    database, connector = build({("house", "town"): "restrict"})
    with database.user() as user:
        user.insert("area", {"code": "S"})
        with pytest.raises(Refused):
            user.insert("area", {"code": "N"})
    assert [row[0] for row in rows(connector, AREAS)] == ["N", "S"]


def test_several_nulls_are_not_the_same_unique_value():
    """A unique set of columns with a null in it is never taken."""
    database, _ = build()
    with database.user() as user:
        user.insert("town", {"name": None})
        user.insert("town", {"name": None})


def test_an_unknown_column_is_a_mistake():
    """A test that misspells a column is told so."""
    database, _ = build()
    with pytest.raises(ValueError, match="no column cod"), database.user() as user:
        user.insert("area", {"cod": "S"})


def test_generated_keys_differ_between_databases():
    """Ids are generated in the type of their column, the same ones in each run, others in another database."""
    ids = {}
    for name in ("left", "right", "left"):
        database = MemoryDatabase(SCHEMA, name)
        with database.user() as user:
            made = [user.insert("town", {"name": str(n)})["id"] for n in range(2)] + [user.insert("house", {})["id"]]
        assert ids.setdefault(name, made) == made
    assert set(ids["left"]).isdisjoint(ids["right"])
    assert int(ids["left"][1] or "") == int(ids["left"][0] or "") + 1
    assert len(ids["left"][2] or "") == 36


@pytest.mark.parametrize(
    ("action", "towns"), [("cascade", []), ("set null", [("Kiel", None, None)]), (None, [("Kiel", ABSENT, ABSENT)])]
)
def test_deleting_what_others_refer_to(action, towns):
    """A reference's action decides about the children; without one the reference dangles."""
    database, connector = build({("town", "area"): action, ("house", "town"): "cascade"} if action else None)
    with database.user() as user:
        user.delete("area", {"code": "N"})
    assert rows(connector, TOWNS) == towns
    assert len(rows(connector, HOUSES)) == len(towns)


def test_what_cascades_is_told_in_full():
    """The feed tells a cascade's deletes behind their cause, with the rows as they were."""
    database, connector = build({("town", "area"): "cascade", ("house", "town"): "cascade"})
    with database.user() as user:
        user.delete("area", {"code": "N"})
    assert told(connector) == [
        ("areas", Kind.DELETE, ("N", "North"), None),
        ("towns", Kind.DELETE, ("Kiel", "N", "North"), None),
        ("houses", Kind.DELETE, ("N", "Kiel", "1"), None),
    ]


def test_a_cascading_rename_is_told_once_per_record():
    """A natural key that cascades gives one change per child, from the old key to the new one."""
    database, connector = build({("town", "area"): "cascade"})
    with database.user() as user:
        user.update("area", {"code": "N"}, {"code": "M"})
    assert told(connector) == [
        ("areas", Kind.UPDATE, ("N", "North"), ("M", "North")),
        ("towns", Kind.UPDATE, ("Kiel", "N", "North"), ("Kiel", "M", "North")),
        ("houses", Kind.UPDATE, ("N", "Kiel", "1"), ("M", "Kiel", "1")),
    ]


def test_a_change_far_up_reaches_who_looks_that_far():
    """Records that follow two references see a change at either."""
    database, connector = build()
    with database.user() as user:
        user.update("town", {"name": "Kiel"}, {"name": "Kil"})
    assert told(connector) == [
        ("towns", Kind.UPDATE, ("Kiel", "N", "North"), ("Kil", "N", "North")),
        ("houses", Kind.UPDATE, ("N", "Kiel", "1"), ("N", "Kil", "1")),
    ]
    start = connector.end()
    with database.user() as user:
        user.insert("area", {"code": "S", "title": "South"})
        user.update("town", {"name": "Kil"}, {"area": "S"})
    assert told(connector, start)[1:] == [
        ("towns", Kind.UPDATE, ("Kil", "N", "North"), ("Kil", "S", "South")),
        ("houses", Kind.UPDATE, ("N", "Kil", "1"), ("S", "Kil", "1")),
    ]


@pytest.mark.parametrize("own", [False, True])
def test_a_parent_that_arrives_later_completes_its_children(own):
    """A dangling lookup is told when its record comes, from a user or from the other side."""
    database, connector = build()
    with database.user() as user:
        user.insert("town", {"name": "Bonn", "area": "W"})
    assert told(connector) == [("towns", Kind.INSERT, None, ("Bonn", ABSENT, ABSENT))]
    start = connector.end()
    if own:
        write(connector, AREAS, Write(("W",), None, ("W", "West")))
    else:
        with database.user() as user:
            user.insert("area", {"code": "W", "title": "West"})
    found = [change for change in told(connector, start) if change[0] == "towns"]
    assert found == [("towns", Kind.UPDATE, ("Bonn", ABSENT, ABSENT), ("Bonn", "W", "West"))]


def test_a_record_whose_key_becomes_known_is_told_as_new():
    """Where a dangling lookup was part of the key, completing it makes the record appear."""
    database, connector = build()
    with database.user() as user:
        user.insert("house", {"number": "2", "town": "77"})
        user.insert("town", {"id": "77", "name": "Bonn"})
    changes = connector.feed(VIEWS, None).read(10, 0).changes
    assert [(c.view, c.kind, c.key) for c in changes] == [
        ("houses", Kind.INSERT, (None, "2")),
        ("towns", Kind.INSERT, ("Bonn",)),
        ("houses", Kind.INSERT, ("Bonn", "2")),
    ]


def test_our_rename_of_a_parent_changes_its_children():
    """Children that show a key which we changed look different by it, and are told; so is what a trigger did."""
    database, connector = build()
    write(connector, TOWNS, Write(("Kiel",), ("Kiel", "N", ABSENT), ("Kil", ABSENT, ABSENT)))
    assert rows(connector, HOUSES) == [("N", "Kil", "1")]
    assert told(connector) == [("houses", Kind.UPDATE, ("N", "Kiel", "1"), ("N", "Kil", "1"))]
    start = connector.end()
    database.trigger("town", lambda user, _k, _o, new: new and user.update("house", {}, {"number": "2"}))
    write(connector, TOWNS, Write(("Kil",), ("Kil", "N", ABSENT), ("Ki", ABSENT, ABSENT)))
    assert told(connector, start) == [("houses", Kind.UPDATE, ("N", "Kil", "1"), ("N", "Ki", "2"))]


def test_only_the_net_effect_of_triggers_is_told():
    """What we overwrite in the same transaction is not told, nor what a trigger takes back itself."""
    database, connector = build()

    def annotate(user, _kind, _old, new):
        if new and new["title"] is None:
            user.update("area", {"code": new["code"]}, {"title": "?"})

    database.trigger("area", annotate)
    with connector.transaction("flow") as transaction:
        assert transaction.write(AREAS, [Write(("S",), None, ("S", ABSENT))]) == [Applied()]
        assert transaction.write(AREAS, [Write(("S",), ("S", "?"), ("S", "South"))]) == [Applied()]
        assert transaction.write(AREAS, [Write(("W",), None, ("W", ABSENT))]) == [Applied()]
        assert transaction.write(AREAS, [Write(("W",), ("W", "?"), ("W", "?"))]) == [Unchanged()]
        assert transaction.write(AREAS, [Write(("E",), None, ("E", ABSENT))]) == [Applied()]
        transaction.commit(PEER)
    assert told(connector) == [("areas", Kind.UPDATE, ("E", None), ("E", "?"))]


def test_a_trigger_may_delete_or_add_records():
    """Records that a trigger removes or creates in our transaction are told as such."""
    database, connector = build()
    database.trigger(
        "area", lambda user, kind, _o, new: kind is Kind.INSERT and user.insert("town", {"name": new["code"]})
    )
    database.trigger("area", lambda user, kind, _o, _n: kind is Kind.INSERT and user.delete("area", {"code": "X"}))
    write(connector, AREAS, Write(("S",), None, ("S", None)), Write(("X",), None, ("X", None)))
    assert told(connector) == [
        ("towns", Kind.INSERT, None, ("S", None, None)),
        ("towns", Kind.INSERT, None, ("X", None, None)),
        ("areas", Kind.DELETE, ("X", None), None),
    ]


def test_a_refused_row_takes_its_triggers_work_with_it():
    """When a trigger refuses our row, or its own work is refused, nothing of either stays or is told."""
    database, connector = build()

    def clone(user, kind, _old, new):
        if kind is Kind.INSERT and new["name"] != "Bonn":
            user.update("area", {"code": "N"}, {"title": new["name"]})
            user.insert("town", {"name": "Bonn"})

    database.trigger("town", clone)
    outcomes = write(
        connector,
        TOWNS,
        *(Write((name,), None, (name, "N", ABSENT)) for name in ("Bonn", "Ulm")),
    )
    assert outcomes[0] == Applied()
    assert isinstance(outcomes[1], Rejected)
    assert outcomes[1].code == "unique"
    assert told(connector) == []
    assert rows(connector, AREAS) == [("N", "North")]


def test_a_generated_value_that_a_view_shows_is_told():
    """A view that carries the generated id gets it as a change behind our insert."""
    _, connector = build()
    numbered = View("numbered", "town", (("name",), ("id",)), (0,), written=(0,))
    connector.install([numbered])
    write(connector, numbered, Write(("Bonn",), None, ("Bonn", ABSENT)))
    (change,) = connector.feed([numbered], None).read(10, 0).changes
    assert (change.kind, change.before, change.seen, change.mark) == (Kind.UPDATE, ("Bonn", None), PEER, 1)
    assert change.after == rows(connector, numbered)[1]
    assert change.after is not None
    assert change.after[1] is not None


def test_keys_and_uniques_compare_as_the_column_says():
    """Letter case and trailing blanks count in values, not in keys; a new spelling is written."""
    _, connector = build()
    assert connector.fetch(TOWNS, [("KIEL ",)]) == {("KIEL ",): [("Kiel", "N", "North")]}
    outcomes = write(connector, TOWNS, Write(("kiel",), ("KIEL", "N", ABSENT), ("KIEL", ABSENT, ABSENT)))
    assert outcomes == [Applied()]
    assert rows(connector, TOWNS) == [("KIEL", "N", "North")]
    (outcome,) = write(connector, TOWNS, Write(("Ulm",), None, ("kiel", None, ABSENT)))
    assert isinstance(outcome, Rejected)


def test_empty_is_null_where_the_column_says_so():
    """Such a column gets the empty text for null, and null is expected to be it."""
    _, connector = build()
    view = View("legacies", "legacy", (("code",), ("area",)), (0,), written=(0, 1))
    assert write(connector, view, Write(("a",), None, ("a", None))) == [Applied()]
    assert rows(connector, view) == [("a", "")]
    assert write(connector, view, Write(("a",), ("a", None), ("a", None))) == [Unchanged()]
    assert write(connector, view, Write(("a",), ("a", None), ("a", "x"))) == [Applied()]


def test_a_dangling_reference_is_written_over():
    """A lookup that leads nowhere counts as unknown when expected, and is set to what is wanted."""
    database, connector = build()
    with database.user() as user:
        user.update("town", {"name": "Kiel"}, {"area": "gone"})
    wanted = Write(("Kiel",), ("Kiel", "N", ABSENT), ("Kiel", "N", ABSENT))
    assert write(connector, TOWNS, wanted) == [Applied()]
    assert rows(connector, TOWNS) == [("Kiel", "N", "North")]
    lost = Write(("Kiel",), ("Kiel", "N", ABSENT), ("Kiel", "X", ABSENT))
    assert write(connector, TOWNS, lost) == [MissingParent("area", "area", ("X",))]


def test_read_only_columns_are_not_written():
    """A value for a column that cannot be written is refused, unless it is there already."""
    table = Table("t", (Column("code", TEXT), Column("total", TEXT, read_only=True)), ("code",))
    database = MemoryDatabase(Schema({"t": table}), "totals")
    connector = MemoryConnector(database)
    view = View("v", "t", (("code",), ("total",)), (0,), written=(0, 1))
    connector.install([view])
    with database.user() as user:
        user.insert("t", {"code": "a", "total": "1"})
    assert write(connector, view, Write(("a",), ("a", "1"), ("a", "1"))) == [Unchanged()]
    (outcome,) = write(connector, view, Write(("a",), ("a", "1"), ("a", "2")))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "readonly"
    assert write(connector, view, Write(("a",), ("a", "1"), ("b", "1"))) == [Applied()]
    assert rows(connector, view) == [("b", "1")]


def test_a_change_that_a_view_does_not_show_is_not_told():
    """A column outside of the view's paths reaches only the views that hold it."""
    database, connector = build()
    codes = View("codes", "area", (("code",),), (0,))
    connector.install([*VIEWS, codes])
    with database.user() as user:
        user.update("area", {}, {"title": "north"})
    assert connector.feed([codes], None).read(10, 0).changes == ()
    assert [change[0] for change in told(connector)] == ["areas", "towns"]


def test_two_records_cannot_get_one_natural_key():
    """A key that no unique index guards is guarded all the same."""
    _, connector = build()
    view = View("titles", "area", (("code",), ("title",)), (1,), written=(0, 1))
    (outcome,) = write(connector, view, Write(("South",), None, ("S", "North")))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "unique"
    assert rows(connector, view) == [("N", "North")]


def test_commit_times_come_from_the_databases_clock():
    """Tests set the clock, or the time of one transaction."""
    database, connector = build()
    database.now = lambda: 100.0
    with database.user() as user:
        user.insert("area", {"code": "S"})
    with database.user(at=7.0) as user:
        user.insert("area", {"code": "W"})
    assert connector.clock() == 100.0
    assert [change.at for change in connector.feed(VIEWS, None).read(10, 0).changes] == [100.0, 7.0]


def test_large_transactions_come_in_parts():
    """A part ends inside the transaction, and reading goes on there, for each limit."""
    database, connector = build()
    with database.user() as user:
        for number in range(5):
            user.insert("area", {"code": str(number)})
    feed = connector.feed(VIEWS, None)
    batches = [feed.read(2, 0) for _ in range(4)]
    assert [batch.position.place for batch in batches] == [(0, 2), (0, 4), (1,), (1,)]
    assert [len(batch.changes) for batch in batches] == [2, 2, 1, 0]
    assert [c.key for c in connector.feed(VIEWS, batches[0].position).read(9, 0).changes] == [("2",), ("3",), ("4",)]
    connector.acknowledge(batches[0].position)
    assert len(connector.feed(VIEWS, batches[0].position).read(9, 0).changes) == 3


def test_a_restored_backup_has_lost_later_positions():
    """After restoring, rows, log and positions are the old ones, and positions from beyond are refused."""
    database, connector = build()
    with database.user() as user:
        user.insert("area", {"code": "S"})
    write(connector, AREAS)
    backup, then = database.copy(), connector.end()
    with database.user() as user:
        user.insert("area", {"code": "W"})
    write(connector, AREAS, Write(("E",), None, ("E", None)))
    late = connector.end()
    feed = connector.feed(VIEWS, late)
    for _ in range(2):
        database.restore(backup)
        assert [row[0] for row in rows(connector, AREAS)] == ["N", "S"]
        assert connector.positions() == {"flow": (PEER, 1)}
        assert connector.end() == then < late
        with pytest.raises(PositionLost):
            connector.feed(VIEWS, late)
        with pytest.raises(PositionLost):
            feed.read(1, 0)
        with pytest.raises(PositionLost):
            connector.acknowledge(late)
        with database.user() as user:
            user.insert("area", {"code": "again"})


def test_without_capture_there_is_no_place():
    """Before installing, positions are null places and nothing can be read or written by the link."""
    connector = MemoryConnector(MemoryDatabase(SCHEMA, "bare"))
    assert connector.end() == Position("", ())
    with connector.snapshot(AREAS) as snapshot:
        assert snapshot.boundary == Position("", ())
    assert (connector.positions(), list(connector.remembered("kind"))) == ({}, [])
    for attempt in (lambda: connector.feed(VIEWS, None), lambda: connector.transaction("flow")):
        with pytest.raises(Usage, match="not installed"):
            attempt()


def test_one_thread_cannot_wait_for_itself():
    """A second transaction in the same thread is an error, not a standstill; another thread's waits."""
    database, connector = build()
    other = Thread(target=lambda: write(connector, AREAS, Write(("S",), None, ("S", None))))
    with database.user() as user:
        other.start()
        with pytest.raises(RuntimeError, match="already"):
            connector.transaction("flow")
        assert len(user.rows("area")) == 1
    other.join()
    assert len(rows(connector, AREAS)) == 2


def test_an_ended_transaction_is_of_no_use():
    """After the commit nothing more can be done, and leaving the block is harmless."""
    _, connector = build()
    with connector.transaction("flow") as transaction:
        transaction.commit(PEER)
        with pytest.raises(RuntimeError, match="ended"):
            transaction.write(AREAS, [])
    assert connector.positions() == {"flow": (PEER, 1)}


def test_an_offline_database_is_unavailable():
    """Whatever is asked of it, and nothing is lost when it comes back."""
    database, connector = build()
    feed = connector.feed(VIEWS, None)
    transaction = connector.transaction("flow")
    database.offline = True
    for attempt in (
        connector.schema,
        connector.end,
        lambda: feed.read(1, 0),
        lambda: transaction.commit(None),
        lambda: connector.fetch(AREAS, [("N",)]),
    ):
        with pytest.raises(Unavailable):
            attempt()
    database.offline = False
    transaction.commit(PEER)
    assert connector.positions() == {"flow": (PEER, 1)}


def test_a_url_finds_a_registered_database():
    """``memory://NAME`` opens what was registered, completed by what was declared; other names are an error."""
    database, _ = build()
    register(database)
    declared = Declared({"area": DeclaredTable("area", key=(("title",),))})
    connector = open_memory("memory://atlas", link="link", side=Side.LEFT, declared=declared)
    assert connector.identity() == "memory:atlas"
    assert connector.schema().tables["area"].key == (("title",),)
    with pytest.raises(Usage, match="left: there is no memory database 'other'"):
        open_memory("memory://other", link="link", side=Side.LEFT)
