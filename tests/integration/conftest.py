"""A project folder on two real SQLite files, and the command line as people use it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from dualwrite import cli
from dualwrite.testing.postgresql import Server, programs

PATIENCE = 240.0
DEBIAN = Path("/usr/lib/postgresql/15/bin")
LEFT = """
CREATE TABLE customers (
    account TEXT PRIMARY KEY NOT NULL, name VARCHAR(40) NOT NULL, credit NUMERIC(12,2), status TEXT);
INSERT INTO customers VALUES ('C1', 'Contoso', 1000, 'open'), ('C2', 'Fabrikam', 500, 'open');
"""
RIGHT = """
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, number TEXT NOT NULL UNIQUE, title VARCHAR(20) NOT NULL, creditlimit NUMERIC(12,2),
    state INTEGER NOT NULL DEFAULT 0);
INSERT INTO accounts (number, title, creditlimit) VALUES ('C1', 'Contoso Ltd', 1000), ('C3', 'Northwind', 50);
"""
SETTINGS = """\
link: shop
left:  {name: erp, url: "sqlite:///erp.db"}
right: {name: crm, url: "sqlite:///crm.db"}
"""
MAP = """\
map: customers
left: customers
right: accounts
key: [number]
columns:
  - account = number
  - name    = title
  - credit  = creditlimit
  - status >< state: {values: {open: 0, held: 1}}
"""


@dataclass(frozen=True)
class Answer:
    """What a command has said."""

    code: int
    out: str
    err: str

    def json(self):
        """The output, read as JSON."""
        return json.loads(self.out)

    def clean(self) -> Answer:
        """Itself; there must be no trace of a program that broke."""
        assert "Traceback" not in self.out + self.err, self.err
        return self


class Terminal:
    """A folder, and the command line in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Go there."""
        self.folder = folder
        self._capsys = capsys
        self._patch = monkeypatch
        monkeypatch.chdir(folder)

    def call(self, *arguments: str) -> Answer:
        """Run a command in this process."""
        self._patch.chdir(self.folder)
        self._patch.setattr(sys, "argv", ["dualwrite", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self._capsys.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else 0, said.out, said.err).clean()

    def start(self, *arguments: str, under: Sequence[str] = (), out: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """A command in a process of its own; ``under`` is a program that runs it, ``out`` gets what it says."""
        command = [*under, sys.executable, "-m", "dualwrite.cli", *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        errors = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=out, stderr=errors, text=True)

    @staticmethod
    def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, "it does not come about"
            time.sleep(0.02)

    @staticmethod
    def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> Answer:
        """Interrupt a process; what it has said."""
        process.send_signal(number)
        return Terminal.finished(process)

    @staticmethod
    def finished(process: subprocess.Popen[str]) -> Answer:
        """What a process has said at its end."""
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Answer(process.returncode, out or "", err).clean()


class Project(Terminal):
    """A project folder."""

    def sync(self) -> Answer:
        """Carry everything that is committed by now."""
        return self.call("run", "--until-idle")

    def agree(self) -> bool:
        """Do both sides agree?"""
        return self.call("verify").code == 0

    def state(self) -> str:
        """The state of the map."""
        return self.call("status", "--json").json()["maps"][0]["state"]

    @contextmanager
    def engine(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """An engine that runs in another process, and is at work."""
        process = self.start("run", *arguments)
        try:
            self.until(lambda: self.running(process))
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def running(self, process: subprocess.Popen[str]) -> bool:
        """Has the engine come to its work?"""
        assert process.poll() is None, process.communicate()
        found = self.call("status", "--json").json()
        return found["engine"] is not None and all(each["state"] == "running" for each in found["maps"])


class Shop(Project):
    """Two databases and a project on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Create the databases and the project in the folder."""
        super().__init__(folder, capsys, monkeypatch)
        self.left, self.right = folder / "erp.db", folder / "crm.db"
        self.map = folder / "maps" / "customers.yaml"
        for file, script in ((self.left, LEFT), (self.right, RIGHT)):
            self.make(file, script)
        self.map.parent.mkdir()
        self.map.write_text(MAP)
        (folder / "dualwrite.yaml").write_text(SETTINGS)

    @staticmethod
    def make(file: Path, script: str) -> None:
        """A new database."""
        with closing(sqlite3.connect(file)) as database:
            database.executescript(script)

    def sql(self, file: Path, statement: str, *values: object) -> list[tuple]:
        """What an application does: its own connection, plain SQL."""
        with closing(sqlite3.connect(file, timeout=PATIENCE)) as database, database:
            return database.execute(statement, values).fetchall()

    def lefts(self) -> dict[str, tuple]:
        """The left records by account."""
        rows = self.sql(self.left, "SELECT account, name, credit, status FROM customers")
        return {account: rest for account, *rest in map(tuple, rows)}

    def rights(self) -> dict[str, tuple]:
        """The right records by number."""
        rows = self.sql(self.right, "SELECT number, title, creditlimit, state FROM accounts")
        return {number: rest for number, *rest in map(tuple, rows)}

    def traces(self, file: Path) -> list[str]:
        """Everything in a database that is not the application's, apart from SQLite's own tables."""
        rows = self.sql(file, "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite#_%' ESCAPE '#'")
        return [name for (name,) in rows if name not in ("customers", "accounts")]


class Pair(Project):
    """Two databases, PostgreSQL's or SQLite files, and a project on them."""

    def __init__(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        urls: Mapping[str, str],
        maps: Mapping[str, str],
    ) -> None:
        """Create the project; ``maps`` are texts by name."""
        (folder / "maps").mkdir(parents=True)
        super().__init__(folder, capsys, monkeypatch)
        sides = "".join(f"{side}: {{name: {side}, url: {json.dumps(url)}}}\n" for side, url in urls.items())
        (folder / "dualwrite.yaml").write_text(f"link: {folder.name}\n{sides}")
        for name, text in maps.items():
            (folder / "maps" / f"{name}.yaml").write_text(text)


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in an empty folder."""
    monkeypatch.setenv("COLUMNS", "160")
    return Terminal(tmp_path, capsys, monkeypatch)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop whose link has never run."""
    monkeypatch.setenv("COLUMNS", "160")
    return Shop(tmp_path, capsys, monkeypatch)


@pytest.fixture
def pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, str], Mapping[str, str]], Pair]:
    """Makes a project on two databases, of their urls by side and the texts of maps by name."""
    monkeypatch.setenv("COLUMNS", "160")
    numbers = count(1)

    def make(urls: Mapping[str, str], maps: Mapping[str, str]) -> Pair:
        folder = tmp_path / f"link{next(numbers)}"
        folder.mkdir()
        return Pair(folder, capsys, monkeypatch, urls, maps)

    return make


@pytest.fixture(scope="session", params=["default", "debian"])
def each_postgresql(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that all tests use, and Debian's PostgreSQL 15 where it is installed."""
    if request.param == "default":
        yield request.getfixturevalue("postgresql")
        return
    if not DEBIAN.exists() or programs() == DEBIAN:
        pytest.skip("Debian's PostgreSQL 15 is not installed, or is the default")
    server = Server(programs=DEBIAN)
    try:
        server.start()
        yield server
    finally:
        server.remove()
