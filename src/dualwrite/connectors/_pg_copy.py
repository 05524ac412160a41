"""Many rows at once out of PostgreSQL, as lines of text (``lined``)."""

from __future__ import annotations

from collections.abc import Iterator
from selectors import EVENT_READ, DefaultSelector
from typing import Final

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus

from dualwrite.connectors._pg_session import Connection

_ROOM: Final = 1 << 20
"""Bytes from which on fewer lines make a block."""
_SQLSTATE: Final = DiagnosticField.SQLSTATE


def copied_out(connection: Connection, query: str, size: int) -> Iterator[list[bytes]]:
    """The lines of a query's rows, in blocks of ``size`` lines, or fewer large ones; the server reads ahead while a
    block is worked on.

    To be read to its end, or the session is of no use any more.
    """
    pgconn = connection.pgconn
    begun = pgconn.exec_(f"COPY ({query}) TO STDOUT".encode())
    if begun.status != ExecStatus.COPY_OUT:
        raise _error(begun.error_field(_SQLSTATE), begun.error_message)
    lines: list[bytes] = []
    room = _ROOM
    take = pgconn.get_copy_data
    with DefaultSelector() as selector:
        selector.register(pgconn.socket, EVENT_READ)
        while True:
            for _ in range(size - len(lines)):
                length, line = take(1)
                if length <= 0:
                    break
                lines.append(line.tobytes())
                room -= length
                if room <= 0:
                    break
            if length > 0:
                yield lines
                lines, room = [], _ROOM
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
