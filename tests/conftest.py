"""What tests of several folders share: a PostgreSQL server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from dualwrite.testing.postgresql import Database, Server

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it in its workers; what is printed here goes into no terminal


# How fast examples come is the machine's matter: a busy one must not fail a test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

FIRST = ("tests/fault/test_kill.py", "tests/fault/test_postgresql_kill.py", "tests/fault/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that nobody waits for them alone at the end."""
    items.sort(key=lambda item: next((n for n, path in enumerate(FIRST) if item.nodeid.startswith(path)), len(FIRST)))


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
