"""Lookups that lead far, to one of several tables, or to tables of which no map tells: from check to live edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase, MemoryTransaction
from dualwrite.connectors.polymorphic import Polymorphic
from dualwrite.declared import complete, read_declared
from dualwrite.engine import parents
from dualwrite.engine.plan import Planner
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.errors import Invalid
from dualwrite.journal import Journal
from dualwrite.mapping.check import check_map
from dualwrite.mapping.compile import compile_map, order_maps
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.writing import write_map
from dualwrite.model import Key, Row, Side, Value
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName, View

L, R = Side.LEFT, Side.RIGHT


def table(name: str, key: Sequence[str], *texts: str, ids: Sequence[str] = ()) -> Table:
    """A table of texts with a unique key; with ``ids`` it has an id of its own besides, and these columns hold ids."""
    number = ColumnType(TypeName.INTEGER, bits=64)
    columns = [Column(each, ColumnType(TypeName.TEXT)) for each in (*key, *texts)]
    columns += [Column(each, number) for each in ids]
    generated = Column("id", number, nullable=False, has_default=True)
    return Table(name, (generated, *columns), ("id",), (("id",), tuple(key)))


LEFT_SCHEMA = Schema(
    {
        each.name: each
        for each in (
            table("Accounts", ["AREA", "NUMBER"], "NAME"),
            table("Orders", ["AREA", "ORDER"], "CUSTOMER", "BILLED", "SHELF", "STORE", "NOTE"),
        )
    }
)
RIGHT_SCHEMA = Schema(
    {
        each.name: each
        for each in (
            table("companies", ["code"]),
            table("accounts", ["number", "company"], "name", ids=["company"]),
            table("contacts", ["code", "company"], ids=["company"]),
            table("stores", ["code"]),
            table("shelves", ["name", "store"], ids=["store"]),
            table(
                "orders",
                ["number", "company"],
                "customertype",
                "note",
                ids=["company", "customer", "billed_account", "billed_contact", "shelf"],
            ),
        )
    }
)
DECLARED = """
tables:
  accounts:
    company: company.code
    references: {company: {table: companies, columns: [company], to: [id]}}
  contacts:
    company: company.code
    references: {company: {table: companies, columns: [company], to: [id]}}
  shelves:
    references: {store: {table: stores, columns: [store], to: [id]}}
  orders:
    company: company.code
    references:
      company: {table: companies, columns: [company], to: [id]}
      shelf: {table: shelves, columns: [shelf], to: [id]}
      customer:
        columns: [customer]
        type: customertype
        targets:
          account: {table: accounts, to: [id]}
          contact: {table: contacts, to: [id], value: person}
      billed:
        targets:
          account: {table: accounts, columns: [billed_account], to: [id]}
          contact: {table: contacts, columns: [billed_contact], to: [id]}
"""
ACCOUNTS = """
map: Accounts
left: Accounts
right: accounts
company: AREA = company.code
columns:
  - NUMBER = number
  - NAME = name
"""
ORDERS = """
map: Orders
left: Orders
right: orders
company: AREA = company.code
columns:
  - ORDER = number
  - CUSTOMER = customer.Account(number).Contact(code)
  - BILLED = billed.account(number).contact(code)
  - SHELF = shelf.name
  - STORE = shelf.store.code
  - NOTE = note
"""


class World:
    """Two systems with orders, and an engine between them."""

    def __init__(self, *maps: str, right: Schema | None = None) -> None:
        """Empty but for the companies, contacts and shelves, of which no map tells."""
        schema, problems = complete(right or RIGHT_SCHEMA, read_declared(DECLARED, "schema/right.yaml"))
        assert problems == []
        self.schemas = {L: LEFT_SCHEMA, R: schema}
        self.databases = {L: MemoryDatabase(LEFT_SCHEMA, "left"), R: MemoryDatabase(schema, "right")}
        self.connectors = {side: Polymorphic(MemoryConnector(database)) for side, database in self.databases.items()}
        self.maps = order_maps(
            [compile_map(read_map(each, "map.yaml"), LEFT_SCHEMA, schema) for each in maps or (ORDERS, ACCOUNTS)]
        )
        self.journal = Journal.open("sqlite://")
        self.engine = Engine("link", self.connectors, self.maps, self.journal)
        self.ids = {name: self.right("companies", code=name) for name in ("usmf", "demf")}
        self.ids["store"] = self.right("stores", code="S")
        self.ids["shelf"] = self.right("shelves", name="top", store=self.ids["store"])
        self.ids["contact"] = self.right("contacts", code="C1", company=self.ids["usmf"])
        self.right("contacts", code="C2", company=self.ids["demf"])

    def start(self) -> World:
        """Make both sides agree, then carry."""
        self.engine.open()
        for compiled in self.maps:
            self.journal.set_state(compiled.name, desired="running", master="left")
        self.engine.reconcile()
        self.engine.drain()
        return self

    def left(self, name: str, /, **values: Value) -> None:
        """A user of the left side adds a record of the company ``usmf``."""
        with self.databases[L].user() as user:
            user.insert(name, {"AREA": "usmf", **values})

    def right(self, name: str, /, **values: Value) -> str:
        """A user of the right side adds a record; returns its id."""
        with self.databases[R].user() as user:
            found = user.insert(name, values)["id"]
        assert found is not None
        return found

    def edit(self, side: Side, name: str, match: Mapping[str, Value], **values: Value) -> None:
        """A user changes one record, and all is carried."""
        with self.databases[side].user() as user:
            assert user.update(name, match, values) == 1
        self.engine.drain()

    def orders(self, *columns: str) -> list[tuple[Value, ...]]:
        """The left side's orders."""
        with self.databases[L].user() as user:
            return sorted((tuple(row[name] for name in columns) for row in user.rows("Orders")), key=str)

    def accounts(self) -> list[Mapping[str, Value]]:
        """The right side's accounts."""
        with self.databases[R].user() as user:
            return list(user.rows("accounts"))

    def order(self, number: str) -> Mapping[str, Value]:
        """One of the right side's orders."""
        with self.databases[R].user() as user:
            return user.rows("orders", {"number": number})[0]

    def at_rest(self) -> None:
        """Nothing is parked, and both sides agree in every record."""
        assert [entry.reason for entry in self.journal.parked({})] == []
        for compiled in self.maps:
            found = verify(compiled, self.connectors)
            assert found.clean, (compiled.name, found)


def test_orders_of_accounts_and_contacts_come_together() -> None:
    """An initial sync carries polymorphic lookups and such of several hops, both ways, whatever holds them."""
    world = World()
    world.left("Accounts", NUMBER="A1", NAME="one")
    world.left("Orders", ORDER="1", CUSTOMER="A1", BILLED="C1", SHELF="top", STORE="S")
    world.left("Orders", ORDER="2", CUSTOMER="C1", BILLED="A1")
    world.left("Orders", ORDER="3")
    account = world.right("accounts", number="A2", company=world.ids["usmf"])
    world.right("orders", number="4", company=world.ids["usmf"], customer=account, customertype="account")
    world.right(
        "orders", number="5", company=world.ids["usmf"], billed_contact=world.ids["contact"], shelf=world.ids["shelf"]
    )
    world.start()
    assert world.orders("ORDER", "CUSTOMER", "BILLED", "SHELF", "STORE") == [
        ("1", "A1", "C1", "top", "S"),
        ("2", "C1", "A1", None, None),
        ("3", None, None, None, None),
        ("4", "A2", None, None, None),
        ("5", None, "C1", "top", "S"),
    ]
    assert world.order("1")["customertype"] == "account"
    assert (world.order("2")["customer"], world.order("2")["customertype"]) == (world.ids["contact"], "person")
    assert world.order("1")["shelf"] == world.ids["shelf"]
    world.at_rest()


def test_live_edits_lead_from_table_to_table() -> None:
    """An order that gets another kind of customer on either side shows it on the other one."""
    world = World()
    world.left("Accounts", NUMBER="A1")
    world.left("Orders", ORDER="1", CUSTOMER="A1", BILLED="A1")
    world.start()
    world.edit(L, "Orders", {"ORDER": "1"}, CUSTOMER="C1", BILLED="C1")
    order = world.order("1")
    assert (order["customer"], order["customertype"]) == (world.ids["contact"], "person")
    assert (order["billed_account"], order["billed_contact"]) == (None, world.ids["contact"])
    world.edit(R, "orders", {"number": "1"}, customer=None, customertype=None, note="none")
    assert world.orders("CUSTOMER", "BILLED", "NOTE") == [(None, "C1", "none")]
    world.edit(L, "Orders", {"ORDER": "1"}, CUSTOMER="A1", BILLED=None, SHELF="top", STORE="S")
    assert world.order("1")["customertype"] == "account"
    assert world.order("1")["billed_contact"] is None
    assert world.order("1")["shelf"] == world.ids["shelf"]
    world.edit(R, "contacts", {"code": "C1"}, code="C9")
    world.edit(R, "orders", {"number": "1"}, customer=world.ids["contact"], customertype="person")
    assert world.orders("CUSTOMER") == [("C9",)]
    world.at_rest()


def test_parts_of_a_lookup_may_go_in_different_directions() -> None:
    """A part that is carried one way helps to find the record; what the other side chooses by itself stays."""
    world = World(ORDERS.replace("STORE =", "STORE >"), ACCOUNTS)
    other = world.right("shelves", name="top", store=world.right("stores", code="T"))
    low = world.right("shelves", name="low", store=world.ids["store"])
    world.left("Orders", ORDER="1", SHELF="top", STORE="S")
    world.right("orders", number="2", company=world.ids["usmf"], shelf=other)
    world.start()
    assert world.order("1")["shelf"] == world.ids["shelf"]
    assert world.orders("ORDER", "SHELF", "STORE") == [("1", "top", "S"), ("2", "top", None)]
    assert world.order("2")["shelf"] == other
    world.at_rest()
    world.edit(L, "Orders", {"ORDER": "1"}, SHELF="low")
    assert world.order("1")["shelf"] == low
    world.edit(R, "orders", {"number": "1"}, shelf=other)
    assert world.orders("ORDER", "SHELF")[0] == ("1", "top")
    assert world.order("1")["shelf"] == other
    world.edit(L, "Orders", {"ORDER": "1"}, STORE="T", NOTE="new")
    world.edit(L, "Orders", {"ORDER": "1"}, STORE="S")
    assert world.order("1")["shelf"] == world.ids["shelf"]
    world.edit(R, "orders", {"number": "1"}, shelf=None)
    assert world.orders("ORDER", "SHELF")[0] == ("1", None)
    world.at_rest()


def test_a_polymorphic_lookup_conflicts_as_a_whole() -> None:
    """Where both sides give an order another customer at once, both end with the same one."""
    world = World()
    world.left("Accounts", NUMBER="A1")
    world.left("Orders", ORDER="1")
    world.start()
    with world.databases[L].user() as user:
        user.update("Orders", {"ORDER": "1"}, {"CUSTOMER": "A1"})
    world.edit(R, "orders", {"number": "1"}, customer=world.ids["contact"], customertype="person")
    assert world.orders("CUSTOMER") == [("C1",)]
    assert world.order("1")["customertype"] == "person"
    assert len(world.journal.conflicts({})) == 1
    world.at_rest()


@pytest.mark.parametrize("where", ["left", "accounts", "contacts"])
def test_a_parent_of_either_table_lets_the_record_go(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order waits for its customer, and goes through when it comes: by its map, or into a table without one."""
    monkeypatch.setattr(parents, "LOOK_INTERVAL", 0.0)
    world = World().start()
    world.left("Orders", ORDER="1", CUSTOMER="X")
    world.engine.drain()
    (entry,) = world.journal.parked({})
    assert (entry.code, entry.waits_table) == ("missing_parent", "accounts or contacts")
    if where == "left":
        world.left("Accounts", NUMBER="X")
    else:
        world.right(where, company=world.ids["usmf"], **{"number" if where == "accounts" else "code": "X"})
    world.engine.drain()
    assert world.order("1")["customertype"] == ("person" if where == "contacts" else "account")
    world.at_rest()


def test_a_parent_that_no_map_tells_of_lets_the_record_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose lookup leads to a table without a map goes through when somebody adds its parent there."""
    monkeypatch.setattr(parents, "LOOK_INTERVAL", 0.0)
    world = World().start()
    world.left("Orders", ORDER="1", SHELF="low", STORE="S")
    world.engine.drain()
    assert [entry.waits_table for entry in world.journal.parked({})] == ["shelves"]
    world.right("shelves", name="low", store=world.ids["store"])
    world.engine.drain()
    world.at_rest()


def test_a_customer_of_two_tables_is_parked() -> None:
    """A key that an account and a contact hold leads to neither."""
    world = World()
    world.left("Accounts", NUMBER="C1")
    world.left("Orders", ORDER="1", CUSTOMER="C1")
    world.start()
    (entry,) = world.journal.parked({})
    assert (entry.code, entry.reason) == ("ambiguous", "2 records of accounts and contacts hold the key C1")


def test_the_plan_names_missing_parents() -> None:
    """Before anything is written: which parents are not there, how many records need each, and examples."""
    world = World()
    for number in range(5):
        world.left("Orders", ORDER=str(number), CUSTOMER="X" if number else "C1", SHELF="low" if number > 3 else None)
    world.left("Accounts", NUMBER="A1")
    world.left("Orders", ORDER="5", CUSTOMER="A1")
    plans = Planner(world.connectors, world.schemas).plan(world.maps, dict.fromkeys(("Accounts", "Orders"), L))
    missing = {(each.table, each.key): each for plan in plans for each in plan.missing()}
    assert set(missing) == {("accounts or contacts", ("X", "usmf")), ("shelves", ("low", None))}
    needed = missing["accounts or contacts", ("X", "usmf")]
    assert (needed.side, needed.records, len(needed.examples)) == (R, 4, 3)
    waiting = [row for plan in plans for row in plan.rows() if row.code == "missing_parent"]
    assert len(waiting) == 4


def test_look_ups_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many orders a batch holds, each of the tables is asked once for their customers."""
    world = World()
    asked: list[str] = []
    for number in range(300):
        world.left("Orders", ORDER=str(number), CUSTOMER="C1")
    world.start()
    for number in range(200):
        with world.databases[L].user() as user:
            user.update("Orders", {"ORDER": str(number)}, {"CUSTOMER": None})
    fetch = MemoryTransaction.fetch

    def counted(transaction: MemoryTransaction, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        asked.append(view.table)
        return fetch(transaction, view, keys)

    monkeypatch.setattr(MemoryTransaction, "fetch", counted)
    world.engine.flows[L].pace.limit = 10_000
    world.engine.drain()
    for number in range(200):
        with world.databases[L].user() as user:
            user.update("Orders", {"ORDER": str(number)}, {"CUSTOMER": "C1"})
    asked.clear()
    world.engine.flows[L].turn(0)
    assert asked.count("accounts") == asked.count("contacts") == 1
    world.engine.drain()
    world.at_rest()


def test_the_notation_of_polymorphic_paths_is_kept() -> None:
    """A map with such paths reads, and is written as it was read."""
    found = read_map(ORDERS, "map.yaml")
    assert found.columns[1].right == ("customer", "Account(number).Contact(code)")
    written = write_map(found)
    assert "CUSTOMER = customer.Account(number).Contact(code)" in " ".join(written.split())
    again = read_map(written, "map.yaml")
    assert [mapping.right for mapping in again.columns] == [mapping.right for mapping in found.columns]


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("customer.Account(number).Lead(code)", "unknown_lookup", "has no target 'Lead'"),
        ("customer.Account(numbr).Contact(code)", "unknown_column", "accounts has no column 'numbr'"),
        ("customer.number", "unknown_lookup", "may lead to several tables"),
        ("shelf.Account(number)", "unknown_column", "shelves has no column"),
        ("customer.Account(name).Contact(code)", "lookup_key_unmapped", "accounts"),
    ],
)
def test_wrong_polymorphic_paths_are_told(path: str, code: str, said: str) -> None:
    """Every name of such a path is looked up, and in each of its tables a key must be whole."""
    schema = complete(RIGHT_SCHEMA, read_declared(DECLARED, "schema/right.yaml"))[0]
    text = ORDERS.replace("customer.Account(number).Contact(code)", path)
    found = [each for each in check_map(read_map(text, "map.yaml"), LEFT_SCHEMA, schema) if each.level == "error"]
    assert [each.code for each in found] == [code]
    assert said in found[0].message
    assert found[0].remedy


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("customer: {columns: [customer], targets: {account: {table: accounts, to: [id]}}}", "columns: and type:"),
        ("customer: {targets: {account: {table: accounts, to: [id]}}}", "needs columns:"),
        ("customer: {targets: {}}", "has no targets"),
    ],
)
def test_wrong_declarations_of_polymorphic_lookups_are_told(lines: str, said: str) -> None:
    """What a declared lookup lacks is said with its line."""
    with pytest.raises(Invalid) as found:
        read_declared(f"tables:\n  orders:\n    references:\n      {lines}\n", "schema/right.yaml")
    assert any(said in problem.message and problem.line for problem in found.value.problems)


def test_a_polymorphic_member_of_the_key_is_refused() -> None:
    """A key must tell records apart by columns of one table."""
    schema = complete(RIGHT_SCHEMA, read_declared(DECLARED, "schema/right.yaml"))[0]
    text = ORDERS + 'key: [number, "customer.Account(number).Contact(code)"]\n'
    codes = {each.code for each in check_map(read_map(text, "map.yaml"), LEFT_SCHEMA, schema) if each.level == "error"}
    assert codes == {"key_polymorphic"}


BEHIND = ORDERS.replace("CUSTOMER = customer", "CUSTOMER < parent.customer")


def behind() -> Schema:
    """The right side, where an order may have a parent."""
    tables = dict(RIGHT_SCHEMA.tables)
    ids = ["company", "customer", "billed_account", "billed_contact", "shelf", "parent"]
    tables["orders"] = table("orders", ["number", "company"], "customertype", "note", ids=ids)
    parent = "      parent: {table: orders, columns: [parent], to: [id]}\n      shelf: {table"
    declared = DECLARED.replace("      shelf: {table", parent)
    return complete(Schema(tables), read_declared(declared, "schema/right.yaml"))[0]


@pytest.mark.parametrize("symbol", ["=", ">"])
@pytest.mark.parametrize("more", ["", "  - NOTE = parent.number\n"])
def test_a_polymorphic_lookup_finds_no_record(symbol: str, more: str) -> None:
    """A record of another table cannot be looked up by what may be in several tables, alone or beside its key."""
    text = BEHIND.replace(" < ", f" {symbol} ").replace("  - NOTE = note\n", more)
    (found,) = (e for e in check_map(read_map(text, "map.yaml"), LEFT_SCHEMA, behind()) if e.level == "error")
    assert found.code == "lookup_polymorphic"
    assert "parent.customer.account(number).contact(code)" in found.message
    assert (
        found.line
        == text.splitlines().index(f"  - CUSTOMER {symbol} parent.customer.Account(number).Contact(code)") + 1
    )


def test_a_polymorphic_lookup_is_read_behind_another() -> None:
    """What the customer of an order's parent is called, an account or a contact; live, too."""
    world = World(BEHIND, ACCOUNTS, right=behind())
    first = world.right(
        "orders", number="1", company=world.ids["usmf"], customer=world.ids["contact"], customertype="person"
    )
    world.right("orders", number="2", company=world.ids["usmf"], parent=first)
    world.start()
    assert world.orders("ORDER", "CUSTOMER") == [("1", None), ("2", "C1")]
    world.left("Accounts", NUMBER="A1")
    world.engine.drain()
    (account,) = (row for row in world.accounts() if row["number"] == "A1")
    world.edit(R, "orders", {"number": "1"}, customer=account["id"], customertype="account")
    assert world.orders("ORDER", "CUSTOMER") == [("1", None), ("2", "A1")]
    world.at_rest()


@pytest.mark.parametrize("column", ["customer", "billed_account"])
def test_a_polymorphic_lookup_that_something_else_has_changed_is_told(column: str) -> None:
    """Where an order leads elsewhere than it should and no change says why, nothing is overwritten."""
    world = World()
    for number in ("A1", "A2", "A3"):
        world.left("Accounts", NUMBER=number)
    name = {"customer": "CUSTOMER", "billed_account": "BILLED"}[column]
    world.left("Orders", ORDER="1", **{name: "A1"})
    world.start()
    ids = {row["number"]: row["id"] for row in world.accounts()}
    orders = world.databases[R].tables["orders"]
    ((number, record),) = orders.records.items()
    orders.put(number, {**record, column: ids["A3"]})
    world.edit(L, "Orders", {"ORDER": "1"}, **{name: "A2"})
    assert [entry.code for entry in world.journal.parked({})] == ["bypassed"]
    assert world.order("1")[column] == ids["A3"]


def test_a_lookup_over_hops_that_are_no_key_may_find_several() -> None:
    """A path over several tables looks a record up by what it refers to; ``check`` warns, and two are parked."""
    text = ORDERS.replace("  - SHELF = shelf.name\n", "").replace("STORE =", "STORE >")
    schema = complete(RIGHT_SCHEMA, read_declared(DECLARED, "schema/right.yaml"))[0]
    (found,) = check_map(read_map(text, "map.yaml"), LEFT_SCHEMA, schema)
    assert (found.code, found.level) == ("lookup_may_find_several", "warning")
    world = World(text, ACCOUNTS)
    world.left("Orders", ORDER="1", STORE="S")
    world.start()
    assert world.order("1")["shelf"] == world.ids["shelf"]
    world.right("shelves", name="second", store=world.ids["store"])
    world.left("Orders", ORDER="2", STORE="S")
    world.engine.drain()
    assert [entry.code for entry in world.journal.parked({})] == ["ambiguous"]


def test_filters_and_formulas_look_through_polymorphic_lookups() -> None:
    """A condition, and what is computed, may look at whatever record a polymorphic lookup leads to."""
    orders = ORDERS.replace(
        "columns:\n", "filter: {right: \"customer/[Account(number).Contact(code)] ne 'C1'\"}\ncolumns:\n"
    ).replace("  - NOTE = note\n", "  - NOTE << none: {expr: \"'for ' & customer.[Account(number).Contact(code)]\"}\n")
    world = World(orders, ACCOUNTS)
    account = world.right("accounts", number="A1", company=world.ids["usmf"])
    for number, target, kind in (("1", account, "account"), ("2", world.ids["contact"], "person")):
        world.right("orders", number=number, company=world.ids["usmf"], customer=target, customertype=kind)
    world.start()
    assert world.orders("ORDER", "CUSTOMER", "NOTE") == [("1", "A1", "for A1")]
    world.edit(R, "orders", {"number": "2"}, customer=account, customertype="account")
    assert world.orders("ORDER", "NOTE") == [("1", "for A1"), ("2", "for A1")]
    world.edit(R, "accounts", {"number": "A1"}, number="A9")
    assert world.orders("ORDER", "CUSTOMER", "NOTE") == [("1", "A9", "for A9"), ("2", "A9", "for A9")]
    world.at_rest()
