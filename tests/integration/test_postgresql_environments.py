"""A copied PostgreSQL database is refused until it is re-pointed, and can be freed by hand."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from dualwrite.testing.postgresql import Server

TABLE = "CREATE TABLE items (code text PRIMARY KEY, name text); INSERT INTO items VALUES ('I1', 'Bolt');"
MAP = "map: items\nleft: items\nright: items\nkey: [code]\ncolumns:\n  - code = code\n  - name = name\n"
TRACES = """
    SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'dualwrite%')
        + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_class WHERE relreplident = 'f')
        + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
        + (SELECT count(*) FROM pg_replication_origin o, pg_database d
            WHERE datname = current_database() AND roname LIKE '%\\_' || d.oid)"""


@pytest.fixture
def three(postgresql: Server):
    """Two databases with a table each, and the name of a third."""
    with ExitStack() as stack:
        left, right, clone = (stack.enter_context(postgresql.database()) for _ in range(3))
        for database in (left, right):
            for statement in filter(str.strip, TABLE.split(";")):
                database.run(statement)
        yield left, right, clone


def test_a_clone_is_refused_until_it_is_relinked(pair, three):
    """Made from the template of a linked database, it holds the link's objects: they go from it alone, and the original
    stays linked until it is freed by hand."""
    left, right, clone = three
    project = pair({"left": left.url, "right": right.url}, {"items": MAP})
    assert project.sync().code == 0
    with clone.server.connect() as session:
        session.execute(f'DROP DATABASE "{clone.name}"'.encode())
        session.execute(f'CREATE DATABASE "{clone.name}" TEMPLATE "{left.name}"'.encode())
    file = project.folder / "dualwrite.yaml"
    before = file.read_text()
    file.write_text(before.replace(left.url, clone.url))
    refused = project.sync()
    assert refused.code == 1
    assert "dualwrite relink left" in refused.err
    file.write_text(before)
    relinked = project.call("relink", "left", clone.url, "--yes")
    assert relinked.code == 0, relinked.out + relinked.err
    assert "it is a copy" in relinked.out
    assert int(left.run(TRACES)[0][0]) > 0
    assert project.call("start").code == 0
    assert project.sync().code == 0
    clone.run("UPDATE items SET name = 'from the clone'")
    assert project.sync().code == 0
    assert right.run("SELECT name FROM items") == [("from the clone",)]
    assert left.run("SELECT name FROM items") == [("Bolt",)]
    done = project.call("reset", "--yes", "--forget", "right")
    assert done.code == 0
    assert [int(row[0]) for row in clone.run(TRACES)] == [0]
    assert int(right.run(TRACES)[0][0]) > 0
    script = done.out[done.out.index("run this there:") :].splitlines()
    for line in (line for line in script if line.startswith(("SELECT", "DROP"))):
        rows = right.run(line.removesuffix("\\gexec"))
        for (statement,) in rows if line.endswith("\\gexec") else ():
            right.run(statement)
    assert [int(row[0]) for row in right.run(TRACES)] == [0]
