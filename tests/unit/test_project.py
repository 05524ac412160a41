"""Project folders: loading them with every mistake told, secrets kept, and writing new ones."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from dualwrite import settings
from dualwrite.errors import Invalid, Usage
from dualwrite.mapping.tablemap import POLICIES, ColumnMapping, Direction, TableMap
from dualwrite.model import Side
from dualwrite.project import Environment, Limits, create, link_name, load
from dualwrite.schema import ColumnType, TypeName

SETTINGS = """\
link: contoso
left:  {name: finops, url: "sqlite:///finops.db"}
right: {name: crm, url: "${CRM_URL}", schema: public, timezone: Europe/Berlin}
companies: [usmf, no]
conflict: max
maps: maps/
limits: {deletes: 500, retained: 20 GB}
"""
MAP = "map: {name}\nleft: L\nright: R\ncolumns:\n  - a = b\n"
SECRET = "postgresql://me:s3cr3t@db.example/crm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with two maps."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "dualwrite.yaml").write_text(SETTINGS)
    (tmp_path / "maps" / "one.yaml").write_text(MAP.format(name="one"))
    (tmp_path / "maps" / "two.yml").write_text(MAP.format(name="two"))
    (tmp_path / "maps" / "notes.txt").write_text("not a map")
    return tmp_path


def problems(folder: Path, **variables: str) -> list[str]:
    """What is wrong with the project, each as the person sees it, with paths inside the folder."""
    with pytest.raises(Invalid) as caught:
        load(folder, {"CRM_URL": SECRET, **variables})
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_whole_project(folder: Path):
    """Settings, environments, maps and declarations arrive where they belong."""
    (folder / "schema").mkdir()
    (folder / "schema" / "left.yaml").write_text("tables: {L: {columns: {a: {type: date}}}}")
    found = load(folder, {"CRM_URL": SECRET})
    assert (found.folder, found.link, found.companies, found.conflict) == (folder, "contoso", ("usmf", "no"), "max")
    assert found.limits == Limits(500, 20 << 30)
    assert found.environments == {
        Side.LEFT: Environment("finops", f"sqlite:///{folder / 'finops.db'}"),
        Side.RIGHT: Environment("crm", SECRET, "public", "Europe/Berlin"),
    }
    assert [(each.name, each.file) for each in found.maps] == [
        ("one", str(folder / "maps" / "one.yaml")),
        ("two", str(folder / "maps" / "two.yml")),
    ]
    assert found.declared[Side.LEFT].tables["L"].columns[0].type == ColumnType(TypeName.DATE)
    assert found.declared[Side.RIGHT].tables == {}


def test_what_may_be_left_out(folder: Path):
    """A link and two URLs are enough."""
    (folder / "dualwrite.yaml").write_text("link: a\nleft: {url: 'sqlite:///a.db'}\nright: {url: 'sqlite:////b.db'}\n")
    found = load(folder, {})
    assert (found.companies, found.conflict, found.limits) == ((), "newest", Limits(None))
    assert [found.environments[side].name for side in Side] == ["left", "right"]
    assert found.environments[Side.RIGHT].url == "sqlite:////b.db"
    assert found.environments[Side.RIGHT].timezone == "UTC"


def test_secrets_are_never_shown(folder: Path):
    """Passwords stay out of what Python prints and of every message."""
    found = load(folder, {"CRM_URL": SECRET})
    assert "s3cr3t" not in repr(found)
    assert found.environments[Side.RIGHT].shown_url == "postgresql://me:***@db.example/crm"
    text = SETTINGS.replace("conflict: max", 'conflict: "${CRM_URL}"').replace("link: contoso", 'link: "${CRM_URL}"')
    (folder / "dualwrite.yaml").write_text(text.replace("deletes: 500", 'deletes: "${CRM_URL}"'))
    assert problems(folder) == [
        "dualwrite.yaml:1: error bad_entry: link '${CRM_URL}' is not a plain word — write at most 30 of a-z, 0-9 and "
        "_, starting with a letter: database objects carry this name",
        "dualwrite.yaml:5: error bad_entry: conflict cannot be '${CRM_URL}' — known are: left, right, newest, manual, "
        "max, min, sum",
        "dualwrite.yaml:7: error bad_entry: limits.deletes '${CRM_URL}' is not a whole number from 1 on — "
        "write a number like 1000",
    ]


def test_all_files_are_reported_at_once(folder: Path):
    """Mistakes in settings, maps and declarations come together, each with file and line."""
    (folder / "dualwrite.yaml").write_text(SETTINGS.replace("link:", "lnk:").replace("public", "public, schma: x"))
    (folder / "maps" / "one.yaml").write_text(MAP.format(name="one") + "rows: kep\n")
    (folder / "maps" / "three.yaml").write_text("\n" + MAP.format(name="TWO"))
    (folder / "maps" / "latin.yaml").write_bytes(b"map: \xe9")
    (folder / "schema").mkdir()
    (folder / "schema" / "right.yaml").write_text("tabels: {}")
    assert problems(folder) == [
        "dualwrite.yaml:1: error missing_key: link is missing — add link: …",
        "dualwrite.yaml:1: error unknown_key: there is no entry 'lnk' — did you mean 'link'?",
        "dualwrite.yaml:3: error unknown_key: there is no entry 'right.schma' — did you mean 'schema'?",
        "maps/latin.yaml:1: error unreadable: this is not UTF-8 text — save it as UTF-8",
        "maps/one.yaml:6: error bad_entry: rows cannot be 'kep' — did you mean 'keep'?",
        "maps/two.yml:1: error duplicate_map: map 'two' is also in maps/three.yaml — give one of them another name",
        "schema/right.yaml:1: error unknown_key: a schema file has no entry 'tabels' — did you mean 'tables'?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("contoso", "Contoso", "1: error bad_entry: link 'Contoso' is not a plain word"),
        ("contoso", "a" * 31, "is not a plain word"),
        ("sqlite:///finops.db", "finops.db", "2: error bad_entry: left.url 'finops.db' is not a URL"),
        ("sqlite:///finops.db", "sqlite://finops.db", 'is not a SQLite URL — write "sqlite:///file.db", with three'),
        ("sqlite:///finops.db", "sqlite:///", "names no file"),
        ('url: "sqlite:///finops.db"', "nam: x", "2: error missing_key: left.url is missing — add left.url: …"),
        ('{name: finops, url: "sqlite:///finops.db"}', "x", "2: error bad_entry: left must be a mapping"),
        ("finops,", '"",', "2: error bad_entry: left.name is empty"),
        ("Europe/Berlin", "Europe/Berln", "is not a time zone — did you mean 'Europe/Berlin'?"),
        ("Europe/Berlin", "../etc", "is not a time zone"),
        ("[usmf, no]", "usmf", "4: error bad_entry: companies must be a list that is not empty"),
        ("[usmf, no]", "[]", "4: error bad_entry: companies must be a list that is not empty"),
        ("[usmf, no]", "[usmf, null]", "4: error bad_entry: companies.1 must be one text"),
        ("max", "newst", "5: error bad_entry: conflict cannot be 'newst' — did you mean 'newest'?"),
        ("500", "-1", "7: error bad_entry: limits.deletes '-1' is not a whole number"),
        ("20 GB", "20", "7: error bad_entry: limits.retained '20' is not a size"),
        ("20 GB", "0GB", "7: error bad_entry: limits.retained '0GB' is not a size"),
        (
            "deletes: 500",
            "delete: 500",
            "7: error unknown_key: there is no entry 'limits.delete' — did you mean 'deletes'?",
        ),
        (
            "${CRM_URL}",
            "${OTHER}",
            "3: error unset_variable: the environment variable OTHER is not set — export OTHER=…",
        ),
        ("${CRM_URL}", "${CRM_URL", "3: error bad_variable: '${CRM_URL' names no environment variable"),
        (
            "${CRM_URL}",
            SECRET,
            "3: error secret: the URL of right holds a password: postgresql://me:***@db.example/crm",
        ),
        ("maps: maps/", "maps: nowhere", "nowhere: error no_maps: the folder of the maps cannot be read: No such file"),
        ("maps: maps/", f"maps: {'x' * 300}", "no_maps: the folder of the maps cannot be read: File name too long"),
        ("500", "9" * 5000, "is not a whole number from 1 on"),
        ("link: contoso", "link: [", "dualwrite.yaml:3: error yaml: this is not YAML"),
        (SETTINGS, "", "dualwrite.yaml:1: error bad_entry: dualwrite.yaml holds no settings"),
        (SETTINGS, "- a", "dualwrite.yaml:1: error bad_entry: dualwrite.yaml holds no settings"),
    ],
)
def test_a_wrong_setting(folder: Path, old: str, new: str, problem: str):
    """Each mistake is told once, in our words, with its line and a remedy; secrets stay hidden."""
    (folder / "dualwrite.yaml").write_text(SETTINGS.replace(old, new, 1))
    found = problems(folder)
    assert any(problem in each for each in found), found
    assert len(found) == (2 if "nam: x" in new else 1)
    assert "s3cr3t" not in "".join(found)


def test_no_project(tmp_path: Path):
    """A folder without settings is a wrong request, not a wrong file."""
    with pytest.raises(Usage, match=r"there is no dualwrite\.yaml"):
        load(tmp_path)


def test_policies_are_those_of_maps():
    """The settings and the maps know the same policies."""
    assert get_args(settings._Policy) == POLICIES


TABLE_MAP = TableMap("Größe: Customers/V3", "L", "R", (ColumnMapping(("a",), Direction.BOTH, ("b",)),))


def test_a_new_project_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is created loads again; passwords are written as variables, and the caller is told which."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "link"
    created = create(folder, "contoso", "sqlite:///finops.db", SECRET, [TABLE_MAP, TABLE_MAP])
    assert created.variables == ("RIGHT_URL",)
    assert {str(path.relative_to(folder)) for path in created.files} == {
        "dualwrite.yaml",
        "maps/groe-customers-v3.yaml",
        "maps/groe-customers-v3-2.yaml",
    }
    assert "s3cr3t" not in "".join(path.read_text() for path in created.files)
    created.files[1].unlink()
    found = load(folder, {"RIGHT_URL": SECRET})
    assert found.environments == {
        Side.LEFT: Environment("finops", f"sqlite:///{tmp_path / 'finops.db'}"),
        Side.RIGHT: Environment("crm", SECRET),
    }
    assert found.maps[0].name == TABLE_MAP.name


def test_a_database_inside_the_new_project_is_written_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project folder with its databases can be moved."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "b.db").touch()
    create(tmp_path / "link", "a", "sqlite:///link/a.db", "sqlite:///b.db", [])
    assert (tmp_path / "link" / "dualwrite.yaml").read_text() == (
        'link: a\nleft:  {name: a, url: "sqlite:///a.db"}\nright: {name: b, url: "sqlite:///b.db"}\n'
        "conflict: newest\nmaps: maps/\n"
    )


def test_nothing_is_overwritten(folder: Path):
    """When one of the files exists, none is written."""
    with pytest.raises(Usage, match="exists already"):
        create(folder, "a", "sqlite:///a.db", "sqlite:///b.db", [TABLE_MAP])
    assert (folder / "dualwrite.yaml").read_text() == SETTINGS
    assert sorted(path.name for path in (folder / "maps").iterdir()) == ["notes.txt", "one.yaml", "two.yml"]


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    """A file where the folder should be is told, not raised as it comes."""
    (tmp_path / "link").touch()
    with pytest.raises(Usage, match="cannot write the project"):
        create(tmp_path / "link", "a", "sqlite:///a.db", "sqlite:///b.db", [])


def test_link_names():
    """A link's name is a plain word, also when it is made from a folder's name."""
    assert link_name(Path("/x/My Link (2)")) == "my_link_2"
    assert link_name(Path("/x/2024")) == "link_2024"
    assert link_name(Path("/")) == "link"
    with pytest.raises(Usage, match="cannot be the name of a link"):
        create(Path("/nowhere"), "My link", "sqlite:///a.db", "sqlite:///b.db", [])
