"""The documentation says what the program does: complete, generated where it can be, its examples run."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from dualwrite import declared, project, settings, troubles
from dualwrite.connectors import _pg_health, _sqlite_health
from dualwrite.engine import lifecycle, status
from dualwrite.errors import Problem
from dualwrite.mapping import lines, notation, odata, odata_text, tablemap
from dualwrite.schema import TypeName
from dualwrite.testing.postgresql import Server, programs
from dualwrite.testing.sqlite import Laboratory, view

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "dualwrite"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
PATIENCE = 240.0


def generator():
    """The module that writes the generated parts."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


generate = generator()


def page(name: str) -> str:
    """The text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The part of a page under a heading."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def words(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


def named_in_tables(text: str) -> set[str]:
    """What stands in backquotes in the first cell of a table's row."""
    rows = re.findall(r"^\|((?:[^|\\\n]|\\.)*)\|", text, re.MULTILINE)
    return set().union(*(words(row) for row in rows)) if rows else set()


# ------------------------------------------------------------------------------------------------ commands


def test_every_command_is_described():
    """Each command has its section, and how it is called stands there as the program has it."""
    text, commands = page("commands.md"), generate.commands()
    assert set(generate.described(text)) == set(commands)
    for name in commands:
        assert f"<!-- usage {name} -->" in section(text, name)


def test_every_option_is_described():
    """Each option of each command stands in that command's section, whatever the generator does."""
    for name, command in generate.commands().items():
        here = section(page("commands.md"), name)
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"`{option}" in here, f"{name} {option}"


def test_the_generated_parts_are_up_to_date():
    """``python docs/generate.py`` would change nothing."""
    assert generate.filled(page("commands.md")) == page("commands.md")
    assert generate.problems() == page("problems.md")


def calls(name: str) -> list[tuple[str, ast.Call]]:
    """Every call of that function or class in the program, with its file."""
    return [
        (str(path.relative_to(SOURCE)), node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def literals(name: str, position: int, keyword: str = "code") -> set[str]:
    """The texts given to a parameter in calls of that function or class."""
    found = set()
    for _, call in calls(name):
        given = [each.value for each in call.keywords if each.arg == keyword]
        given += call.args[position : position + 1]
        found |= {value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)}
    return found


def test_every_reason_for_parking_is_explained():
    """The codes of parked changes are those that the program can give, each with meaning and remedy."""
    given = literals("Trouble", 0) | literals("RowProblem", 0) | literals("CastError", 0) | literals("Rejected", 0)
    given |= literals("Unusable", 2) | literals("Alarm", 1) | {"behind", "bypassed", "conflict", "loop", "many_deletes"}
    for path in (SOURCE / "connectors").glob("*.py"):
        given |= set(re.findall(r'SQLITE_\w+: "(\w+)"', path.read_text(encoding="utf-8")))
    assert given == set(troubles.CODES)
    assert all(meaning and remedy for meaning, remedy in troubles.CODES.values())


def test_every_problem_of_a_system_is_explained():
    """Codes about systems are those that the program can give."""
    given = {
        value.value
        for file, call in calls("Problem")
        if file.startswith(("connectors/", "engine/"))
        for value in call.args[:1]
        if isinstance(value, ast.Constant)
    }
    codes = _sqlite_health.CODES | _pg_health.CODES
    assert given == set(generate.SYSTEMS) | set(codes)
    assert all(meaning and remedy for meaning, remedy in codes.values())


# ------------------------------------------------------------------------------------------------ JSON

FIELDS = {
    "problems_json": "check",
    "plan_json": "plan",
    "planned_json": "plan",
    "missing_json": "plan",
    "status_json": "status",
    "verify_json": "verify",
    "difference_json": "verify",
    "unusable_json": "verify",
    "parked_json": "parked list",
    "changes_json": "parked show",
    "conflict_json": "conflicts list",
    "event_json": "log",
    "alerts_json": "alerts list",
    "rule_json": "alerts list",
    "applied_json": "log",
    "step_json": "log",
    "maps_json": "maps list",
    "map_json": "maps list",
    "map_shown_json": "maps show",
    "history_json": "maps versions",
    "version_json": "maps versions",
    "differences_json": "maps diff",
    "map_difference_json": "maps diff",
    "sync_json": "syncs list",
    "refreshed_json": "maps refresh",
    "progress_json": "status",
    "explained_json": "explain",
    "compared_json": "explain",
    "reason_json": "explain",
}
"""The functions that make JSON, and the command whose section describes their fields."""


def functions() -> dict[str, ast.FunctionDef]:
    """The functions of ``printing`` that make JSON."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (SOURCE / "printing").glob("*.py")]
    found = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name: node for name, node in found.items() if name.endswith("_json")}


def test_every_function_that_makes_json_is_known():
    """None is left out of the test below."""
    assert set(functions()) == set(FIELDS)


@pytest.mark.parametrize("function", sorted(FIELDS))
def test_every_field_is_described(function):
    """Each field that the program can print stands in a table of its command's section."""
    keys = {
        key.value
        for node in ast.walk(functions()[function])
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    keys |= {"problems_json": {*Problem.__slots__, "dipv"}, "status_json": set(status.MapStatus.__annotations__)}.get(
        function, set()
    )
    here = section(page("commands.md"), FIELDS[function])
    described = named_in_tables(here) | words(here)
    assert keys <= described, keys - described


def test_the_other_fields_are_described():
    """What ``parked show`` and ``parked retry`` print besides."""
    text = page("commands.md")
    assert "queue" in named_in_tables(section(text, "parked show"))
    assert {"tried", "freed"} <= named_in_tables(section(text, "parked retry"))


def test_every_state_of_a_map_is_described():
    """The states of ``status``."""
    assert set(lifecycle.STATES) <= words(section(page("commands.md"), "status"))


# ------------------------------------------------------------------------------------------------ files


def test_every_setting_is_described():
    """Each key of ``dualwrite.yaml`` stands in the table of settings."""
    described = named_in_tables(section(page("configuration.md"), "dualwrite.yaml"))
    for place, model in settings.MODELS.items():
        for field, details in model.model_fields.items():
            key = (*place, details.alias or field)
            assert ".".join(key) in described or key in settings.MODELS, key


def test_every_kind_of_trouble_is_described():
    """The kinds that rules of alerts count, in the words of the program."""
    here = section(page("configuration.md"), "dualwrite.yaml")
    for kind, meaning in settings.KINDS.items():
        assert f"| `{kind}` | {meaning} |" in here


def test_every_entry_of_a_map_is_described():
    """Each entry, option and symbol of a map file, and each word that one of them can be."""
    text = page("maps.md")
    entries = named_in_tables(section(text, "Entries of a map file"))
    columns = named_in_tables(section(text, "Columns"))
    assert set(notation._ENTRIES) == entries - {"x-…"}
    assert {*lines._OPTIONS, "transforms"} == columns - {"x-…", *lines.SYMBOLS}
    assert set(lines.SYMBOLS) <= columns
    assert {*lines._LONG, *notation.ON_LEAVE} <= words(text) | entries
    for operator in (*odata._WORDS[:7], *odata_text.FUNCTIONS):
        assert operator in section(text, "Filters"), operator


def test_every_policy_is_described():
    """Policies for columns and for rows."""
    text = page("conflicts.md")
    assert named_in_tables(section(text, "Policies for columns")) == set(tablemap.POLICIES)
    assert named_in_tables(section(text, "An update against a delete")) - {"rows:"} == set(tablemap.ROW_POLICIES)


def test_every_key_of_a_schema_file_is_described():
    """Each key of ``schema/left.yaml``, and each type."""
    here = section(page("configuration.md"), "Schema files")
    ours = {"name", "line", "lines", "file", "polymorphic"}  # which stand among the references
    for kind in (declared.Declared, declared.DeclaredTable, declared.DeclaredColumn):
        keys = {each.name for each in fields(kind)} - ours
        assert keys <= named_in_tables(here), keys - named_in_tables(here)
    assert {"table", "columns", "to", "type", "targets", "value"} <= words(here)
    types = {word.partition("(")[0] for word in named_in_tables(here)}
    assert {name.value for name in TypeName} <= types


def test_what_is_created_is_listed(tmp_path):
    """The tables and triggers of a link in an SQLite database."""
    here = words(section(page("privileges.md"), "SQLite"))
    it = Laboratory(tmp_path, "CREATE TABLE town (id INTEGER PRIMARY KEY, code TEXT UNIQUE);", link="contoso")
    it.install(view("town", "code"))
    for name in it.objects():
        table, _, what = name.rpartition(":")
        assert f":{what}" in here or f"dualwrite_contoso:TABLE:{what}" in here if table else name in here, name
    it.close()


def examples(name: str, language: str) -> list[str]:
    """The examples of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def test_the_example_of_a_map_is_one():
    """What ``maps.md`` begins with can be read."""
    found = notation.read_map(examples("maps.md", "yaml")[0], "example.yaml")
    assert (found.name, len(found.columns)) == ("Customers V3 (accounts)", 7)


def test_the_lines_of_maps_are_some():
    """The column lines and value maps in ``maps.md`` can be read."""
    for example in examples("maps.md", "yaml")[1:]:
        if example.lstrip().startswith("-"):
            text = f"map: m\nleft: l\nright: r\ncolumns:\n{example}"
            assert notation.read_map(text, "example.yaml").columns


def test_the_example_of_settings_is_one(tmp_path):
    """What ``configuration.md`` begins with can be read, and so can its schema file."""
    example, alerts, schema, polymorphic = examples("configuration.md", "yaml")
    (tmp_path / "dualwrite.yaml").write_text(f"{example}{alerts}")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "one.yaml").write_text("map: Customers\nleft: l\nright: r\ncolumns: [a = a]\n")
    secrets = {"SMTP_PASSWORD": "x", "HOOK_SECRET": "y", "HOOK_URL": "https://example.com/hook"}
    found = project.load(tmp_path, {"CRM_URL": "sqlite:////srv/crm.db", **secrets})
    assert (found.limits.deletes, len(found.alerts.rules)) == (1000, 3)
    assert declared.read_declared(schema, "left.yaml").tables["CustomersV3"].references
    assert len(declared.read_declared(polymorphic, "right.yaml").tables["salesorders"].polymorphic) == 2


# ------------------------------------------------------------------------------------------------ links


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as a forge makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    """Files and headings that a page links to are there."""
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place.read_text(encoding="utf-8")), target


def test_every_page_is_reached():
    """Somebody who begins at the README finds every page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(docs/(\w+\.md)", readme))
    assert linked == {path.name for path in DOCS.glob("*.md")}


def test_the_readme_begins_with_the_two_commands():
    """``make demo`` and ``make test`` stand at the top, and the Makefile has them."""
    top = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in top
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ examples that run

SQLITE = """\
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=20)
with database:
    for row in database.execute(sys.argv[2]):
        print("|".join("" if value is None else str(value) for value in row))
database.close()
"""
"""As much of the ``sqlite3`` command as the examples use."""
_PART = re.compile(r"^(?:<!-- (?P<note>[\w ]+) -->|```(?P<language>\w*)\n(?P<text>.*?)^```)$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass
class Shell:
    """A terminal in a folder of its own, where the program is installed."""

    folder: Path
    environment: dict[str, str]
    background: subprocess.Popen[str] | None = None

    def run(self, script: str) -> str:
        """What a script prints; it must succeed."""
        command = ["bash", "-e", "-c", script]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (ran.returncode, ran.stderr) == (0, ""), script + ran.stdout + ran.stderr
        return ran.stdout

    def start(self, script: str) -> None:
        """Leave an engine running in another terminal; comes back when it is at work."""
        command = ["bash", "-c", f"exec {script}"]
        pipe = subprocess.PIPE
        self.background = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, text=True)
        deadline = time.monotonic() + PATIENCE
        while not re.search(r'"engine": "process .*"state": "running"', self.run("dualwrite status --json"), re.DOTALL):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Ctrl-C in the other terminal."""
        if self.background is not None:
            self.background.send_signal(signal.SIGINT)
            self.background.communicate(timeout=PATIENCE)
            assert self.background.returncode == 0
            self.background = None


@pytest.fixture
def shell(tmp_path):
    """A terminal whose ``dualwrite`` is ours and whose ``sqlite3`` is Python's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sqlite.py").write_text(SQLITE)
    for name, arguments in (("dualwrite", "-m dualwrite.cli"), ("sqlite3", programs / "sqlite.py")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        program.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    shell = Shell(folder, {**os.environ, "PATH": path, "COLUMNS": "110"})
    yield shell
    if shell.background is not None:
        shell.background.kill()
        shell.background.communicate()


def normal(text: str, folder: Path) -> str:
    """Output without what differs from day to day and from place to place."""
    text = _TIME.sub("(a time)", text.replace(f"{folder}/", "…/"))
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def typed(path: Path, shell: Shell) -> int:
    """Type every line that a page tells people to type, in its order; each must print what the page says."""
    note, said, ran = "", None, 0
    for part in _PART.finditer(path.read_text(encoding="utf-8")):
        if part["note"]:
            note = part["note"]
            if note == "stop the background":
                shell.stop()
        elif part["language"] == "sh" and note == "background":
            shell.start(part["text"])
            note, said = "", None
        elif part["language"] == "sh":
            said = normal(shell.run(part["text"]), shell.folder)
            note, ran = "", ran + 1
        elif part["language"] == "text" and said is not None:
            assert said == normal(part["text"], shell.folder)
            said = None
    return ran


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "quickstart.md"], ids=lambda path: path.name)
def test_the_quickstart_runs(path, shell):
    """Every line that the page tells people to type works, and prints what the page says."""
    assert typed(path, shell) >= 3


def test_linking_postgresql_databases_runs(shell):
    """The same of ``postgresql.md``, on a server of its own where no role has a password."""
    psql = programs() / "psql"
    if not psql.exists():
        pytest.skip(f"{psql} is missing")
    server = Server()
    try:
        server.start()
        (shell.folder.parent / "bin" / "psql").symlink_to(server.programs / "psql")
        shell.environment |= {"PGHOST": "localhost", "PGPORT": str(server.port), "PGUSER": "postgres"}
        assert typed(DOCS / "postgresql.md", shell) >= 9
    finally:
        shell.stop()
        server.remove()
