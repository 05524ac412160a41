"""``kill -9`` of a real engine under load: nothing is lost, nothing is applied twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

KILLS = 20
COUNTERS = 5
DEADLINE = 240.0

LEFT = """
CREATE TABLE item (code TEXT PRIMARY KEY NOT NULL, name VARCHAR(40), qty INTEGER, note TEXT);
"""
RIGHT = """
CREATE TABLE product (productid TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))), number TEXT NOT NULL UNIQUE,
    title VARCHAR(40), quantity INTEGER, remark TEXT);
"""
MAP = """
map: items
left: item
right: product
key: [number]
columns:
  - code = number
  - name = title
  - qty = quantity: {conflict: sum}
  - note = remark
"""


class Project:
    """A project folder with two databases, and a ``dualwrite`` that runs as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left, self.right = folder / "left.db", folder / "right.db"
        (folder / "maps").mkdir()
        (folder / "maps" / "items.yaml").write_text(MAP)
        (folder / "dualwrite.yaml").write_text(
            'link: killed\nleft: {name: left, url: "sqlite:///left.db"}\nright: {name: right, url: "sqlite:///right.db"}\n'
        )
        for file, script in ((self.left, LEFT), (self.right, RIGHT)):
            with closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(script)

    def command(self, *words: str) -> list[str]:
        """The words of a command line."""
        return [sys.executable, "-m", "dualwrite.cli", *words, "-C", str(self.folder)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, run to its end."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=DEADLINE, check=False)

    def start(self) -> subprocess.Popen[bytes]:
        """An engine in a group of its own, so that a kill meets whatever it may have started."""
        return subprocess.Popen(self.command("run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0)


class Writer(threading.Thread):
    """An application on one side: inserts, edits, deletes and counts with plain SQL until told to stop."""

    def __init__(self, file: Path, table: str, names: tuple[str, str, str, str], prefix: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.file, self.table, self.names, self.prefix = file, table, names, prefix
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.counted: Counter[str] = Counter()
        self.own: dict[str, str] = {}
        self.commits = 0
        self.trouble: BaseException | None = None

    def run(self) -> None:
        """Write until told to stop."""
        try:
            with closing(sqlite3.connect(self.file, timeout=DEADLINE, isolation_level=None)) as database:
                while not self.stop.is_set():
                    self.act(database)
                    self.commits += 1
                    time.sleep(0.01)  # a busy application, not a benchmark: the others need their turns
        except BaseException as trouble:
            self.trouble = trouble

    def act(self, database: sqlite3.Connection) -> None:
        """One transaction."""
        key, name, quantity, note = self.names
        choice = self.random.random()
        if choice < 0.4:
            code = f"counter{self.random.randrange(COUNTERS)}"
            database.execute(f"UPDATE {self.table} SET {quantity} = {quantity} + 1 WHERE {key} = ?", (code,))
            self.counted[code] += 1
        elif choice < 0.7 or len(self.own) < 5:
            code = f"{self.prefix}{len(self.own)}"
            self.own[code] = f"first {code}"
            database.execute(
                f"INSERT INTO {self.table} ({key}, {name}, {quantity}) VALUES (?, ?, 0)", (code, self.own[code])
            )
        else:
            code = self.random.choice(sorted(self.own))
            self.own[code] = f"edit {self.commits}"
            database.execute(
                f"UPDATE {self.table} SET {name} = ?, {note} = 'n' WHERE {key} = ?", (self.own[code], code)
            )


def read(file: Path, statement: str) -> dict[str, tuple[object, ...]]:
    """Rows by their first column."""
    with closing(sqlite3.connect(file, timeout=DEADLINE)) as database:
        return {row[0]: row[1:] for row in database.execute(statement)}


def moved(before: dict[Path, int]) -> bool:
    """Has our engine committed in both databases since?"""
    return all(commits(file) > count for file, count in before.items())


def commits(file: Path) -> int:
    """The number of our last commit in a database."""
    with closing(sqlite3.connect(file, timeout=DEADLINE)) as database:
        return int(database.execute("SELECT value FROM dualwrite_killed_meta WHERE name = 'commits'").fetchone()[0])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new project with the counters on the left side."""
    made = Project(tmp_path)
    with closing(sqlite3.connect(made.left)) as database, database:
        rows = [(f"counter{n}", "counter", 0) for n in range(COUNTERS)]
        database.executemany("INSERT INTO item (code, name, qty) VALUES (?, ?, ?)", rows)
    return made


def test_killed_twenty_times_under_load(project: Project) -> None:
    """Killed again and again while two applications write, the engine loses nothing and doubles nothing."""
    first = project.run("run", "--until-idle")
    assert first.returncode == 0, first.stdout + first.stderr
    writers = [
        Writer(project.left, "item", ("code", "name", "qty", "note"), "L", 1),
        Writer(project.right, "product", ("number", "title", "quantity", "remark"), "R", 2),
    ]
    for writer in writers:
        writer.start()
    pauses = random.Random(3)
    for _ in range(KILLS):
        engine = project.start()
        before = {file: commits(file) for file in (project.left, project.right)}
        deadline = time.monotonic() + DEADLINE
        while not moved(before):
            assert engine.poll() is None, (engine.stdout.read() if engine.stdout else b"").decode()
            assert time.monotonic() < deadline, "the engine does not move"
            assert all(writer.trouble is None for writer in writers), [writer.trouble for writer in writers]
            time.sleep(0.02)  # looking without a rest would take the engine's processor
        time.sleep(pauses.random() * 0.2)  # so that the kill falls into another moment of its work each time
        os.killpg(engine.pid, signal.SIGKILL)
        engine.communicate()
    for writer in writers:
        writer.stop.set()
        writer.join()
        assert writer.trouble is None, writer.trouble
    last = project.run("run", "--until-idle")
    assert last.returncode == 0, last.stdout + last.stderr
    verified = project.run("verify", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    report = json.loads(verified.stdout)["maps"][0]
    left = read(project.left, "SELECT code, name, qty FROM item")
    right = read(project.right, "SELECT number, title, quantity FROM product")
    assert left == right
    assert report["equal"] == len(left)
    for number in range(COUNTERS):
        code = f"counter{number}"
        assert left[code][1] == sum(writer.counted[code] for writer in writers), "a sum proves doubles and losses"
    for writer in writers:
        for code, name in writer.own.items():
            assert left[code][0] == name
    applied = json.loads(project.run("log", "--changes", "--json").stdout)
    for side, writer in zip(("right", "left"), writers, strict=True):
        places = [line["position"] for line in applied if line["side"] == side and line["what"] in ("insert", "update")]
        assert len(places) == len(set(places)), "the audit holds a change twice"
        assert len(places) == writer.commits, "the audit lacks a change, or tells of one that was never applied"


def test_killed_again_and_again_during_the_initial_sync(project: Project) -> None:
    """It goes on each time where it was, counts each record once, and merges what both applications write meanwhile."""
    with closing(sqlite3.connect(project.left)) as database, database:
        rows = ((f"old{number}", "old", 0) for number in range(15_000))
        database.executemany("INSERT INTO item (code, name, qty) VALUES (?, ?, ?)", rows)
    pauses, before = random.Random(5), 0
    for _ in range(5):
        engine = project.start()
        deadline = time.monotonic() + DEADLINE
        while True:  # until it has gone on
            found = len(read(project.right, "SELECT number FROM product"))
            if found > before:
                break
            assert engine.poll() is None, (engine.stdout.read() if engine.stdout else b"").decode()
            assert time.monotonic() < deadline, "the engine does not move"
        time.sleep(pauses.random() * 0.1)  # so that the kill falls into another moment of its work each time
        os.killpg(engine.pid, signal.SIGKILL)
        engine.communicate()
        before = len(read(project.right, "SELECT number FROM product"))
        for file, table, key, name in (
            (project.left, "item", "code", "name"),
            (project.right, "product", "number", "title"),
        ):
            with closing(sqlite3.connect(file, timeout=DEADLINE)) as database, database:
                changed = f"UPDATE {table} SET {name} = '{table}' WHERE {key} = (SELECT max({key}) FROM {table} "
                database.execute(f"{changed} WHERE {name} = 'old' AND {key} LIKE '%{5 if table == 'item' else 7}')")
        if before == 15_000 + COUNTERS:
            break
    last = project.run("run", "--until-idle")
    assert last.returncode == 0, last.stdout + last.stderr
    (sync,) = json.loads(project.run("syncs", "list", "--json").stdout)
    assert (sync["outcome"], sync["resumed"] > 0) == ("done", True)
    assert {count["side"]: (count["inserted"], count["updated"]) for count in sync["counts"]} == {
        "left": (0, 0),
        "right": (15_000 + COUNTERS, 0),
    }
    left = read(project.left, "SELECT code, name, qty FROM item")
    assert left == read(project.right, "SELECT number, title, quantity FROM product")
    assert len(left) == 15_000 + COUNTERS
    names = Counter(name for name, _ in left.values())
    assert names["product"] == names["item"] > 0, "what either application wrote is there"
