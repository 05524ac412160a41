"""The journal in trouble: full, refused, damaged, locked, killed; nothing is half written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from dualwrite.errors import Denied, DualwriteError, Unavailable
from dualwrite.journal import Conflict, Journal, ParkedKey
from dualwrite.journal.writer import Writer
from dualwrite.model import Change, Kind, Position, Side


def usual(folder: Path) -> Path:
    """Where a project has its journal."""
    return folder / ".dualwrite" / "journal.db"


def write_group(batch: Writer, number: int, size: int) -> None:
    """What one commit of an engine may bring: parked records, conflicts, windows, a line in the log."""
    for n in range(size):
        key, place = f'["{number}.{n}"]', Position("feed", (number, n))
        change = Change("customers", Kind.INSERT, ("1",), None, ("1", "x" * 200), 5.0, place)
        batch.park(ParkedKey(Side.RIGHT, "customers", key, "1", "value", "too long"), [change, change], number)
        batch.conflict(
            Conflict("customers", Side.RIGHT, key, "1", "name", None, None, None, "left", "left", 5.0, place, place),
            number,
        )
        batch.keep_window(Side.LEFT, [("customers", key, change)])
    batch.log("applied", detail={"number": number})


def write_groups(journal: Journal, end: int, first: int = 1) -> None:
    """Groups of 50, a batch each."""
    for number in range(first, end):
        with journal.batch() as batch:
            write_group(batch, number, 50)


def groups(journal: Journal, size: int) -> list[int]:
    """The numbers of the groups in the journal, after checking that each is whole."""
    logged = sorted(int(str(line.detail["number"])) for line in journal.events(limit=10_000))
    expected = {f'["{number}.{n}"]' for number in logged for n in range(size)}
    parked = journal.parked({})
    assert {entry.key for entry in parked} == expected
    assert all(entry.changes == 2 for entry in parked)
    assert {entry.key for entry in journal.conflicts({})} == expected
    assert set(journal.kept_keys(Side.LEFT, "customers")) == expected
    return logged


def explains(error: DualwriteError, path: Path) -> bool:
    """Does the error name the file and a remedy?"""
    return str(path) in error.message and bool(error.remedy)


@pytest.fixture
def small_disk() -> Iterator[list[int]]:
    """A limit on the pages of every SQLite file that is opened meanwhile: SQLite then says that the disk is full."""
    limit = [1_000_000]

    def limited(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit[0]}")

    event.listen(Engine, "connect", limited)
    yield limit
    event.remove(Engine, "connect", limited)


def test_a_full_disk_takes_all_of_a_batch_or_nothing(tmp_path: Path, small_disk: list[int]) -> None:
    """The batch that does not fit leaves nothing; what was there can be read, and written on once there is room."""
    small_disk[0] = 150
    with Journal.open(tmp_path) as journal:
        with pytest.raises(Unavailable, match=r"disk is full.*free some space") as full:
            write_groups(journal, 100)
        assert explains(full.value, usual(tmp_path))
        whole = groups(journal, 50)
        assert 0 < len(whole) < 99
    small_disk[0] = 1_000_000
    with Journal.open(tmp_path) as journal:
        write_groups(journal, len(whole) + 2, len(whole) + 1)
        assert groups(journal, 50) == [*whole, len(whole) + 1]


FILLER = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_journal_faults import groups, write_group
from dualwrite.errors import Unavailable
from dualwrite.journal import Journal
with Journal.open(sys.argv[1]) as journal:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    number, refused = 0, ""
    while not refused:
        number += 1
        try:
            with journal.batch() as batch:
                write_group(batch, number, 50)
        except Unavailable as error:
            refused = str(error)
    assert groups(journal, 50) == list(range(1, number)), "refused"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    with journal.batch() as batch:
        write_group(batch, number, 50)
    assert groups(journal, 50) == list(range(1, number + 1)), "resumed"
print(refused)
"""


def test_a_refused_write_is_whole_or_nothing(tmp_path: Path) -> None:
    """The same when the operating system refuses the write itself; the open journal goes on once it may."""
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(tmp_path), str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(usual(tmp_path)) in done.stdout
    assert " — " in done.stdout


READER = """
import os, sys
from dualwrite.errors import Denied
from dualwrite.journal import Journal
journal = Journal.open("sqlite://")
journal.put("a", "1")
journal.close()
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    with Journal.open(sys.argv[1]) as journal:
        print(journal.get("a"))
        journal.put("a", "2")
        print("written")
except Denied as error:
    print(error)
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for name in [folder, *folder.rglob("*")]:
        name.chmod(0o755)
    shutil.rmtree(folder)


def read_as_nobody(folder: Path) -> list[str]:
    """What a user without privileges gets from the journal (root would be let through everywhere)."""
    done = subprocess.run([sys.executable, "-c", READER, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_read_only_journal_is_read_and_refuses_writes(public_folder: Path) -> None:
    """Listings work, a write is denied with the file and what to do."""
    with Journal.open(public_folder) as journal:
        journal.put("a", "1")
    usual(public_folder).chmod(0o444)
    usual(public_folder).parent.chmod(0o777)
    value, refused = read_as_nobody(public_folder)
    assert value == "1"
    assert str(usual(public_folder)) in refused
    assert "read-only" in refused
    assert "let this user write" in refused


def test_a_journal_that_may_not_be_read_is_denied(public_folder: Path) -> None:
    """Neither file nor folder being open to the user, the error names the file."""
    Journal.open(public_folder).close()
    usual(public_folder).chmod(0o000)
    (refused,) = read_as_nobody(public_folder)
    assert str(usual(public_folder)) in refused
    usual(public_folder).parent.chmod(0o000)
    (refused,) = read_as_nobody(public_folder)
    assert str(usual(public_folder)) in refused


def test_a_file_that_is_no_database_is_denied(tmp_path: Path) -> None:
    """It is left as it was."""
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk\n" * 100)
    with pytest.raises(Denied, match="not a SQLite database") as refused:
        Journal.open(file)
    assert explains(refused.value, file)
    assert file.read_text() == "remember the milk\n" * 100


def test_a_database_of_something_else_is_denied(tmp_path: Path) -> None:
    """No table is added to a database that is not a journal."""
    file = tmp_path / "crm.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE accounts (id)")
    with pytest.raises(Denied, match="not a journal") as refused:
        Journal.open(file)
    assert explains(refused.value, file)
    with sqlite3.connect(file) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("accounts",)]


def test_a_damaged_journal_is_denied(tmp_path: Path) -> None:
    """Pages that hold something else are noticed when they are read."""
    with Journal.open(tmp_path) as journal, journal.batch() as batch:
        write_group(batch, 1, 50)
    content = usual(tmp_path).read_bytes()
    usual(tmp_path).write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))
    with pytest.raises(Denied, match=r"damaged.*backup") as refused, Journal.open(tmp_path) as journal:
        journal.parked({})
    assert explains(refused.value, usual(tmp_path))


def test_a_journal_without_its_tables_is_denied(tmp_path: Path) -> None:
    """Somebody dropped one: said in words, with the file."""
    Journal.open(tmp_path).close()
    with sqlite3.connect(usual(tmp_path)) as other:
        other.execute("DROP TABLE setting")
    with Journal.open(tmp_path) as journal, pytest.raises(Denied, match="no such table: setting") as refused:
        journal.get("a")
    assert explains(refused.value, usual(tmp_path))


def test_an_impossible_folder_is_denied(tmp_path: Path) -> None:
    """Where a file stands in place of a folder, or a folder in place of the file, nothing is created."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Denied) as refused:
        Journal.open(tmp_path / "file" / "journal.db")
    assert explains(refused.value, tmp_path / "file" / "journal.db")
    usual(tmp_path).mkdir(parents=True)
    with pytest.raises(Denied, match="cannot be opened") as refused:
        Journal.open(tmp_path)
    assert explains(refused.value, usual(tmp_path))


def test_a_locked_journal_is_waited_for_then_unavailable(tmp_path: Path) -> None:
    """Reads go on meanwhile; when the lock is gone the write goes through."""
    with Journal.open(tmp_path, wait=0.05) as journal, sqlite3.connect(usual(tmp_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked by another process") as refused:
            journal.put("a", "1")
        assert explains(refused.value, usual(tmp_path))
        assert journal.get("a") is None
        other.rollback()
        journal.put("a", "1")
        assert journal.get("a") == "1"


def test_opening_a_locked_new_file_is_unavailable(tmp_path: Path) -> None:
    """A file that another process is about to fill is not taken for something else."""
    for lock in ("IMMEDIATE", "EXCLUSIVE"):
        with sqlite3.connect(tmp_path / "journal.db") as other:
            other.execute(f"BEGIN {lock}")
            with pytest.raises(Unavailable, match="locked by another process"):
                Journal.open(tmp_path / "journal.db", wait=0.05)


def test_opening_a_locked_new_file_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened once the other process lets go, also where SQLite itself does not wait."""
    other = sqlite3.connect(tmp_path / "journal.db")
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("dualwrite.journal.database.time.sleep", lambda _seconds: other.rollback())
    with Journal.open(tmp_path / "journal.db") as journal:
        assert not other.in_transaction
        journal.put("a", "1")
    other.close()


WORKER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_journal_faults import write_group
from dualwrite.journal import Journal
with Journal.open(sys.argv[1]) as journal:
    number = len(journal.events(limit=10_000))
    while True:
        number += 1
        with journal.batch() as batch:
            write_group(batch, number, 20)
        print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    """Killed again and again while it writes: every batch is whole, and every one that it had reported is there."""
    for life in range(1, 9):
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout is not None
            for _ in range(life):
                reported = int(worker.stdout.readline())
            os.kill(worker.pid, signal.SIGKILL)
            reported = max([reported, *(int(line) for line in worker.stdout.read().split())])
        with Journal.open(tmp_path) as journal:
            found = groups(journal, 20)
        assert found == list(range(1, len(found) + 1))
        assert reported <= len(found) <= reported + 1


def test_a_kill_between_journal_and_commit_is_undone(tmp_path: Path) -> None:
    """What was written for a commit that never came is neither shown nor kept."""
    done = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    with done as worker:
        assert worker.stdout is not None
        for _ in range(3):
            worker.stdout.readline()
        worker.kill()
    with Journal.open(tmp_path) as journal:
        numbers = {Side.RIGHT: 2}
        shown = {entry.key.split(".")[0] for entry in journal.parked(numbers)}
        assert shown == {'["1', '["2'}
        journal.settle(Side.RIGHT, 2)
        assert {entry.key.split(".")[0] for entry in journal.parked({})} == shown
        assert {entry.key.split(".")[0] for entry in journal.conflicts({})} == shown
