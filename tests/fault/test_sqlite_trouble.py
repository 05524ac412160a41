"""What goes wrong beside the systems, or in one record of very many, while an engine runs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .postgresql_world import Engine, World
from .small_disk import MB, disk
from .test_kill import DEADLINE, Project, read


def write(file: Path, *statements: str) -> None:
    """An application's transaction."""
    with closing(sqlite3.connect(file, timeout=DEADLINE)) as database, database:
        for statement in statements:
            database.execute(statement)


def count(file: Path, table: str) -> int:
    """How many rows there are."""
    ((number,),) = read(file, f"SELECT 0, count(*) FROM {table}").values()
    return int(str(number))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two empty tables."""
    return Project(tmp_path)


def running(project: Project) -> Engine:
    """An engine that runs."""
    output = project.folder / "output"
    with output.open("wb") as said:
        return Engine(subprocess.Popen(project.command("run"), stdout=said, stderr=said, process_group=0), output)


@pytest.fixture
def engine(project: Project) -> Iterator[Engine]:
    """An engine at work on both tables, which are in step."""
    assert project.run("run", "--until-idle").returncode == 0
    made = running(project)
    try:
        World.until(lambda: "Ctrl-C ends it" in made.said(), made)
        yield made
    finally:
        if made.is_alive():
            made.kill()


def answer(project: Project, *words: str) -> object:
    """What a command answers as JSON."""
    done = project.run(*words, "--json")
    return json.loads(done.stdout)


@pytest.mark.parametrize("many", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_poison_row_among_very_many(project: Project, engine: Engine, many: int) -> None:
    """One record that the target refuses is parked alone, and goes through by itself once it was corrected."""
    poison = many * 7 // 9
    write(
        project.right,
        "CREATE TRIGGER refuse BEFORE INSERT ON product WHEN new.quantity < 0 "
        "BEGIN SELECT RAISE(ABORT, 'no negative stock'); END",
    )
    write(
        project.left,
        f"""WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {many})
        INSERT INTO item (code, name, qty) SELECT 'i' || n, 'name ' || n, iif(n = {poison}, -1, n) FROM n""",
    )
    World.until(lambda: count(project.right, "product") == many - 1, engine)
    (parked,) = answer(project, "parked", "list")
    assert parked["key"] == f"i{poison}"
    assert "no negative stock" in json.dumps(parked)
    assert answer(project, "verify")["maps"][0]["left_only"] == 1
    write(project.left, f"UPDATE item SET qty = 5 WHERE code = 'i{poison}'")
    World.until(lambda: count(project.right, "product") == many, engine)
    assert engine.end() == 0
    assert answer(project, "parked", "list") == []
    assert answer(project, "verify")["maps"][0]["equal"] == many
    told = [(line["side"], line["what"]) for line in answer(project, "log", "--key", f"i{poison}")]
    assert told == [
        ("left", "insert"),
        ("right", "parked"),
        ("left", "update"),
        ("right", "freed"),
        ("right", "applied"),
    ]


def test_a_journal_without_room(tmp_path: Path) -> None:
    """While the disk of the journal is full, nothing is carried and ``status`` says why; then all is, and told."""
    project = Project(tmp_path)
    with disk(tmp_path / ".dualwrite", 8 * MB) as small:
        write(project.left, "INSERT INTO item VALUES ('first', 'n', 1, NULL)")
        engine = running(project)
        try:
            World.until(lambda: read(project.right, "SELECT number FROM product"), engine)
            small.fill()
            numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)"
            write(project.left, f"{numbers} INSERT INTO item SELECT 'l' || n, 'n', n, NULL FROM n")
            write(project.right, f"{numbers} INSERT INTO product (number, quantity) SELECT 'r' || n, n FROM n")
            World.until(lambda: engine.said().count("the disk is full") >= 4, engine)
            assert "without room for it nothing is carried" in project.run("status").stdout
            small.free()
            everything = set(read(project.left, "SELECT code FROM item")) | set(
                read(project.right, "SELECT number FROM product")
            )
            assert len(everything) == 6001
            World.until(lambda: count(project.left, "item") == len(everything), engine)
            World.until(lambda: count(project.right, "product") == len(everything), engine)
            assert engine.end() == 0
        finally:
            if engine.is_alive():
                engine.kill()
        assert project.run("run", "--until-idle").returncode == 0
        assert answer(project, "verify")["maps"][0]["equal"] == len(everything)
        waited = [line for line in answer(project, "log") if line["what"] == "waited"]
        assert "the disk is full" in waited[0]["detail"]["reason"]
