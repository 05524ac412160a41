"""What tests of several folders share: a PostgreSQL server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dualwrite.testing.postgresql import Database, Server

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it in its workers; what is printed here goes into no terminal


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server, the same for all tests; each takes a database of its own from it."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database(postgresql: Server) -> Iterator[Database]:
    """A fresh, empty database."""
    with postgresql.database() as database:
        yield database
