"""The examiner of connectors: every promise of ``connectors.base`` as tests that any system can run.

Whoever writes a connector subclasses ``ConnectorContract`` in a test module and gives it a fixture ``system``, a fresh
``example.System`` for each test::

    class TestOurs(ConnectorContract):
        @pytest.fixture
        def system(self, tmp_path):
            return OurSystem(tmp_path)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dualwrite.testing.contract_commit import CommitContract
from dualwrite.testing.contract_feed import FeedContract
from dualwrite.testing.contract_lookups import LookupContract
from dualwrite.testing.contract_read import ReadContract
from dualwrite.testing.contract_write import WriteContract
from dualwrite.testing.example import Example, System


class ConnectorContract(ReadContract, FeedContract, WriteContract, CommitContract, LookupContract):
    """Everything that the engine relies on."""

    @pytest.fixture
    def system(self) -> System:
        """The system under test: fresh and empty."""
        raise NotImplementedError("give the test class a fixture `system`")

    @pytest.fixture
    def example(self, system: System) -> Iterator[Example]:
        """The system with its capture installed."""
        example = Example(system)
        yield example
        example.connector.close()
