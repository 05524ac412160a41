"""Many clients that commit single rows on both sides of two PostgreSQL databases."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.servers import Database, program


@dataclass(frozen=True)
class Tables:
    """The table of each side, and its key."""

    left: tuple[str, str]
    right: tuple[str, str]


NATIVE = Tables(("customers", "account"), ("customers", "account"))
OURS = Tables(("customers", "account"), ("accounts", "accountnumber"))
CLIENTS = 4
"""On each side."""
PROBES = 0.02
"""Seconds between two changes whose way is timed."""


def _start(database: Database, table: tuple[str, str], keys: range, seconds: int, rate: int) -> subprocess.Popen[str]:
    """Clients that update random ones of these records; each side has records of its own."""
    name, key = table
    script = Path(database.server.folder) / "script.sql"
    script.write_text(
        f"\\set n random({keys[0]}, {keys[-1]})\n\\set word random(1, 1000000000)\n"
        f"UPDATE {name} SET text2 = 'word ' || :word WHERE {key} = 'C' || lpad(:n::text, 8, '0');\n"
    )
    limited = ["-R", str(rate)] if rate else []
    command = [program("pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-T", str(seconds), *limited]
    return subprocess.Popen(
        [*command, "-f", str(script), database.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _commits(process: subprocess.Popen[str]) -> int:
    output, _ = process.communicate()
    label = "number of transactions actually processed: "
    found = [line.removeprefix(label) for line in output.splitlines() if line.startswith(label)]
    if not found:
        raise SystemExit(output)
    return int(found[0].split("/")[0])


def _both(
    left: Database, right: Database, tables: Tables, count: int, seconds: int, rate: int
) -> Sequence[subprocess.Popen[str]]:
    middle = count // 2
    return (
        _start(left, tables.left, range(10, middle), seconds, rate),
        _start(right, tables.right, range(middle, count), seconds, rate),
    )


def burst(left: Database, right: Database, tables: Tables, count: int, seconds: int) -> tuple[float, float]:
    """Commits a second that both sides write, and that arrive: until what was written last is on the other side."""
    began = time.perf_counter()
    commits = sum(map(_commits, _both(left, right, tables, count, seconds, 0)))
    written = time.perf_counter() - began
    (here, here_key), (there, there_key) = tables.left, tables.right
    left.run(f"UPDATE {here} SET text3 = 'the last' WHERE {here_key} = 'C00000002'")
    right.run(f"UPDATE {there} SET text3 = 'the last' WHERE {there_key} = 'C00000003'")
    right.wait(f"SELECT text3 FROM {there} WHERE {there_key} = 'C00000002'", "the last")
    left.wait(f"SELECT text3 FROM {here} WHERE {here_key} = 'C00000003'", "the last")
    arrived = time.perf_counter() - began
    texts = "SELECT md5(string_agg({1} || text2, ',' ORDER BY {1})) FROM {0}"
    assert left.run(texts.format(*tables.left)) == right.run(texts.format(*tables.right))
    return commits / written, commits / arrived


def latencies(left: Database, right: Database, tables: Tables, count: int, seconds: int) -> list[float]:
    """Seconds from the ends of commits to the moments at which they are seen on the other side, at 500 commits/s."""
    load = _both(left, right, tables, count, seconds, 250)
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        ways = (
            pool.submit(_probe, left, right, tables.left, tables.right, 4, stop),
            pool.submit(_probe, right, left, tables.right, tables.left, 5, stop),
        )
        for each in load:
            _commits(each)
        stop.set()
        return [one for way in ways for one in way.result()]


def _probe(
    source: Database,
    target: Database,
    here: tuple[str, str],
    there: tuple[str, str],
    number: int,
    stop: threading.Event,
) -> list[float]:
    found = []
    write = f"UPDATE {here[0]} SET text4 = %s WHERE {here[1]} = 'C{number:08d}'".encode()
    read = f"SELECT text4 FROM {there[0]} WHERE {there[1]} = 'C{number:08d}'".encode()
    with source.server.connect(source.name) as writer, target.server.connect(target.name) as reader:
        while not stop.wait(PROBES):
            word = f"probe {time.perf_counter()}"
            writer.execute(write, [word])
            began = time.perf_counter()
            while (row := reader.execute(read, prepare=True).fetchone()) is None or row[0] != word:
                time.sleep(0.001)
            found.append(time.perf_counter() - began)
    return found[len(found) // 10 :]  # the first ones find everything cold
