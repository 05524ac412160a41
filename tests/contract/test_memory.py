"""The contract, kept by the in-memory system: with references that may dangle, and with enforced ones."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from dualwrite.connectors.base import Connector
from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase, User
from dualwrite.model import Kind
from dualwrite.testing.contract import ConnectorContract
from dualwrite.testing.example import ACTIONS, DECLARED, SCHEMA


class MemorySystem:
    """A memory database with the example's tables."""

    def __init__(self, actions, features) -> None:
        """Create the database."""
        self.database = MemoryDatabase(SCHEMA, "example", actions)
        self.features = frozenset({"length", "trigger", "links", *features})

    def connector(self, link: str = "contract") -> Connector:
        """See ``System``."""
        return MemoryConnector(self.database, link, DECLARED)

    def user(self) -> AbstractContextManager[User]:
        """See ``System``."""
        return self.database.user()

    def add_trigger(self) -> None:
        """See ``System``."""
        self.database.trigger("item", _capitals)

    def crash(self, connector: Connector) -> None:
        """See ``System``: a client that is gone is what a database sees of a closed one."""
        connector.close()

    def traces(self) -> list[str]:
        """See ``System``."""
        return list(self.database.links)


def _capitals(user: User, _kind: Kind, _old, new) -> None:
    if new:
        user.update("item", {"id": new["id"]}, {"name": new["name"].upper()})


class TestMemory(ConnectorContract):
    """A database that does not enforce references."""

    @pytest.fixture
    def system(self) -> MemorySystem:
        """References may dangle."""
        return MemorySystem({}, {"dangling"})


class TestMemoryWithReferences(ConnectorContract):
    """A database that enforces references."""

    @pytest.fixture
    def system(self) -> MemorySystem:
        """Deleting a record clears, or is refused by, what refers to it."""
        return MemorySystem(ACTIONS, {"restrict", "set null"})
