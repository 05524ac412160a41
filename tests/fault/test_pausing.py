"""Pausing and resuming under load, with real processes that are killed in every state."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from sqlite3 import connect

import pytest

from dualwrite.engine.lifecycle import PAUSED, RESUMING, RUNNING
from dualwrite.journal import Journal

from .test_kill import COUNTERS, DEADLINE, Project, Writer, commits, project, read

__all__ = ["project"]


class Load:
    """Two applications that write without pause, and an engine that dies now and then."""

    def __init__(self, place: Project) -> None:
        self.project = place
        self.journal = Journal.open(place.folder)
        self.writers = [
            Writer(place.left, "item", ("code", "name", "qty", "note"), "L", 1),
            Writer(place.right, "product", ("number", "title", "quantity", "remark"), "R", 2),
        ]
        self.engine: subprocess.Popen[bytes] | None = None
        self.random = random.Random(3)
        for writer in self.writers:
            writer.start()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds; the engine and the applications must live on."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, what
            assert self.engine is None or self.engine.poll() is None, what
            assert all(writer.trouble is None for writer in self.writers)
            time.sleep(0.01)

    def restart(self) -> None:
        """Kill the engine, and start another one."""
        if self.engine is not None:
            time.sleep(self.random.random() * 0.2)  # so that the kill falls into another moment of its work each time
            os.killpg(self.engine.pid, signal.SIGKILL)
            self.engine.communicate()
        self.engine = self.project.start()

    def state(self) -> str:
        """The state of the map."""
        return self.journal.states()["items"].state

    def queued(self) -> int:
        """How many changes wait."""
        return sum(each.changes for each in self.journal.backlogs.queued("items").get("items", {}).values())

    def grows(self, by: int) -> None:
        """Wait until so many more changes wait."""
        wanted = self.queued() + by
        self.until(lambda: self.queued() >= wanted, "nothing queues")

    def ask(self, *words: str) -> None:
        """A command that must succeed."""
        done = self.project.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self) -> None:
        """No more load, and no engine."""
        for writer in self.writers:
            writer.stop.set()
            writer.join()
        if self.engine is not None:
            os.killpg(self.engine.pid, signal.SIGKILL)
            self.engine.communicate()
            self.engine = None
        self.journal.close()


@pytest.fixture
def load(project: Project) -> Iterator[Load]:
    """Counters on both sides, and applications that write."""
    first = project.run("run", "--until-idle")
    assert first.returncode == 0, first.stdout + first.stderr
    made = Load(project)
    yield made
    made.end()


def judge(load: Load) -> None:
    """Both sides agree, and hold every edit of both applications exactly once."""
    place = load.project
    last = place.run("run", "--until-idle")
    assert last.returncode == 0, last.stdout + last.stderr
    verified = place.run("verify", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    left = read(place.left, "SELECT code, name, qty FROM item")
    assert left == read(place.right, "SELECT number, title, quantity FROM product")
    assert json.loads(verified.stdout)["maps"][0]["equal"] == len(left)
    for code in (f"counter{number}" for number in range(COUNTERS)):
        assert left[code][1] == sum(writer.counted[code] for writer in load.writers), "a sum proves doubles and losses"
    for writer in load.writers:
        for code, name in writer.own.items():
            assert left[code][0] == name


def test_killed_in_every_state_while_both_sides_write(load: Load) -> None:
    """Paused, resuming or running again: a ``kill -9`` loses nothing and doubles nothing, and a busy map drains."""
    load.restart()
    load.ask("pause")
    load.until(lambda: load.state() == PAUSED, "it is not paused")
    load.grows(100)
    load.restart()
    load.grows(100)
    assert load.state() == PAUSED
    load.ask("resume")
    load.restart()
    load.until(lambda: load.state() in (RESUMING, RUNNING), "it is not resumed")
    load.restart()
    load.until(lambda: load.state() == RUNNING, "it does not catch up")
    load.restart()
    before = {file: commits(file) for file in (load.project.left, load.project.right)}
    load.until(lambda: all(commits(file) > count for file, count in before.items()), "it does not carry")
    load.end()
    judge(load)
    with Journal.open(load.project.folder) as journal:
        told = [event.what for event in reversed(journal.events("items", 1_000))]
    assert told[-1] == "caught up; running"
    assert [what for what in told if what.endswith(" wanted")] == ["pause wanted", "resume wanted"]


def queue(load: Load, count: int) -> None:
    """Pause, let an application make so many changes, and catch up while the others write on."""
    load.restart()
    load.ask("pause")
    load.until(lambda: load.state() == PAUSED, "it is not paused")
    with closing(connect(load.project.left, timeout=DEADLINE)) as database, database:
        rows = [(f"bulk{number}", f"bulk {number}") for number in range(count)]
        database.executemany("INSERT INTO item (code, name, qty) VALUES (?, ?, 0)", rows)
    load.until(lambda: load.queued() >= count, "it does not queue")
    load.ask("resume")
    load.until(lambda: load.state() == RUNNING, "it does not catch up")
    load.end()
    judge(load)


def test_a_pause_under_load(load: Load) -> None:
    """A thousand changes queue and are carried, while both sides write on."""
    queue(load, 1_000)


@pytest.mark.soak
def test_a_long_pause_under_load(load: Load) -> None:
    """The same with a hundred thousand."""
    queue(load, 100_000)
