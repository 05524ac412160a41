"""The tables that are measured: 20 columns of a customer, on two sides that name and type them differently."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

TEXTS = 12
NUMBERS = 4
FLAGS = 3
LEFT_COLUMNS = (
    "ACCOUNT",
    *(f"TEXT{n}" for n in range(TEXTS)),
    *(f"AMOUNT{n}" for n in range(NUMBERS)),
    *(f"FLAG{n}" for n in range(FLAGS)),
)
RIGHT_COLUMNS = ("accountnumber", *(name.lower() for name in LEFT_COLUMNS[1:]))

LEFT = f"""
CREATE TABLE customers (ACCOUNT VARCHAR(20) PRIMARY KEY NOT NULL,
  {", ".join(f"TEXT{n} VARCHAR(60)" for n in range(TEXTS))},
  {", ".join(f"AMOUNT{n} DECIMAL(18,2)" for n in range(NUMBERS))},
  {", ".join(f"FLAG{n} VARCHAR(3)" for n in range(FLAGS))});
"""
RIGHT = f"""
CREATE TABLE accounts (accountid TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
  accountnumber VARCHAR(20) NOT NULL UNIQUE,
  {", ".join(f"text{n} VARCHAR(60)" for n in range(TEXTS))},
  {", ".join(f"amount{n} DECIMAL(18,2)" for n in range(NUMBERS))},
  {", ".join(f"flag{n} BOOLEAN" for n in range(FLAGS))});
"""
MAP = "\n".join(
    [
        "map: customers",
        "left: customers",
        "right: accounts",
        "key: [accountnumber]",
        "columns:",
        *(f"  - {left} = {right}" for left, right in zip(LEFT_COLUMNS[:-FLAGS], RIGHT_COLUMNS[:-FLAGS], strict=True)),
        *(f"  - FLAG{n} >< flag{n}: {{values: {{no: false, yes: true}}}}" for n in range(FLAGS)),
        "",
    ]
)
PROJECT = """link: bench
left: {name: left, url: "sqlite:///left.db"}
right: {name: right, url: "sqlite:///right.db"}
"""
MAPPED_BY_SQL = f"""
INSERT INTO there.accounts ({", ".join(RIGHT_COLUMNS)})
SELECT {", ".join(LEFT_COLUMNS[:-FLAGS])},
  {", ".join(f"CASE FLAG{n} WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END" for n in range(FLAGS))}
FROM customers
"""


def rows(count: int, seed: int = 1) -> Iterator[tuple[str | float, ...]]:
    """Rows of the left table."""
    dice = random.Random(seed)
    words = [f"word {dice.random():.12f} of some length"[: dice.randint(5, 40)] for _ in range(5_000)]
    for number in range(count):
        texts = [words[dice.randrange(5_000)] for _ in range(TEXTS)]
        amounts = [round(dice.random() * 100_000, 2) for _ in range(NUMBERS)]
        yield (f"C{number:08d}", *texts, *amounts, *(("yes", "no")[dice.randrange(2)] for _ in range(FLAGS)))


def build(folder: Path, count: int) -> tuple[Path, Path]:
    """A project in a new folder; the left table has ``count`` rows, the right one none."""
    (folder / "maps").mkdir(parents=True)
    (folder / "dualwrite.yaml").write_text(PROJECT)
    (folder / "maps" / "customers.yaml").write_text(MAP)
    files = folder / "left.db", folder / "right.db"
    for file, script in zip(files, (LEFT, RIGHT), strict=True):
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(script)
            if file == files[0]:
                with database:
                    marks = ", ".join("?" * len(LEFT_COLUMNS))
                    database.executemany(f"INSERT INTO customers VALUES ({marks})", rows(count))
    return files


def copy_by_sql(left: Path, right: Path) -> None:
    """The limit: SQLite itself copies with the same mapping."""
    with closing(sqlite3.connect(left, isolation_level=None)) as database:
        database.execute("ATTACH ? AS there", (str(right),))
        database.execute("PRAGMA there.synchronous = FULL")
        database.execute("BEGIN")
        database.execute(MAPPED_BY_SQL)
        database.execute("COMMIT")
