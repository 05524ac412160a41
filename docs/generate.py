"""Writes what the documentation says about commands and problems, out of the program itself.

``python docs/generate.py`` rewrites ``problems.md``, and the parts of ``commands.md`` between ``<!-- usage … -->`` and
``<!-- end -->``.  A test holds both against the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import typer

from dualwrite import document, troubles
from dualwrite.cli import app
from dualwrite.connectors import _pg_health, _sqlite_health
from dualwrite.dipv import NUMBERS, WITHOUT
from dualwrite.engine import data
from dualwrite.mapping import check, d365, d365_keys, offline

HERE = Path(__file__).parent
SYSTEMS = {
    "schema_changed": (
        "The tables of a map are not what they were when an engine looked at them last.",
        "do what the message says; see [operating.md](operating.md#when-tables-change)",
    ),
    "clocks_apart": (
        "The clocks of the two systems are more than 5 seconds apart, so their times say little about what came first.",
        "let both machines get their time by NTP; until then the difference is measured when an engine starts, and "
        "`newest` reckons with it",
    ),
    "connection": (
        "A system cannot be reached or opened.",
        "do what the message says: mostly the URL is wrong, or rights are missing",
    ),
    "journal": ("The journal of the link cannot be used.", "do what the message says"),
    "capture_stalled": (
        "An engine runs, a system's log grows, and nothing of it arrives: a very large transaction is on its way, or "
        "something hangs.",
        "look at what `dualwrite status` and the engine's log lines say; start the engine again",
    ),
    "room": (
        "The disk of the journal is full, or nearly: nothing is carried that cannot be noted there.",
        "free some space on it: the engine goes on by itself",
    ),
    "other_home": (
        "The project's folder was copied or moved: a copy must not write into the systems of the original.",
        "where it was moved, `dualwrite relink --moved`; a copy needs systems of its own: `dualwrite relink` both "
        "sides, or remove `.dualwrite` from it",
    ),
    "other_system": (
        "A system is not the one that the link was made with: the folder is a copy for other systems, the URL leads to "
        "another one, or it is a backup from before the link.",
        "point the URL to the right system; or `dualwrite relink` the side, where the new one is meant; or remove "
        "`.dualwrite` from a copied folder; or `dualwrite uninstall`, then start anew",
    ),
    "alert": (
        "An alert has fired, and its message could not be sent yet.",
        "correct `alerts:` in dualwrite.yaml, or the server; a running engine tries again by itself for a day, and "
        "`dualwrite alerts test RULE` tries at once",
    ),
    "retained": (
        "A system keeps much of its log for the link: dualwrite does not run, or cannot keep up.",
        "run dualwrite until it has caught up; or uninstall the link, before the disk is full",
    ),
    "position_lost": (
        "A system does not hold all changes that are still to be carried: it was restored from a backup, or its "
        "triggers were removed.",
        "`dualwrite stop`, then `dualwrite start --master` with the side that has the better values",
    ),
}
"""Codes about a system as a whole, whatever connector it has."""
_BLOCK = re.compile(r"(<!-- usage (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Parameter(Protocol):
    """What is used of an argument or option."""

    name: str
    opts: Sequence[str]
    help: str
    metavar: str | None
    required: bool
    default: object
    param_type_name: str
    multiple: bool
    nargs: int


class Command(Protocol):
    """What is used of a command."""

    params: Sequence[Parameter]


# ------------------------------------------------------------------------------------------------ problems


def problems() -> str:
    """The text of ``problems.md``."""
    files = {code: (meaning, "do what the message says") for code, meaning in document.CODES.items()}
    return "\n".join(
        [
            "# Problems",
            "",
            "<!-- Written by docs/generate.py: edit the tables of codes in the program instead. -->",
            "",
            "Every problem has a code that stays the same from version to version. Messages say more: what happened,",
            "where, and what to do next. Beside a code stands Dual-write's number for the same, if it has one.",
            "",
            "## Parked changes",
            "",
            "Codes of `dualwrite parked list`, and of records that `plan` skips or `verify` cannot compare. A parked",
            "change is tried again with `dualwrite parked retry`, or dropped with `dualwrite parked discard`.",
            "",
            *_table(troubles.CODES),
            "",
            "## Systems",
            "",
            "Codes of `dualwrite check` about the two systems.",
            "",
            *_table(SYSTEMS | _sqlite_health.CODES | _pg_health.CODES),
            "",
            "## Maps",
            "",
            "Codes of `dualwrite check` about maps held against both systems. Nothing runs while a map has errors;",
            "warnings are for you to judge.",
            "",
            *_table(check.CODES),
            "",
            "## Data",
            "",
            "Codes of `dualwrite check --data` about the data of both sides. Records with errors would be parked; all",
            "else flows.",
            "",
            *_table(data.CODES),
            "",
            "## Exports of Dual-write",
            "",
            "Codes of `dualwrite maps import` and `dualwrite maps export`, and of `dualwrite check` about exports. The",
            "maps in them get the codes of maps as well.",
            "",
            *_table(d365.CODES | d365_keys.CODES | offline.CODES),
            "",
            "## Files",
            "",
            "Codes of `dualwrite check` about the files of a project.",
            "",
            *_table(files),
            "",
            "## Numbers of Dual-write",
            "",
            "The numbers that Dual-write gives when a map is saved or run, and what says the same here.",
            "",
            *_numbers(),
            "",
        ]
    )


def _numbers() -> Iterator[str]:
    """A table of Dual-write's numbers with the codes that stand for them, or why there is none."""
    yield "| number | here |"
    yield "|---|---|"
    codes: dict[str, list[str]] = {}
    for code, numbers in NUMBERS.items():
        for number in numbers:
            codes.setdefault(number, []).append(f"`{code}`")
    for number in sorted({*codes, *WITHOUT}):
        yield f"| {number} | {_cell(WITHOUT[number] if number in WITHOUT else ', '.join(sorted(codes[number])))} |"


def _table(codes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield "| code | what it means | what to do |"
    yield "|---|---|---|"
    for code, (meaning, remedy) in sorted(codes.items()):
        numbers = f" ({', '.join(NUMBERS[code])})" if code in NUMBERS else ""
        yield f"| `{code}`{numbers} | {_cell(meaning)} | {_cell(remedy[:1].upper() + remedy[1:])} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("  ", " ")


# ------------------------------------------------------------------------------------------------ commands


def commands() -> dict[str, Command]:
    """Every command by its words: ``plan``, ``parked list``."""
    return dict(_within(typer.main.get_command(app), ""))


def _within(group: object, words: str) -> Iterator[tuple[str, Command]]:
    for name, command in vars(group)["commands"].items():
        called = f"{words} {name}".strip()
        if hasattr(command, "commands"):
            yield from _within(command, called)
        else:
            yield called, cast(Command, command)


def usage(name: str, command: Command) -> str:
    """How a command is called: one line, and a table of its arguments and options."""
    parameters = [each for each in command.params if each.name != "help"]
    line = " ".join(["dualwrite", name, *map(_called, parameters)])
    rows = [f"| {_names(each)} | {_cell(each.help)}{_default(each)} |" for each in parameters]
    return "\n".join([f"```text\n{line}\n```", "", "| | |", "|---|---|", *rows, ""])


def _is_argument(parameter: Parameter) -> bool:
    return bool(parameter.param_type_name == "argument")


def _word(parameter: Parameter, name: str) -> str:
    """How an option is written under one of its names, or an argument under none."""
    return " ".join(filter(None, (name, parameter.metavar)))


def _called(parameter: Parameter) -> str:
    word = _word(parameter, "" if _is_argument(parameter) else min(parameter.opts, key=len))
    shown = word if parameter.required else f"[{word}]"
    return f"{shown}..." if parameter.multiple or parameter.nargs < 0 else shown


def _names(parameter: Parameter) -> str:
    names = [""] if _is_argument(parameter) else sorted(parameter.opts, key=len)
    return ", ".join(f"`{_cell(_word(parameter, name))}`" for name in names)


def _default(parameter: Parameter) -> str:
    if parameter.required or parameter.default in (None, False):
        return ""
    return " Default: the current folder." if str(parameter.default) == "." else f" Default: `{parameter.default}`."


def filled(text: str) -> str:
    """The text of ``commands.md`` with its usages written anew; KeyError for a command that does not exist."""
    known = commands()

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{usage(found['name'], known[found['name']])}\n{found[3]}"

    return _BLOCK.sub(block, text)


def described(text: str) -> list[str]:
    """The commands whose usage stands in the text."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def main() -> None:
    """Write both files."""
    (HERE / "problems.md").write_text(problems(), encoding="utf-8")
    path = HERE / "commands.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
