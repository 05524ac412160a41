"""A table changes its shape while applications write: only what is touched stops, and nothing is lost or doubled."""

from __future__ import annotations

import json
from contextlib import closing

from .postgresql_world import System, World

EXTRA = "CREATE TABLE extra (code {text} PRIMARY KEY NOT NULL, name {text}, size {int})"
MAP = "map: more\nleft: extra\nright: extra\nkey: [code]\ncolumns:\n  - code = code\n  - name = name\n  - size = size\n"


def alter(system: System, *statements: str) -> None:
    """What a migration does, in one transaction."""
    with closing(system.session()) as session:
        session.do(*((statement, ()) for statement in statements))


def rebuilt(*columns: str) -> tuple[str, ...]:
    """How SQLite's tables get other columns: a new one takes the place of the old."""
    names = ", ".join(column.split()[0] for column in columns)
    return (
        f"CREATE TABLE anew ({', '.join(columns)})",
        f"INSERT INTO anew SELECT {names} FROM extra",
        "DROP TABLE extra",
        "ALTER TABLE anew RENAME TO extra",
    )


def extras(world: World) -> tuple[str, str]:
    """The state of the map that is touched, and the reason."""
    maps = json.loads(world.call("status", "--json").stdout)["maps"]
    return next((each["state"], each["reason"]) for each in maps if each["map"] == "more")


def test_columns_are_added_dropped_and_retyped_under_load(world: World) -> None:
    """An added column is nothing; the map of a dropped or retyped one stops alone, and starts again once it fits.

    In PostgreSQL, where no value can have changed, it goes on where it stood, without an initial sync.
    """
    for system in world.systems:
        alter(system, EXTRA.format(text="text", int="integer"), "INSERT INTO extra VALUES ('E1', 'one', 1)")
    (world.folder / "maps" / "more.yaml").write_text(MAP)
    world.counters()
    world.sync()
    right = world.right
    is_file = right.database is None
    dropped = rebuilt("code text PRIMARY KEY NOT NULL", "name text") if is_file else ["ALTER TABLE extra DROP size"]
    retyped = (
        rebuilt("code text PRIMARY KEY NOT NULL", "name varchar(60)")
        if is_file
        else ["ALTER TABLE extra ALTER name TYPE varchar(60)"]
    )
    with world.engine() as engine:
        with world.load():
            alter(right, "ALTER TABLE product ADD COLUMN added text")
            alter(right, "ALTER TABLE extra ADD COLUMN added text")
            world.moves(engine)
            assert extras(world) == ("running", "")
            for change, file in ((dropped, MAP.replace("  - size = size\n", "")), (retyped, "")):
                alter(right, *change)
                world.until(lambda: extras(world)[0] == "needs attention", engine)
                assert "extra" in extras(world)[1]
                world.moves(engine)
                if file:
                    (world.folder / "maps" / "more.yaml").write_text(file)
                words = ("start", "more") if is_file or not file else ("maps", "refresh", "more")
                started = world.call(*words)
                assert started.returncode == 0, started.stdout + started.stderr
                world.until(lambda: extras(world) == ("running", ""), engine)
            alter(right, "INSERT INTO extra (code, name) VALUES ('E2', 'two')")
            world.moves(engine)
        world.carried(engine)
        world.until(lambda: len(world.left.rows("SELECT code FROM extra")) == 2, engine)
        assert engine.end() == 0
    world.proves()
    told = [each["what"] for each in json.loads(world.call("log", "--map", "more", "--json").stdout)]
    assert told.count("stopped by itself; needs attention") == 2
    assert told.count("initial sync done; running") == (3 if is_file else 2)


def test_killed_while_a_map_is_held(pair: World) -> None:
    """What users of both sides do meanwhile queues, before the kill and after it, and is carried once the map fits."""
    left, right = pair.systems
    for system in pair.systems:
        alter(system, EXTRA.format(text="text", int="integer"), "INSERT INTO extra VALUES ('E1', 'one', 1)")
    file = pair.folder / "maps" / "more.yaml"
    file.write_text(MAP)
    pair.sync()
    with pair.engine() as engine:
        alter(right, "ALTER TABLE extra DROP size")
        pair.until(lambda: extras(pair)[0] == "needs attention", engine)
        alter(left, "INSERT INTO extra VALUES ('E2', 'two', 2)")
        alter(right, "UPDATE extra SET name = 'from the right' WHERE code = 'E1'")
        pair.until(lambda: waiting(pair) == 2, engine)
        engine.kill()
    alter(left, "UPDATE extra SET name = 'later' WHERE code = 'E2'")
    alter(right, "INSERT INTO extra VALUES ('E3', 'three')")
    with pair.engine() as engine:
        pair.until(lambda: waiting(pair) == 4, engine)
        assert extras(pair)[0] == "needs attention"
        file.write_text(MAP.replace("  - size = size\n", ""))
        assert pair.call("maps", "refresh", "more").returncode == 0
        pair.until(lambda: extras(pair) == ("running", ""), engine)
        wanted = [("E1", "from the right"), ("E2", "later"), ("E3", "three")]
        for system in pair.systems:
            pair.until(lambda at=system: at.rows("SELECT code, name FROM extra ORDER BY code") == wanted, engine)
        assert engine.end() == 0
    pair.agrees()
    told = [each["what"] for each in json.loads(pair.call("log", "--map", "more", "--json").stdout)]
    assert told.count("stopped by itself; needs attention") == 1
    assert told.count("initial sync done; running") == 1


def waiting(world: World) -> int:
    """How many changes of the map wait in its queue."""
    maps = json.loads(world.call("status", "--json").stdout)["maps"]
    return next(each["queued"] for each in maps if each["map"] == "more")
