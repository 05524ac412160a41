"""URLs: secrets are found and hidden, relative databases located."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualwrite.urls import holds_secret, located, mask, relative_to


@pytest.mark.parametrize(
    ("url", "shown", "secret"),
    [
        ("postgresql://me:pw@host:5432/db", "postgresql://me:***@host:5432/db", True),
        ("postgresql://me:p@ss/w:rd@host/db", "postgresql://me:***@host/db", True),
        ("postgresql://:pw@host/db", "postgresql://:***@host/db", True),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db", False),
        ("postgresql://host:5432/db", "postgresql://host:5432/db", False),
        ("postgresql://host:5432/db?application_name=a@b", "postgresql://host:***@b", False),
        ("postgresql://host/db?user=me&password=pw&x=1", "postgresql://host/db?user=me&password=***&x=1", True),
        ("https://org.example?client_id=1&client_secret=pw", "https://org.example?client_id=1&client_secret=***", True),
        ("postgresql://host/db?sslkey=/my.key", "postgresql://host/db?sslkey=***", False),
        ("postgresql://me:${PASSWORD}@host/db", "postgresql://me:***@host/db", False),
        ("sqlite:////home/a:b@c.db", "sqlite:////home/a:b@c.db", False),
        ("${CRM_URL}", "${CRM_URL}", False),
        ("not a url", "not a url", False),
        ("host=db password=pw", "host=db password=***", True),
        ("password = 'p w' host=db", "password =***", True),
    ],
)
def test_secrets(url: str, shown: str, secret: bool):
    """Passwords are masked wherever they stand; a variable in their place is no secret."""
    assert mask(url) == shown
    assert holds_secret(url) is secret


def test_relative_databases(tmp_path: Path):
    """A relative file is looked for in each folder in turn, and its place can be written relative again."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    assert located("sqlite:///a.db?mode=ro", here, there) == f"sqlite:///{here}/a.db?mode=ro"
    (there / "a.db").touch()
    assert located("sqlite:///a.db?mode=ro", here, there) == f"sqlite:///{there}/a.db?mode=ro"
    assert located("sqlite:///../a.db", here) == f"sqlite:///{tmp_path}/a.db"
    assert relative_to(f"sqlite:///{there}/x/a.db?mode=ro", there) == "sqlite:///x/a.db?mode=ro"
    assert relative_to(f"sqlite:///{here}/a.db", there) == f"sqlite:///{here}/a.db"


@pytest.mark.parametrize("url", ["sqlite:////a.db", "sqlite:///:memory:", "postgresql://host/db", "memory://left"])
def test_other_urls_stay(url: str):
    """Only relative SQLite paths depend on where one stands."""
    assert located(url, Path("/x")) == url
    assert relative_to(url, Path("/x")) == url
