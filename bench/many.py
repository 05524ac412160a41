"""A link with a hundred maps: what it costs while nothing happens, and how late changes are while much does."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.report import latencies
from dualwrite.engine.lifecycle import RUNNING
from dualwrite.journal import Journal

MAPS = 100
ROWS = 100
IDLE = 20.0
"""Seconds for which nothing happens."""
TICK = os.sysconf("SC_CLK_TCK")


def build(folder: Path) -> None:
    """A hundred pairs of tables that agree, and a map for each."""
    (folder / "maps").mkdir(parents=True)
    urls = [f'{side}: {{name: {side}, url: "sqlite:///{side}.db"}}' for side in ("left", "right")]
    (folder / "dualwrite.yaml").write_text("\n".join(["link: many", *urls, ""]))
    for side in ("left", "right"):
        with closing(sqlite3.connect(folder / f"{side}.db")) as database, database:
            for number in range(MAPS):
                table = f"{side}{number}"
                database.execute(f"CREATE TABLE {table} (code TEXT PRIMARY KEY NOT NULL, name TEXT, a TEXT, b TEXT)")
                rows = ((f"C{row}", "name", "a", "b") for row in range(ROWS))
                database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)
    for number in range(MAPS):
        columns = "".join(f"  - {name} = {name}\n" for name in ("code", "name", "a", "b"))
        text = f"map: m{number}\nleft: left{number}\nright: right{number}\ncolumns:\n{columns}"
        (folder / "maps" / f"m{number}.yaml").write_text(text)


@contextmanager
def engine(folder: Path) -> Iterator[int]:
    """``dualwrite run``; its process id."""
    command = [sys.executable, "-m", "dualwrite.cli", "run"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while "Ctrl-C" not in (line := process.stdout.readline()):
            if not line:
                raise SystemExit("the engine has ended")
        yield process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def processor(process: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def until_all_run(folder: Path) -> None:
    """Wait for the initial syncs of all maps."""
    with Journal.open(folder) as journal:
        while any(state.state != RUNNING for state in journal.states().values()):
            time.sleep(0.05)


def many(folder: Path) -> None:
    """Idle, then single commits, then the same while all maps are busy."""
    build(folder)
    left = folder / "left.db"
    with engine(folder) as process:
        until_all_run(folder)
        latency(folder)
        began, used = time.monotonic(), processor(process)
        time.sleep(IDLE)
        share = (processor(process) - used) / (time.monotonic() - began)
        print(f"{f'{MAPS} maps, nothing happens':<48} {share:>8.1%} of a processor", flush=True)
        latencies(f"{MAPS} maps, single-row commits", [latency(folder) for _ in range(200)])
        began, used, found, commits = time.monotonic(), processor(process), [], 0
        with closing(sqlite3.connect(left, timeout=60, isolation_level=None)) as writer:
            while time.monotonic() - began < IDLE:
                for number in range(MAPS):
                    word = f"load {commits}"
                    writer.execute(f"UPDATE left{number} SET a = ? WHERE code = ?", (word, f"C{commits % ROWS}"))
                    commits += 1
                    time.sleep(0.002)
                found.append(latency(folder))
        seconds = time.monotonic() - began
        share = (processor(process) - used) / seconds
        note = f"beside {commits / seconds:,.0f} commits/s over all maps, {share:.0%} of a processor"
        latencies(f"{MAPS} maps under load", found, note)


def latency(folder: Path) -> float:
    """Seconds from a commit in any of the maps to the moment at which it is seen on the other side."""
    number, word = random.randrange(MAPS), f"{random.random()}"
    with (
        closing(sqlite3.connect(folder / "right.db")) as reader,
        closing(sqlite3.connect(folder / "left.db", timeout=60)) as writer,
    ):
        with writer:
            writer.execute(f"UPDATE left{number} SET b = ? WHERE code = 'C1'", (word,))
        began = time.perf_counter()
        while reader.execute(f"SELECT b FROM right{number} WHERE code = 'C1'").fetchone()[0] != word:
            time.sleep(0.0005)
        return time.perf_counter() - began
