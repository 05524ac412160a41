"""pgbench's own tables under pgbench's own load, on both sides at once.

``pgbench_history`` is left out: its rows have no key, so nobody could tell two of them apart.  Each side's history thus
tells what was done on that side, and both together what every balance has to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Database, Server, programs

PATIENCE = 3600.0
SETTINGS = """\
link: bench
left: {{name: left, url: "{left}"}}
right: {{name: right, url: "{right}"}}
"""
MAP = """\
map: {name}
left: pgbench_{name}
right: pgbench_{name}
key: [{key}]
columns:
  - {key} = {key}
{more}  - {balance} = {balance}: {{conflict: sum}}
  - filler = filler
"""
TABLES = {
    "branches": ("bid", "bbalance", ""),
    "tellers": ("tid", "tbalance", "  - bid = bid\n"),
    "accounts": ("aid", "abalance", "  - bid = bid\n"),
}
"""Per table its key, its balance, and the lines of its map for what else it has."""


class Bank:
    """Two databases and a project on them."""

    def __init__(self, folder: Path, databases: Mapping[Side, Database], scale: int) -> None:
        """Fill the left side; the right one has the tables only."""
        self.folder = folder
        self.databases = databases
        self.seconds: dict[str, float] = {}
        self.bench(Side.LEFT, "--initialize", "--quiet", f"--scale={scale}")
        self.bench(Side.RIGHT, "--initialize", "--quiet", "--init-steps=dtp", f"--scale={scale}")
        (folder / "maps").mkdir()
        urls = {str(side): database.url for side, database in databases.items()}
        (folder / "dualwrite.yaml").write_text(SETTINGS.format(**urls))
        for name, (key, balance, more) in TABLES.items():
            text = MAP.format(name=name, key=key, balance=balance, more=more)
            (folder / "maps" / f"{name}.yaml").write_text(text)

    def bench(self, side: Side, *options: str) -> str:
        """Run pgbench against a side; returns what it says."""
        return self._said([str(programs() / "pgbench"), *options, self.databases[side].url])

    def call(self, *words: str) -> str:
        """A command of dualwrite; returns what it says."""
        start = time.monotonic()
        said = self._said([sys.executable, "-m", "dualwrite.cli", *words, "-C", str(self.folder)])
        self.seconds[words[0]] = time.monotonic() - start
        return said

    @staticmethod
    def _said(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def engine(self) -> Iterator[subprocess.Popen[bytes]]:
        """An engine in a process of its own."""
        log = (self.folder / "log").open("wb")
        command = [sys.executable, "-m", "dualwrite.cli", "run", "-C", str(self.folder)]
        with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(PATIENCE)

    def load(self, *options: str) -> list[str]:
        """pgbench on both sides at once."""
        command = [str(programs() / "pgbench"), "--no-vacuum", *options]
        running = [
            subprocess.Popen(
                [*command, f"--random-seed={seed}", database.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for seed, database in enumerate(self.databases.values())
        ]
        said = [process.communicate(timeout=PATIENCE)[0] for process in running]
        assert not any(process.returncode for process in running), said
        return said

    def balances(self, side: Side, name: str) -> dict[int, int]:
        """What a side holds; zeros left out."""
        key, balance, _ = TABLES[name]
        return dict(
            self.databases[side].run(f"SELECT {key}, {balance} FROM pgbench_{name} WHERE {balance} <> 0")  # type: ignore[arg-type]
        )

    def history(self, name: str) -> dict[int, int]:
        """What both sides' histories say; zeros left out."""
        key, _, _ = TABLES[name]
        found: dict[int, int] = {}
        for database in self.databases.values():
            for record, delta in database.run(f"SELECT {key}, sum(delta)::bigint FROM pgbench_history GROUP BY {key}"):
                found[record] = found.get(record, 0) + delta
        return {record: total for record, total in found.items() if total}

    def in_step(self, transactions: int) -> None:
        """Both sides hold what both histories say."""
        counts = [database.run("SELECT count(*) FROM pgbench_history") for database in self.databases.values()]
        assert counts == [[(transactions,)], [(transactions,)]]
        for name in TABLES:
            wanted = self.history(name)
            assert wanted
            assert self.balances(Side.LEFT, name) == wanted
            assert self.balances(Side.RIGHT, name) == wanted


@pytest.fixture
def databases(postgresql: Server) -> Iterator[dict[Side, Database]]:
    """The two sides."""
    with ExitStack() as stack:
        yield {side: stack.enter_context(postgresql.database()) for side in Side}


def test_pgbench_on_both_sides(databases: dict[Side, Database], tmp_path: Path) -> None:
    """100,000 accounts come over; then every balance is what the transactions of both sides together make it."""
    bank = Bank(tmp_path, databases, scale=1)
    bank.call("run", "--until-idle")
    with bank.engine() as engine:
        bank.load("--client=2", "--transactions=300")
        assert engine.poll() is None
    bank.call("run", "--until-idle")
    bank.call("verify")
    bank.in_step(600)
    assert "bypassed" not in (tmp_path / "log").read_text()


@pytest.mark.soak
def test_pgbench_at_scale_10(
    databases: dict[Side, Database], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with 1,000,000 accounts and as much load as the server takes."""
    bank = Bank(tmp_path, databases, scale=10)
    bank.call("run", "--until-idle")
    first = bank.seconds["run"]
    clients, transactions = 4, int(os.environ.get("DUALWRITE_PGBENCH_TRANSACTIONS", "5000"))
    with bank.engine():
        start = time.monotonic()
        said = bank.load(f"--client={clients}", f"--transactions={transactions}")
        loaded = time.monotonic() - start
    bank.call("run", "--until-idle")
    behind = bank.seconds["run"]
    bank.call("verify")
    bank.in_step(clients * transactions)
    with capsys.disabled():
        rates = [line for each in said for line in each.splitlines() if line.startswith(("tps", "latency average"))]
        print(
            f"\ninitial sync {first:.1f} s; load {loaded:.1f} s; catching up {behind:.1f} s; "
            f"verify {bank.seconds['verify']:.1f} s; {'; '.join(rates)}"
        )
