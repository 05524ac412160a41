"""What goes wrong beside the systems, or in one record of very many, while an engine runs."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

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


class Running:
    """An engine that runs, and what it has said."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._output = (project.folder / "output").open("w+b")
        self.process = subprocess.Popen(project.command("run"), stdout=self._output, stderr=self._output)

    def said(self) -> str:
        """What it has said so far."""
        return (self.project.folder / "output").read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, while the engine lives."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def end(self) -> None:
        """Let it end by itself."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE) == 0, self.said()
        assert "Traceback" not in self.said()

    def close(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()


@pytest.fixture
def engine(project: Project) -> Iterator[Running]:
    """An engine at work on both tables, which are in step."""
    assert project.run("run", "--until-idle").returncode == 0
    running = Running(project)
    try:
        running.until(lambda: "Ctrl-C ends it" in running.said())
        yield running
    finally:
        running.close()


def answer(project: Project, *words: str) -> object:
    """What a command answers as JSON."""
    done = project.run(*words, "--json")
    return json.loads(done.stdout)


@pytest.mark.parametrize("many", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_poison_row_among_very_many(project: Project, engine: Running, many: int) -> None:
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
    engine.until(lambda: count(project.right, "product") == many - 1)
    (parked,) = answer(project, "parked", "list")
    assert parked["key"] == f"i{poison}"
    assert "no negative stock" in json.dumps(parked)
    assert answer(project, "verify")["maps"][0]["left_only"] == 1
    write(project.left, f"UPDATE item SET qty = 5 WHERE code = 'i{poison}'")
    engine.until(lambda: count(project.right, "product") == many)
    engine.end()
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
        running = Running(project)
        try:
            running.until(lambda: read(project.right, "SELECT number FROM product"))
            small.fill()
            numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)"
            write(project.left, f"{numbers} INSERT INTO item SELECT 'l' || n, 'n', n, NULL FROM n")
            write(project.right, f"{numbers} INSERT INTO product (number, quantity) SELECT 'r' || n, n FROM n")
            running.until(lambda: running.said().count("the disk is full") >= 4)
            assert "without room for it nothing is carried" in project.run("status").stdout
            small.free()
            everything = set(read(project.left, "SELECT code FROM item")) | set(
                read(project.right, "SELECT number FROM product")
            )
            assert len(everything) == 6001
            running.until(lambda: count(project.left, "item") == len(everything))
            running.until(lambda: count(project.right, "product") == len(everything))
            running.end()
        finally:
            running.close()
        assert project.run("run", "--until-idle").returncode == 0
        assert answer(project, "verify")["maps"][0]["equal"] == len(everything)
        waited = [line for line in answer(project, "log") if line["what"] == "waited"]
        assert "the disk is full" in waited[0]["detail"]["reason"]
