"""Waiting for commits to an SQLite file: hints are taken, and nothing depends on their coming."""

from __future__ import annotations

import ctypes
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dualwrite.connectors import _sqlite_wake
from dualwrite.connectors._sqlite_wake import ALERT, Wake

FOREVER = 3_600.0
"""Seconds for which a wait lasts that nothing ends."""
PATIENCE = 60.0
"""Seconds after which a thread is given up."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells when a file is written")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database."""
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a)")
    return path


@pytest.fixture
def wake(file: Path) -> Iterator[Wake]:
    """One that listens, and has heard nothing for long."""
    found = Wake(file)
    found.wait(FOREVER)
    found._stirred = time.monotonic() - 2 * ALERT
    with closing(found):
        yield found


def commit(path: Path, mode: str) -> None:
    """Somebody writes a row."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("INSERT INTO t VALUES (1)")


@linux
@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_a_commit_ends_the_wait(wake: Wake, file: Path, mode: str) -> None:
    """However the database keeps its journal."""
    waiting = threading.Thread(target=wake.wait, args=(FOREVER,), daemon=True)
    waiting.start()
    commit(file, mode)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


@linux
def test_what_comes_before_the_wait_ends_it_too(wake: Wake, file: Path) -> None:
    """A hint waits for whoever waits later."""
    commit(file, "WAL")
    waiting = threading.Thread(target=wake.wait, args=(FOREVER,), daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


@linux
def test_behind_a_hint_the_file_is_looked_at_often(wake: Wake, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of a commit are written before it can be seen: nobody tells when that is."""
    naps: list[float] = []
    commit(file, "WAL")
    wake.wait(FOREVER)
    monkeypatch.setattr(time, "sleep", naps.append)
    for _ in range(3):
        wake.wait(FOREVER)
    assert len(naps) == 3
    assert max(naps) <= _sqlite_wake.LONG_NAP


@linux
def test_other_files_end_no_wait(wake: Wake, file: Path) -> None:
    """A hint about them is taken away, and the time goes on."""
    (file.parent / "other.db").write_text("x")
    (file.parent / "some.db-walnut").write_text("x")
    before = wake._stirred
    wake.wait(0.01)
    assert wake._stirred == before
    commit(file, "WAL")
    wake.wait(FOREVER)
    assert wake._stirred > before


@linux
def test_hints_that_were_too_many_count_as_one(wake: Wake) -> None:
    """Linux drops them, and says only that it did."""
    assert wake._is_ours(_sqlite_wake._HEAD.pack(-1, 0x4000, 0, 0))


def test_where_nobody_tells_it_is_looked_at_again_and_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever less often while nothing happens, but never seldom."""
    naps: list[float] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(time, "sleep", naps.append)
    with closing(Wake(file)) as wake:
        wake.wait(FOREVER)
        wake.stir()
        wake.wait(FOREVER)
        wake._stirred = time.monotonic() - FOREVER
        wake.wait(FOREVER)
    assert naps == [_sqlite_wake.NAP, _sqlite_wake.LONGEST_NAP]
