"""Edits on both sides at once, under dualwrite and under PostgreSQL's own replication: what ``conflicts.md`` shows."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dualwrite.testing.postgresql import programs

DOCS = Path(__file__).parents[2] / "docs"
VERSION = 18
"""The version of PostgreSQL that the table is about."""


def comparison():
    """The module that compares, and writes the table."""
    spec = importlib.util.spec_from_file_location("native", DOCS / "native.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["native"] = module
    spec.loader.exec_module(module)
    return module


native = comparison()
PAGE = (DOCS / "conflicts.md").read_text(encoding="utf-8")


def version() -> int:
    """The version of the server that tests use."""
    told = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)", told)
    assert found
    return int(found[1])


def test_the_table_is_what_came_of_it():
    """Each line of ``conflicts.md`` is what both have really done (``python docs/native.py`` writes it anew).

    Under dualwrite both sides agree and later rows arrive; what was overruled is in the log, and what does not fit is
    parked.  The case of the clocks runs only where a C compiler can make a clock run ahead.
    """
    if version() != VERSION:
        pytest.skip(f"the comparison is with PostgreSQL {VERSION}, and this is {version()}")
    results = native.results(shutil.which("cc"))
    told = native.written(PAGE)
    if not shutil.which("cc"):
        told = [line for line in told if native.CLOCKS.what not in line]
    assert native.table(results) == told
    for case, ours, _ in results:
        assert ours.flows, case.what
        assert ours.left == ours.right or "parked" in ours.noted, case.what
    noted = {case.what: ours.noted for case, ours, _ in results}
    assert [what for what, told in noted.items() if "parked" in told] == ["the same, the parent's table not linked"]
    assert noted["an update against a delete"] == "1 in the conflict log"


def test_the_table_has_every_case():
    """None is left out of the page."""
    assert [line.split(" | ")[0] for line in native.written(PAGE)] == [f"| {case.what}" for case in native.CASES]
