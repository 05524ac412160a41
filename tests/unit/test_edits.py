"""What is written into dualwrite.yaml while an engine runs is taken once it is whole."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path

import pytest

from dualwrite.engine.edits import Edits
from dualwrite.errors import Invalid
from dualwrite.project import FILE, load

SETTINGS = """\
link: shop
left:  {name: erp, url: "sqlite:///erp.db"}
right: {name: crm, url: "sqlite:///crm.db"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The settings of a project."""
    (tmp_path / FILE).write_text(SETTINGS)
    (tmp_path / "maps").mkdir()
    return tmp_path / FILE


def edits(file: Path, settled: float = 0.0) -> Edits[tuple[str, ...]]:
    """Of the companies."""
    return Edits(load(file.parent), attrgetter("companies"), settled)


def test_a_part_is_told_when_it_says_something_else(file: Path) -> None:
    """Once; other edits of the file do not count."""
    found = edits(file)
    assert found.changed() is None
    file.write_text(f"{SETTINGS}companies: [usmf]\n")
    assert found.changed() == ("usmf",)
    assert found.now == ("usmf",)
    assert found.changed() is None
    file.write_text(f"{SETTINGS}companies: [usmf]\nconflict: left\n")
    assert found.changed() is None
    file.write_text(SETTINGS)
    assert found.changed() == ()


def test_a_file_that_is_being_written_is_not_read(file: Path) -> None:
    """Half of it may have a meaning."""
    found = edits(file, settled=3600)
    file.write_text(f"{SETTINGS}companies: [usmf")
    assert found.changed() is None
    file.write_text(f"{SETTINGS}companies: [usmf, demf]\n")
    assert found.changed() is None
    found._settled = 0.0
    assert found.changed() == ("usmf", "demf")


def test_a_file_that_cannot_be_read_is_told_once(file: Path) -> None:
    """What it said before holds; a file that is not there for a moment is nothing."""
    found = edits(file)
    file.write_text(f"{SETTINGS}companies: 7\n")
    with pytest.raises(Invalid):
        found.changed()
    assert found.changed() is None
    os.rename(file, file.with_suffix(".old"))
    assert found.changed() is None
    file.write_text(f"{SETTINGS}companies: [usmf]\n")
    assert found.changed() == ("usmf",)
