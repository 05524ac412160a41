"""Many new records straight into a table by COPY, where a unique index refuses those that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

import psycopg

from dualwrite.connectors._pg_ledger import Ledger
from dualwrite.connectors._pg_refusal import refusal
from dualwrite.connectors._pg_schema import Facts
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._pg_statements import Target
from dualwrite.connectors._pg_trip import go_ahead
from dualwrite.connectors._sql import names
from dualwrite.lined import PIECE, BadTextError, Lined, text_of
from dualwrite.model import ABSENT, Row


def goes_straight(ledger: Ledger, target: Target) -> bool:
    """Can COPY be tried: nobody else acts on the rows, and none was met that was there already?"""
    facts = target.plan.facts
    acts = facts.rules or any(each.before and "insert" in each.events for each in facts.triggers)
    return not acts and ledger.may_go_straight(target.view)


def load(connection: Connection, database: Database, ledger: Ledger, target: Target, rows: Sequence[Row]) -> bool:
    """Insert rows of the target's view, all or none; False where they are to be looked at one by one."""
    if target.lookups or not goes_straight(ledger, target):
        return False
    places = rows.cells if isinstance(rows, Lined) else _known(target, rows[0])
    if not _are_simple(target, places):
        return False
    pieces = _lines(target, rows) if isinstance(rows, Lined) else _texts(target, rows, places)
    if pieces is None:
        return False
    columns = [target.cells[place].column.name for place in places]
    try:
        done = copied_in(connection, database, target.plan.facts, columns, pieces, len(rows))
    except BadTextError:
        return False
    if not done:
        ledger.has_met(target.view)
    return done


def _known(target: Target, row: Row) -> tuple[int, ...]:
    """The cells that a row speaks of."""
    return tuple(place for place in target.flats if row[place] is not ABSENT)


def _are_simple(target: Target, places: tuple[int, ...]) -> bool:
    """Can these cells be written as they come, and do they hold all that decides about a record's key?"""
    if not set(target.view.key) <= set(places) <= set(target.flats):
        return False
    columns = [target.cells[place].column for place in places]
    held, is_unique = target.key_columns
    is_whole = is_unique and held <= {column.name for column in columns}
    return is_whole and not any(column.read_only or column.empty_is_null for column in columns)


def _lines(target: Target, rows: Lined) -> Iterator[bytes]:
    """The lines as they are; raises BadTextError where a member of a key is empty."""
    for piece in rows.pieces():
        if not all(map(piece.fills, target.view.key)):
            raise BadTextError("a key that says nothing")
        yield piece.text


def _texts(target: Target, rows: Sequence[Row], places: tuple[int, ...]) -> Iterator[bytes] | None:
    """The lines that these cells make, each piece while the server takes in those before it.

    None where a row sets others as well, or a member of a key is empty.
    """
    cells = _cells(rows, places)
    keys = [places.index(place) for place in target.view.key]
    if cells is None or not all(all(map(itemgetter(key), cells)) for key in keys):
        return None
    return (text_of(cells[start : start + PIECE]) for start in range(0, len(cells), PIECE))


def _cells(rows: Sequence[Row], places: tuple[int, ...]) -> Sequence[Row] | None:
    """These cells of all rows; None where a row sets others as well."""
    width = len(rows[0])
    if places == tuple(range(width)):
        return rows
    others = set(range(width)).difference(places)
    if any(set(map(itemgetter(place), rows)) != {ABSENT} for place in others):
        return None
    take: Callable[[Row], Row] = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
    return list(map(take, rows))


def copied_in(
    connection: Connection,
    database: Database,
    facts: Facts,
    columns: Iterable[str],
    pieces: Iterator[bytes],
    count: int,
) -> bool:
    """Copy lines in; False, with nothing done, where they were refused or not all of them were taken.

    Raises BadTextError, as well with nothing done, where the pieces do.
    """
    go_ahead(connection)
    execute = connection.execute
    execute("SAVEPOINT dualwrite_rows")
    complete = False
    try:
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {facts.sql} ({names(columns)}) FROM STDIN".encode()) as copy:
                for piece in pieces:
                    copy.write(piece)
            complete = cursor.rowcount == count
    except psycopg.Error as exc:
        if refusal(exc, database) is None:
            raise
    except BadTextError:
        execute("ROLLBACK TO dualwrite_rows")
        execute("RELEASE dualwrite_rows")
        raise
    if not complete:
        execute("ROLLBACK TO dualwrite_rows")
    execute("RELEASE dualwrite_rows")
    return complete
