"""Many rows at once in COPY's text format, out of PostgreSQL and into it.

What COPY writes of a value is the value's text, with backslashes before what would end a cell or a line, and ``\\N``
for null.  Rows are taken apart and put together by few operations on long texts, with a second look only where a
backslash is: a value in a cell must never be taken for a part of the format, nor a part of the format for a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from selectors import EVENT_READ, DefaultSelector
from typing import Final

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus

from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_values import BadTextError, copy_lines, encoded
from dualwrite.model import Cell, Row, Value

_SQLSTATE: Final = DiagnosticField.SQLSTATE
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_MEANT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def copied_out(connection: Connection, query: str, size: int) -> Iterator[list[bytes]]:
    """The lines of a query's rows, in blocks; the server reads ahead while a block is worked on.

    To be read to its end, or the session is of no use any more.
    """
    pgconn = connection.pgconn
    begun = pgconn.exec_(f"COPY ({query}) TO STDOUT".encode())
    if begun.status != ExecStatus.COPY_OUT:
        raise _error(begun.error_field(_SQLSTATE), begun.error_message)
    lines: list[bytes] = []
    with DefaultSelector() as selector:
        selector.register(pgconn.socket, EVENT_READ)
        while True:
            length, line = pgconn.get_copy_data(1)
            if length > 0:
                lines.append(bytes(line))
                if len(lines) >= size:
                    yield lines
                    lines = []
            elif length == 0:
                selector.select()
                pgconn.consume_input()
            else:
                break
    _finish(connection)
    if lines:
        yield lines


def _finish(connection: Connection) -> None:
    """Take the end of a COPY; raises what has cut it off."""
    while (result := connection.pgconn.get_result()) is not None:
        if result.status != ExecStatus.COMMAND_OK:
            raise _error(result.error_field(_SQLSTATE), result.error_message)


def _error(state: bytes | None, words: bytes) -> psycopg.Error:
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup("" if state is None else state.decode())
    except KeyError:
        kind = psycopg.OperationalError
    return kind(words.decode(errors="replace").strip())


def rows_of(lines: Sequence[bytes], width: int) -> list[Row]:
    """The rows of such lines, each of so many cells."""
    text = b"".join(lines).decode()
    cells: list[Value] = text.replace("\n", "\t").split("\t")  # type: ignore[assignment]  # a list of texts is one of values
    cells.pop()  # behind the last line
    if "\\" in text:
        cells = [None if cell == r"\N" else _meant(cell) if "\\" in cell else cell for cell in cells]  # type: ignore[operator,arg-type]  # they are texts still
    return list(zip(*[iter(cells)] * width, strict=True))


def _meant(cell: str) -> str:
    return _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), cell)


def lines_of(rows: Sequence[Row]) -> bytes:
    """The lines of these rows (at least one cell each), to be copied in; raises BadTextError, also for ABSENT."""
    try:
        text, nulls = _joined(rows), 0
    except TypeError:  # something is no text
        nulls = sum([row.count(None) for row in rows])
        try:
            text = _joined([["\0N" if cell is None else cell for cell in row] for row in rows])
        except TypeError:
            raise BadTextError("a cell that is not known") from None
    plain = (
        text.count("\n") == len(rows)
        and text.count("\t") == len(rows) * (len(rows[0]) - 1)
        and text.count("\0") == nulls
        and "\\" not in text
        and "\r" not in text
    )
    if not plain:
        return copy_lines(list(zip(*rows, strict=True)))  # nothing is ABSENT
    return encoded(text.replace("\0", "\\") if nulls else text)


def _joined(rows: Sequence[Sequence[Cell]]) -> str:
    """Fails where a cell is no text."""
    return "\n".join([*map("\t".join, rows), ""])  # type: ignore[arg-type]  # so it does
