"""Builds the demo's folder: two databases that have grown apart, and the project that brings them together."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random

from dualwrite.demo.counterparts import COUNTERPARTS, Counterpart
from dualwrite.demo.people import COMPANIES, Author
from dualwrite.demo.reference import HERE, Record, Value, written_down

LEFT, RIGHT = "finops.db", "crm.db"
_Row = tuple[str, dict[str, Value]]
_Ids = dict[tuple[str, tuple[Value, ...]], str]


def build(folder: Path, *, customers: int = 5000, seed: int = 1) -> None:
    """Create both databases afresh in the folder (and the folder, if need be), and copy the project beside them.

    Databases that are already there are replaced, project files overwritten.  The same arguments give the same content.
    """
    made = records(customers, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _create(folder / LEFT, "finops.sql", _left_rows(made))
    _create(folder / RIGHT, "crm.sql", _right_rows(made, Random(seed)))
    shutil.copytree(HERE / "project", folder, dirs_exist_ok=True)


def records(customers: int, seed: int) -> list[Record]:
    """All records of both sides.

    ``customers`` counts those of both companies on both sides together, organizations and persons; the few that
    ``reference.toml`` names are always among them.
    """
    written = written_down()
    author = Author(seed, written)
    return [
        *written,
        *(record for company in COMPANIES for record in author.vendors(company)),
        *author.named_customers(),
        *author.customers(customers),
        *author.strangers(),
    ]


def _create(path: Path, script: str, rows: Iterable[_Row]) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript((HERE / script).read_text(encoding="utf-8"))
        with database:
            _insert(database, rows)


def _insert(database: sqlite3.Connection, rows: Iterable[_Row]) -> None:
    """Write rows, those with the same columns together; columns that a row does not name keep their default."""
    alike: dict[tuple[str, tuple[str, ...]], list[tuple[Value, ...]]] = {}
    for table, row in rows:
        alike.setdefault((table, tuple(row)), []).append(tuple(row.values()))
    for (table, columns), values in alike.items():
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        database.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', values)  # noqa: S608 - our own names


def _left_rows(made: Iterable[Record]) -> Iterable[_Row]:
    return ((record.left, dict(record.values)) for record in made if record.sides != "right")


def _right_rows(made: Iterable[Record], random: Random) -> list[_Row]:
    there = [(record, f"{random.getrandbits(128):032x}") for record in made if record.sides != "left"]
    ids: _Ids = {(record.right, _key(record)): id for record, id in there}
    return [(record.right, _right_row(record, id, ids)) for record, id in there]


def _key(record: Record) -> tuple[Value, ...]:
    counterpart = COUNTERPARTS[record.right]
    members = ("DATAAREAID", *counterpart.key) if counterpart.company else counterpart.key
    return tuple(record.values.get(member) for member in members)


def _right_row(record: Record, id: str, ids: _Ids) -> dict[str, Value]:
    counterpart = COUNTERPARTS[record.right]
    said = {**counterpart.fixed, **_said(record, counterpart), **record.instead}
    company = record.values.get("DATAAREAID")
    row: dict[str, Value] = {counterpart.id: id}
    if company is not None:
        row["msdyn_company"] = ids["cdm_companies", (company,)]
    return row | {column: _translated(counterpart, column, value, company, ids) for column, value in said.items()}


def _said(record: Record, counterpart: Counterpart) -> Mapping[str, Value]:
    sources = {
        column: meaning if isinstance(meaning, str) else meaning[0] for column, meaning in counterpart.columns.items()
    }
    return {column: record.values[source] for column, source in sources.items() if source in record.values}


def _translated(counterpart: Counterpart, column: str, value: Value, company: Value, ids: _Ids) -> Value:
    """A value as the right side holds it: the number of a choice, the id of a looked-up record, null for no text."""
    meaning = counterpart.columns.get(column, "")
    if value is None or value == "":
        return None
    if isinstance(meaning, str):
        return value
    target = meaning[1]
    if isinstance(target, str):
        return ids[target, (company, value) if COUNTERPARTS[target].company else (value,)]
    return target[str(value)]
