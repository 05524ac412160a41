"""Large transactions, wide rows and many tables: a real engine carries them in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dualwrite.connectors._pg_catalog import are_current, read_catalog
from dualwrite.connectors._pg_session import Database as Access
from dualwrite.testing.postgresql import Database, Server

PATIENCE = 3600.0
"""Seconds for what takes long on a machine that is busy with other things."""
MAPPED = 20
LEFT = """
CREATE TABLE item (code text PRIMARY KEY, name text, qty int, price numeric(12,2), note text);
CREATE TABLE small (code text PRIMARY KEY, v int);
"""
RIGHT = """
CREATE TABLE product (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), number text NOT NULL UNIQUE, title text, quantity int,
  price numeric(12,2), remark text);
CREATE TABLE tiny (code text PRIMARY KEY, v int);
"""
MAPS = {
    "items": """
map: items
left: item
right: product
key: [number]
columns:
  - code = number
  - name = title
  - qty = quantity
  - price = price
  - note = remark
""",
    "small": """
map: small
left: small
right: tiny
key: [code]
columns:
  - code = code
  - v = v
""",
}


def peak(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def databases(postgresql: Server) -> Iterator[dict[str, Database]]:
    """The two sides."""
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(postgresql.database(script))
            for side, script in (("left", LEFT), ("right", RIGHT))
        }


def urls(databases: dict[str, Database]) -> dict[str, str]:
    """Where they are."""
    return {side: database.url for side, database in databases.items()}


ROWS = "SELECT 'C' || g, 'Name ' || g, g % 100, g % 10000 / 100.0, repeat('x', {}) || g FROM generate_series(1, {}) g"
MILLION = pytest.mark.soak  # half an hour on a busy machine
SIZES = [
    pytest.param("insert", 100_000, 100, 180, id="insert many", marks=pytest.mark.soak),
    pytest.param("update", 100_000, 100, 180, id="update many"),
    pytest.param("update", 8_000, 20_000, 300, id="update wide"),
    pytest.param("insert", 1_000_000, 100, 300, id="insert a million", marks=MILLION),
    pytest.param("update", 1_000_000, 100, 300, id="update a million", marks=MILLION),
]


@pytest.mark.parametrize(("kind", "rows", "width", "most"), SIZES)
def test_a_large_transaction_is_carried_in_bounded_memory(
    databases: dict[str, Database], pair, kind: str, rows: int, width: int, most: int
) -> None:
    """The peak stays below the bound, and another map goes on as soon as the transaction is through."""
    left, right = databases["left"], databases["right"]
    made, statement = ROWS.format(width, rows), "UPDATE item SET qty = qty + 1000"
    if kind == "insert":
        statement = f"INSERT INTO item SELECT a, b, c + 1000, d, e FROM ({made}) r (a, b, c, d, e)"
    else:
        left.run(f"INSERT INTO item {made}")
        right.run(f"INSERT INTO product (number, title, quantity, price, remark) {made}")
    project = pair(urls(databases), MAPS)
    project.call("start", "--no-initial-sync")
    with project.engine() as process:
        left.run(statement)
        left.run("INSERT INTO small VALUES ('behind', 1)")
        right.run("INSERT INTO tiny VALUES ('back', 2)")
        project.until(
            lambda: process.poll() is not None or right.run("SELECT FROM tiny WHERE code = 'behind'"), PATIENCE
        )
        project.until(lambda: process.poll() is not None or left.run("SELECT FROM small WHERE code = 'back'"), PATIENCE)
        assert peak(process.pid) < most
        assert project.end(process).code == 0
    carried = "SELECT count(*), sum(quantity) FROM product WHERE quantity >= 1000"
    assert (
        right.run(carried)
        == left.run("SELECT count(*), sum(qty) FROM item")
        == [(rows, rows * 1000 + rows // 100 * 4950)]
    )


def crowd(tables: int) -> str:
    """A statement that makes as many tables, of which each refers to the one before."""
    return f"""
DO $$ BEGIN FOR i IN 1..{tables} LOOP
  EXECUTE format('CREATE TABLE %s (id int PRIMARY KEY, qty int, other int REFERENCES %s)',
    't' || lpad(i::text, 5, '0'), 't' || lpad(greatest(i - 1, 1)::text, 5, '0'));
  IF i % 100 = 0 THEN COMMIT; END IF;
END LOOP; END $$"""


SCANNED = """
SELECT sum(pg_stat_get_xact_tuples_returned(c)) FROM unnest(
  '{pg_class,pg_attribute,pg_attrdef,pg_type,pg_index,pg_constraint,pg_trigger}'::regclass[]) c"""


def test_others_tables_cost_nothing_to_look_at_ours(each_postgresql: Server) -> None:
    """Whether mapped tables have changed is asked all the time: no part of the catalog is read whole for it."""
    tables = 500
    with each_postgresql.database(crowd(tables)) as database, Access.of(database.url, "lab").connect() as connection:
        facts = read_catalog(connection).facts
        some = [facts[f"t{number:05}"] for number in range(1, MAPPED + 1)]
        assert are_current(connection, some)  # the server knows the tables by now
        connection.execute("BEGIN")
        before = connection.execute(SCANNED).fetchone()
        assert are_current(connection, some)
        after = connection.execute(SCANNED).fetchone()
        assert before is not None
        assert after is not None
        assert int(after[0]) - int(before[0]) < tables


@pytest.mark.parametrize("tables", [500, pytest.param(5_000, marks=pytest.mark.soak)])
def test_a_few_maps_among_many_tables(postgresql: Server, pair, tables: int) -> None:
    """Every command works as if the other tables were not there, and the engine stays small."""
    with postgresql.database(crowd(tables)) as left, postgresql.database(crowd(tables)) as right:
        names = [f"t{number:05}" for number in range(1, MAPPED + 1)]
        project = pair({"left": left.url, "right": right.url}, {})
        project.call(
            "init", "proposed", "--left", left.url, "--right", right.url, "--include", "t0000*", "--include", "t0001*"
        )
        proposed = sorted(file.stem for file in (project.folder / "proposed" / "maps").iterdir())
        assert proposed == names[: MAPPED - 1]
        for name in names:
            left.run(f"INSERT INTO {name} SELECT g, g, 1 FROM generate_series(1, 20) g")
        work = ["-C", "proposed"]
        assert project.call("check", *work).code == 0
        assert project.call("run", "--until-idle", *work).code == 0
        assert project.call("verify", *work).code == 0
        process = project.start("run", *work)
        left.run("UPDATE t00003 SET qty = qty + 1")
        project.until(
            lambda: process.poll() is not None or right.run("SELECT sum(qty) FROM t00003") == [(230,)], PATIENCE
        )
        assert peak(process.pid) < 150 + tables / 50
        assert project.end(process).code == 0
        assert project.call("uninstall", "--yes", *work).code == 0
