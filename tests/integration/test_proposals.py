"""A first map that needs no typing: from two databases with records to a link that agrees."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.engine.samples import ROWS, sampler
from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

LEFT = """
CREATE TABLE customers (account TEXT PRIMARY KEY NOT NULL, name VARCHAR(40), credit NUMERIC(12,2), hold TEXT, grp TEXT,
    vip TEXT, phone TEXT);
"""
RIGHT = """
CREATE TABLE groups (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE);
CREATE TABLE accounts (id INTEGER PRIMARY KEY, accountnumber TEXT NOT NULL UNIQUE, title VARCHAR(40),
    creditlimit NUMERIC(12,2), holdstatus INTEGER, group_id INTEGER REFERENCES groups(id), isvip BOOLEAN,
    telephone TEXT, fax TEXT);
"""


def fill(terminal) -> None:
    """Sixty customers, all but ten of them on both sides."""
    rows = [
        (
            f"C{n:03}",
            f"Name {n * 7 % 60}",
            n * 10,
            ("no", "invoice", "all")[n % 3],
            f"G{n % 4}",
            ("no", "yes")[n % 2],
            f"+49 {n}",
        )
        for n in range(60)
    ]
    with closing(sqlite3.connect(terminal.folder / "erp.db")) as left, left:
        left.executescript(LEFT)
        left.executemany("INSERT INTO customers VALUES (?,?,?,?,?,?,?)", rows)
    with closing(sqlite3.connect(terminal.folder / "crm.db")) as right, right:
        right.executescript(RIGHT)
        right.executemany("INSERT INTO groups VALUES (?,?)", [(n + 10, f"G{n}") for n in range(4)])
        codes = {"no": 1000, "invoice": 1001, "all": 1002}
        right.executemany(
            "INSERT INTO accounts VALUES (NULL,?,?,?,?,?,?,?,NULL)",
            [
                (number, name, credit, codes[hold], 10 + int(group[1:]), vip == "yes", phone)
                for number, name, credit, hold, group, vip, phone in rows[10:]
            ],
        )


def test_a_first_map_needs_no_typing(terminal):
    """Tables and columns of other names, codes, a lookup: proposed with reasons, valid as they stand, and right."""
    fill(terminal)
    made = terminal.call("init", "link", "--left", "sqlite:///erp.db", "--right", "sqlite:///crm.db")
    assert "customers and accounts have other names, but 100% of their keys' values are the same." in made.out
    assert "customers (accounts): name – title likely: other name, 50 of 50 records agree" in made.out
    text = (terminal.folder / "link/maps/customers-accounts.yaml").read_text()
    lines = [line.split("  # ") for line in text.splitlines() if line.startswith("  - ")]
    assert {" ".join(line.split()) for line, _ in lines} == {
        "- account = accountnumber",
        "- name = title",
        "- credit = creditlimit",
        "- hold >< holdstatus: {values: {all: 1002, invoice: 1001, no: 1000}}",
        "- grp = group_id.code",
        "- vip >< isvip: {values: {no: false, yes: true}}",
        "- phone = telephone",
    }
    assert all(why.startswith(("sure: ", "likely: ", "unsure: ")) for _, why in lines)
    assert terminal.call("check", "-C", "link").code == 0
    assert terminal.call("run", "--until-idle", "-C", "link").code == 0
    assert terminal.call("verify", "-C", "link").code == 0


def test_nothing_is_read_where_that_is_not_wanted(terminal):
    """With ``--no-values`` names and types alone count: what needs records is not proposed."""
    fill(terminal)
    made = terminal.call("init", "link", "--left", "sqlite:///erp.db", "--right", "sqlite:///crm.db", "--no-values")
    assert "0 map(s) proposed" in made.out


@pytest.mark.parametrize("name", ["big", "nothing"])
def test_a_sample_is_bounded(postgresql: Server, name: str):
    """However large a table is, no more than so many of its rows are read; none of one that cannot be read."""
    rows = "INSERT INTO big SELECT g, 'x' FROM generate_series(1, 30000) g"
    script = f"CREATE TABLE big (id INTEGER PRIMARY KEY, v TEXT); {rows}"
    with postgresql.database(script) as database:
        connector = open_postgresql(database.url, link="lab", side=Side.LEFT)
        try:
            table = connector.schema().tables["big"]
            if name == "nothing":
                database.run("DROP TABLE big")
            sample = sampler({Side.LEFT: connector})(Side.LEFT, table)
        finally:
            connector.close()
    assert len(sample) == (ROWS if name == "big" else 0)
    assert all(row[1] == "x" for row in sample)


def test_tables_that_come_later_get_maps_of_their_own(shop):
    """A mapped table is left out, a running engine takes the new map, and nothing is proposed twice or overwritten."""
    before = shop.map.read_text()
    with shop.engine():
        shop.sql(shop.left, "CREATE TABLE items (code TEXT PRIMARY KEY NOT NULL, name TEXT)")
        shop.sql(shop.right, "CREATE TABLE item (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, name TEXT)")
        shop.sql(shop.left, "INSERT INTO items VALUES ('I1', 'Bolt')")
        made = shop.call("maps", "propose")
        assert made.code == 0
        assert "wrote maps/items-item.yaml" in made.out
        assert "customers" not in made.out
        assert shop.call("start", "items (item)").code == 0
        shop.until(lambda: shop.sql(shop.right, "SELECT code, name FROM item") == [("I1", "Bolt")])
    again = shop.call("maps", "propose")
    assert (again.code, again.out.splitlines()[-1].startswith("0 map(s) proposed")) == (0, True)
    assert shop.map.read_text() == before
    assert len(list(shop.map.parent.iterdir())) == 2


def test_two_tables_of_other_names_are_paired_when_named(shop):
    """Beside a map that there is already."""
    shop.sql(shop.left, "CREATE TABLE goods (code TEXT PRIMARY KEY NOT NULL, name TEXT)")
    shop.sql(shop.right, "CREATE TABLE things (code TEXT PRIMARY KEY NOT NULL, name TEXT, more TEXT)")
    assert shop.call("maps", "propose", "--include", "goods", "--include", "things").code == 0
    assert "code = code" in (shop.map.parent / "goods-things.yaml").read_text()
