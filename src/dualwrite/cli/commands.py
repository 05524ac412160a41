"""The commands by their names: what each does in a line, and where it lives.

A command's module is imported when it is called, so that nobody waits for what the others need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperGroup


class Command(NamedTuple):
    """A command, or a group of them."""

    summary: str
    module: str
    name: str


COMMANDS: Final = {
    "init": Command("Start a project.", "projects", "init"),
    "check": Command("Examine both systems and all maps.", "examining", "check"),
    "plan": Command("Show what an initial sync would do.", "examining", "plan"),
    "run": Command("Run the link until interrupted.", "running", "run"),
    "start": Command("Start maps.", "starting", "start"),
    "pause": Command("Pause maps.", "pausing", "pause"),
    "resume": Command("Resume paused maps.", "pausing", "resume"),
    "stop": Command("Stop maps.", "starting", "stop"),
    "status": Command("Show the state of every map.", "watching", "status"),
    "verify": Command("Compare every record of both sides.", "examining", "verify"),
    "explain": Command("Tell why a record is, or is not, in step.", "explaining", "explain"),
    "log": Command("Show who did what, and when.", "history", "log"),
    "undo": Command("Take an applied change back.", "undo", "undo"),
    "parked": Command("Changes that could not be applied.", "parked", "parked_app"),
    "conflicts": Command("Columns that both sides changed.", "conflicts", "conflicts_app"),
    "maps": Command("Table maps: their files and versions.", "exchange", "maps_app"),
    "alerts": Command("Rules that tell somebody, or pause or stop maps.", "alerts", "alerts_app"),
    "syncs": Command("Initial syncs: what each of them did, and doing them again.", "syncs", "syncs_app"),
    "relink": Command("Point the link to another system.", "environments", "relink"),
    "reset": Command("Remove the link altogether, after an export of all it knows.", "environments", "reset"),
    "uninstall": Command("Remove the link from both databases.", "environments", "uninstall"),
    "demo": Command("Show the main job on two new databases.", "projects", "demo"),
}


class Called(Mapping[str, Any]):
    """The commands as Typer makes them, each when it is asked for."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - Typer brings Click's classes along under changing names
        _, module, attribute = COMMANDS[name]
        found = getattr(import_module(f"dualwrite.cli.{module}"), attribute)
        holder = typer.Typer(rich_markup_mode=None)
        holder.add_typer(found, name=name) if isinstance(found, typer.Typer) else holder.command(name)(found)
        return typer.main.get_group(holder).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """All commands, listed without looking at any of them."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - as Typer hands them over
        super().__init__(**attributes)
        self.commands = Called()  # type: ignore[assignment]  # nobody adds to it

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - as above
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - as above
        """The one of that name; None where there is none."""
        return self.commands[cmd_name] if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """What the help says of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])
