"""What is loaded when the program starts: nobody waits for what a command does not need."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import typer

from dualwrite.cli import app
from dualwrite.cli.commands import COMMANDS

HEAVY = {"odata_query", "prometheus_client", "psycopg", "pydantic", "sqlalchemy", "yaml"}
LOADED = """
import sys
from dualwrite.cli import app
app(sys.argv[1:], prog_name="dualwrite", standalone_mode=False)
print(*sys.modules, file=sys.stderr)
"""


def loaded(*words, folder=None):
    """The modules that a command has loaded by its end."""
    command = [sys.executable, "-c", LOADED, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", ["--help", "--version", "-h"])
def test_help_loads_next_to_nothing(words):
    """No library but the command line's own, and no room of the house behind the command line."""
    found = loaded(words)
    assert found & HEAVY == set()
    assert {name for name in found if name.startswith(("dualwrite.engine", "dualwrite.journal"))} == set()


def test_a_command_loads_what_it_needs(shop):
    """Neither Prometheus's client, nor the grammar of filters that no map has, nor the driver of another system."""
    found = loaded("status", folder=shop.folder)
    assert found & {"odata_query", "prometheus_client", "psycopg", "sqlalchemy.dialects.postgresql"} == set()
    assert "sqlalchemy" in found, "the journal is open: so the names are right"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    """Its line in the help is the first of its own."""
    command = typer.main.get_command(app).commands[name]
    assert inspect.cleandoc(command.help).splitlines()[0] == COMMANDS[name].summary
