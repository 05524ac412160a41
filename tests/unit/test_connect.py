"""Connectors are found by the scheme of a url; what cannot be found or loaded is told."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from dualwrite.connectors import connect
from dualwrite.errors import Usage
from dualwrite.model import Side

URL = "postgresql://me@host/db"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a fresh process: nothing of the connector for PostgreSQL has been imported."""
    for name in list(sys.modules):
        if name.startswith(("dualwrite.connectors._pg_", "dualwrite.connectors.postgresql", "psycopg")):
            monkeypatch.delitem(sys.modules, name)
    return monkeypatch


def test_a_missing_extra_is_named(unloaded: pytest.MonkeyPatch) -> None:
    """After ``pip install .`` alone, the message says what to install for PostgreSQL."""
    unloaded.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Usage) as caught:
        connect(URL, link="lab", side=Side.RIGHT)
    assert caught.value.message == (
        "right side: the connector for postgresql needs the package psycopg, which is not installed"
    )
    assert caught.value.remedy == "pip install 'dualwrite[postgresql]'"


def test_a_package_that_does_not_work_is_named(unloaded: pytest.MonkeyPatch) -> None:
    """psycopg without libpq cannot be imported: its own words are passed on, and what to do."""

    def broken(*_: object) -> None:
        raise ImportError("no pq wrapper available.")

    unloaded.setattr(importlib.metadata, "import_module", broken)
    with pytest.raises(Usage, match=r"the connector for postgresql cannot be loaded: no pq wrapper available\."):
        connect(URL, link="lab", side=Side.LEFT)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://me:s3cr3t@host/db", "no connector for 'mysql'"),
        ("host=h password=s3cr3t", r"no connector for 'host=h password=\*\*\*'"),
        ("db password=a:s3cr3t", r"no connector for 'db password=\*\*\*'"),
    ],
)
def test_an_unknown_scheme_is_told_without_its_secrets(url: str, told: str) -> None:
    """The known schemes are named, and no password."""
    with pytest.raises(Usage, match=told) as caught:
        connect(url, link="lab", side=Side.LEFT)
    assert "s3cr3t" not in str(caught.value)
    assert "postgresql:" in caught.value.message
