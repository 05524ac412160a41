"""What differs between two texts of a map, column by column and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, TypeAlias

from dualwrite.document import Entries, Findings, flow, plain, read
from dualwrite.mapping.lines import NO_COLUMN
from dualwrite.mapping.tablemap import ColumnMapping, Direction, TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.model import show_path

_Options: TypeAlias = Mapping[str, object]
_WAYS: Final = {Direction.BOTH: "both ways", Direction.TO_RIGHT: "left to right", Direction.TO_LEFT: "right to left"}
_NUMBERED: Final = ("map", "version", "publisher", "columns")
_LONG: Final = ("left", "direction", "right")
_POLICY: Final = "conflict"
_LIST: Final = "transforms"
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.  ``what`` changed ``where``, a pair of columns or an entry of the map; texts, None for none.

    ``what`` is ``added``, ``removed``, ``paired``, ``direction``, ``transform``, ``policy``, ``filter``, ``key``,
    ``entry`` or ``order``.
    """

    what: str
    where: str
    was: str | None = None
    now: str | None = None

    def __str__(self) -> str:
        match self.what:
            case "added":
                return f"{self.where}: added, {self.now}"
            case "removed":
                return f"{self.where}: removed, was {self.was}"
            case "order":
                return "the columns stand in another order, which changes nothing"
        if self.now is None:
            return f"{self.where} is gone, was {self.was}"
        return f"{self.where} is now {self.now}" + ("" if self.was is None else f", was {self.was}")


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A column line with its options as they are written."""

    mapping: ColumnMapping
    options: _Options


def _pair(mapping: ColumnMapping) -> object:
    return mapping.left, mapping.right


_PARTS: Final[tuple[Callable[[ColumnMapping], object], ...]] = (_pair, attrgetter("left"), attrgetter("right"))


def differences(before: TableMap, after: TableMap) -> list[Difference]:
    """What ``after`` says differently; their versions and publishers are not looked at."""
    old, new = _written(before), _written(after)
    found = [
        each for name in _names(old, new) for each in _entry(name, old.get(name, _MISSING), new.get(name, _MISSING))
    ]
    return found + list(_columns(_lines(before, old), _lines(after, new)))


def _written(table_map: TableMap) -> Mapping[str, object]:
    """The map's entries as plain values, in the one way in which maps are written."""
    findings = Findings("")
    node = read(write_map(table_map), findings)
    assert isinstance(node, Entries)
    found = plain(node, findings)
    assert isinstance(found, dict)
    return found


def _names(old: _Options, new: _Options) -> list[str]:
    return [name for name in dict.fromkeys([*old, *new]) if name not in _NUMBERED]


def _entry(name: str, was: object, now: object) -> Iterator[Difference]:
    if name == "filter":
        olds, news = (each if isinstance(each, dict) else {} for each in (was, now))
        for side in dict.fromkeys([*olds, *news]):
            if olds.get(side, _MISSING) != news.get(side, _MISSING):
                yield Difference(
                    "filter", f"filter {side}", _text(olds.get(side, _MISSING)), _text(news.get(side, _MISSING))
                )
    elif was != now:
        yield Difference("key" if name == "key" else "entry", name, _text(was), _text(now))


def _text(value: object) -> str | None:
    """A value for people; None for what is not there."""
    return None if value is _MISSING else value if isinstance(value, str) else flow(value)


# ----------------------------------------------------------------------------------------------------- columns


def _lines(table_map: TableMap, written: Mapping[str, object]) -> list[_Line]:
    texts = written["columns"]
    assert isinstance(texts, list)
    return [_Line(mapping, _options(text)) for mapping, text in zip(table_map.columns, texts, strict=True)]


def _options(line: object) -> _Options:
    """The options of a written line: none, those behind a short one, or those of a long one."""
    if not isinstance(line, dict):
        return {}
    if "direction" in line:
        return {name: value for name, value in line.items() if name not in _LONG}
    (behind,) = line.values()
    return behind if isinstance(behind, dict) else {_LIST: behind}


def _columns(old: Sequence[_Line], new: Sequence[_Line]) -> Iterator[Difference]:
    partners = _partners(old, new)
    taken = {id(line) for line in partners.values()}
    for line in old:
        partner = partners.get(id(line))
        if partner is None:
            yield Difference("removed", _name(line.mapping), _told(line), None)
        else:
            yield from _changed(line, partner)
    for line in new:
        if id(line) not in taken:
            yield Difference("added", _name(line.mapping), None, _told(line))
    kept = [id(partners[id(line)]) for line in old if id(line) in partners]
    if kept != [id(line) for line in new if id(line) in taken]:
        yield Difference("order", "columns")


def _partners(old: Sequence[_Line], new: Sequence[_Line]) -> dict[int, _Line]:
    """Each old line's new one: of the same pair of columns, else the only one left of the same left or right column."""
    found: dict[int, _Line] = {}
    olds, news = list(old), list(new)
    for part in _PARTS:
        for line in tuple(olds):
            wanted = part(line.mapping)
            same, rivals = ([other for other in lines if part(other.mapping) == wanted] for lines in (news, olds))
            if wanted is not None and same and (part is _pair or len(same) == len(rivals) == 1):
                found[id(line)] = same[0]
                olds.remove(line)
                news.remove(same[0])
    return found


def _changed(old: _Line, new: _Line) -> Iterator[Difference]:
    name, before, after = _name(old.mapping), old.mapping, new.mapping
    if _pair(before) != _pair(after):
        yield Difference("paired", name, None, _name(after))
        name = _name(after)
    if before.direction is not after.direction:
        yield Difference("direction", f"{name}: direction", _WAYS[before.direction], _WAYS[after.direction])
    was, now = old.options, new.options
    if _LIST in was or _LIST in now:
        was, now = ({_LIST: options.get(_LIST, [options] if options else [])} for options in (was, now))
    for option in dict.fromkeys([*was, *now]):
        yield from _option(f"{name}: {option}", option, was.get(option, _MISSING), now.get(option, _MISSING))


def _option(where: str, option: str, was: object, now: object) -> Iterator[Difference]:
    what = "policy" if option == _POLICY else "transform"
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*was, *now]):
            ends = [f"{flow(key)} → {flow(values[key])}" if key in values else None for values in (was, now)]
            if ends[0] != ends[1]:
                yield Difference(what, where, *ends)
    elif was != now:
        yield Difference(what, where, _text(was), _text(now))


def _name(mapping: ColumnMapping) -> str:
    return " – ".join(show_path(path) if path else NO_COLUMN for path in (mapping.left, mapping.right))


def _told(line: _Line) -> str:
    """A whole line in words."""
    options = f", {flow(dict(line.options))}" if line.options else ""
    return _WAYS[line.mapping.direction] + options
