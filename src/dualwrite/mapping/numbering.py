"""The four numbers of a map's version: which ones a text of it gets, and how they are written into its file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dualwrite.errors import Invalid
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.mapping.writing import write_map

FIRST: Final = "1.0.0.0"
_LINE = re.compile(r"(?P<key>(\"version\"|'version'|version)[ \t]*:)[ \t]*(?P<value>[^#\s]*)(?P<rest>.*)", re.DOTALL)


def content(table_map: TableMap) -> str:
    """What a map says, apart from its version and publisher; comments and spelling do not count."""
    return write_map(replace(table_map, version=FIRST, publisher=""))


def number_of(table_map: TableMap, known: Sequence[TableMap]) -> str:
    """The version of this map beside the known ones of its publisher.

    Its own, unless that number says something else; then the newest known one that says the same, or the next number
    that is free.
    """
    taken = {numbers(each.version): each for each in known}
    mine, same = content(table_map), taken.get(numbers(table_map.version))
    if same is None:
        return table_map.version
    alike = [each.version for each in known if content(each) == mine]
    if content(same) == mine:
        return same.version
    return max(alike, key=numbers) if alike else _next(numbers(table_map.version), taken)


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, to be compared."""
    return tuple(map(int, version.split(".")))


def _next(version: tuple[int, ...], taken: Iterable[tuple[int, ...]]) -> str:
    last = max(number[-1] for number in taken if number[:-1] == version[:-1])
    return ".".join(map(str, (*version[:-1], last + 1)))


def with_version(text: str, version: str) -> str | None:
    """The text of a map's file with another version in its place, all else as it stands; None where that fails."""
    table_map = read_map(text, "")
    lines = text.splitlines(keepends=True)
    if "version" in table_map.lines:
        at = table_map.lines["version"] - 1
        lines[at] = _LINE.sub(lambda found: f"{found['key']} {version}{found['rest']}", lines[at], count=1)
    else:
        at = table_map.lines["map"] - 1
        end = lines[at][len(lines[at].rstrip("\r\n")) :] or "\n"
        lines[at] = lines[at].rstrip("\r\n") + f"{end}version: {version}{end}"
    made = "".join(lines)
    return made if _is(made, replace(table_map, version=version)) else None


def _is(text: str, wanted: TableMap) -> bool:
    """Does the text say this, and nothing else?"""
    try:
        return write_map(read_map(text, "")) == write_map(wanted)
    except Invalid:
        return False
