"""What has changed in the tables of a map since an engine took it up, and what that means for the map.  Pure.

What an engine has seen of a map's tables stands in the journal (``Seen``).  Held against the schemas of today it tells
each difference, and which of three things it is:

harmless  nothing of the map's values can have changed without the log telling: the map goes on from where it stands
edit      the map's file names what is not there any more
sync      values may have changed, or compare differently, and no log tells of which records
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from dualwrite.errors import Problem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Path, Side, show_path
from dualwrite.schema import Column, ColumnType, Schema, TypeName, View

Meaning: TypeAlias = Literal["harmless", "edit", "sync"]
MEANINGS: Final[Mapping[Meaning, str]] = {
    "harmless": "harmless",
    "edit": "needs the map edited",
    "sync": "needs an initial sync",
}
"""What people are told, the worst last."""
Place: TypeAlias = tuple[str, str]
"""A table and the name of a column of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that has changed: ``what`` it is, what it means, and ``why``."""

    side: Side
    what: str
    meaning: Meaning
    why: str = ""

    def __str__(self) -> str:
        return f"{self.side}: {self.what}"


def worst(found: Iterable[Difference]) -> Meaning:
    """What several differences mean together."""
    meanings = {each.meaning for each in found}
    return next((meaning for meaning in ("sync", "edit") if meaning in meanings), "harmless")


def told(found: Iterable[Difference]) -> str:
    """Differences as one sentence."""
    return "; ".join(dict.fromkeys(map(str, found)))


# -- what was seen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One side of a map as it was seen: what it reads by place, and of its own table the columns, the key and its
    storage."""

    table: str
    columns: Mapping[Place, Column]
    names: tuple[str, ...]
    key: tuple[str, ...]
    storage: Mapping[str, str]

    @classmethod
    def of(cls, schema: Schema, view: View) -> Seen:
        """A view's tables as they are."""
        columns = {place: column for place in places(schema, view) if (column := _at(schema, place)) is not None}
        table = schema.tables[view.table]
        tables = dict.fromkeys([view.table, *(name for name, _ in columns)])
        storage = {name: schema.tables[name].storage for name in tables}
        return cls(table.name, columns, tuple(column.name for column in table.columns), table.primary_key, storage)

    def values(self) -> dict[str, object]:
        """As JSON has it."""
        columns = [[table, _plain(column)] for (table, _), column in self.columns.items()]
        return {
            "table": self.table,
            "columns": columns,
            "names": self.names,
            "key": self.key,
            "storage": dict(self.storage),
        }

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Seen:
        """The inverse of ``values``."""
        columns = {(table, each["name"]): _column(each) for table, each in values["columns"]}
        return cls(values["table"], columns, tuple(values["names"]), tuple(values["key"]), values["storage"])


def _plain(column: Column) -> dict[str, object]:
    return {**asdict(column), "type": {**asdict(column.type), "name": column.type.name.value}}


def _column(values: Mapping[str, Any]) -> Column:
    kind = ColumnType(**{**values["type"], "name": TypeName(values["type"]["name"])})
    choices = tuple((name, number) for name, number in values["choices"])
    return Column(**{**values, "type": kind, "choices": choices})


def seen_text(schemas: Mapping[Side, Schema], compiled: CompiledMap) -> str:
    """Both sides of a map as they are now, as text."""
    return json.dumps({side.value: Seen.of(schemas[side], compiled.views[side]).values() for side in Side})


def seen_from(text: str) -> dict[Side, Seen]:
    """The inverse of ``seen_text``."""
    return {Side(side): Seen.parse(values) for side, values in json.loads(text).items()}


def places(schema: Schema, view: View) -> list[Place]:
    """The columns at which a view looks: those at the ends of its paths, and those of the lookups on the way."""
    parts = [(each.reference, *path) for _, lookups in view.branches for each in lookups for path in each.paths]
    paths = dict.fromkeys([*view.paths, *parts])
    plain = [each for path in paths for each in schema.branches(view.table, path) or (path,)]
    return list(dict.fromkeys(place for path in plain for place in _on_the_way(schema, view.table, path)))


def _on_the_way(schema: Schema, table: str, path: Path) -> Iterator[Place]:
    here = schema.tables.get(table)
    for step in path[:-1]:
        reference = here.reference(step) if here else None
        if here is None or reference is None:
            return
        yield from ((here.name, column) for column in reference.columns)
        yield from ((reference.table, column) for column in reference.to)
        here = schema.tables.get(reference.table)
    if here is not None:
        yield here.name, path[-1]


def _at(schema: Schema, place: Place) -> Column | None:
    table = schema.tables.get(place[0])
    return None if table is None else table.column(place[1])


# -- what differs ----------------------------------------------------------------------------------------------------


def differences(side: Side, before: Seen, schema: Schema, view: View | None) -> list[Difference]:
    """What has changed in what a map looked at; ``view`` is how it looks at it now, None where it cannot any more."""
    table = schema.tables.get(before.table)
    if table is None:
        what = f"table {before.table} was dropped or renamed"
        return [Difference(side, what, "edit", "the map's table is not there")]
    read = None if view is None or view.table != before.table else set(places(schema, view))
    found: list[Difference] = []
    for place, was in before.columns.items():
        is_read = read is None or place in read
        found += _of_column(side, place, was, _at(schema, place), is_read, _is_rewritten(before, schema, place[0]))
    found += _added(side, before, schema, view)
    if before.key != table.primary_key:
        keys = (f"({', '.join(key)})" if key else "none" for key in (before.key, table.primary_key))
        what = "the primary key of {} was {}, and is {}".format(table.name, *keys)
        why = "records are known by the key of the map; where one occurs twice, they are parked"
        found.append(Difference(side, what, "harmless", why))
    return found


def _is_rewritten(before: Seen, schema: Schema, table: str) -> bool:
    now = schema.tables.get(table)
    return now is not None and now.storage != before.storage.get(table, now.storage)


def _of_column(
    side: Side, place: Place, was: Column, now: Column | None, is_read: bool, is_rewritten: bool
) -> Iterator[Difference]:
    name = ".".join(place)
    if not is_read:  # the map has been edited, and does not look there any more
        if now is None:
            yield Difference(
                side, f"column {name} was dropped or renamed", "harmless", "the map does not read it any more"
            )
        return
    if now is None:
        yield Difference(side, f"column {name} was dropped or renamed", "edit", "the map names it")
        return
    if now.mark != was.mark:
        why = "its former values are gone, and the log tells of no record"
        yield Difference(side, f"column {name} was dropped and made anew", "sync", why)
        return
    yield from _of_type(side, name, was, now, is_rewritten)
    if now.read_only and not was.read_only:
        yield Difference(side, f"column {name} is computed now", "sync", "the system has given it other values")
    if (now.ignore_case, now.ignore_trailing_blanks) != (was.ignore_case, was.ignore_trailing_blanks):
        yield Difference(side, f"column {name} compares its values differently", "sync", "other values are equal now")
    if was.nullable and not now.nullable:
        why = "records without a value for it are parked, until they have one"
        yield Difference(side, f"column {name} must not be empty any more", "harmless", why)
    elif now.nullable and not was.nullable:
        yield Difference(side, f"column {name} may be empty now", "harmless", "more fits")


def _of_type(side: Side, name: str, was: Column, now: Column, is_rewritten: bool) -> Iterator[Difference]:
    if was.type == now.type or TypeName.CHOICE in (was.type.name, now.type.name):
        return  # what people declare to be a choice changes no value
    what = f"column {name} was changed from {spelled(was.type)} to {spelled(now.type)}"
    if was.type.name is not now.type.name:
        why = "its values were converted, and the log tells of no record"
        yield Difference(side, what, "sync", why)
    elif not _holds(now.type, was.type):
        yield Difference(side, what, "sync", "values may have been cut, and the log tells of no record")
    elif is_rewritten:
        why = "more fits, but the table was written anew: values may have changed, and the log tells of no record"
        yield Difference(side, what, "sync", why)
    else:
        yield Difference(side, what, "harmless", "more fits")


def _holds(wide: ColumnType, narrow: ColumnType) -> bool:
    """Does everything that fits the one fit the other, written in the same way?"""
    pairs = ((wide.length, narrow.length), (wide.bits, narrow.bits), (_whole(wide), _whole(narrow)))
    return (wide.scale == narrow.scale or wide.scale is None) and all(
        most is None or (known is not None and known <= most) for most, known in pairs
    )


def _whole(kind: ColumnType) -> int | None:
    """The digits before the point."""
    return None if kind.precision is None else kind.precision - (kind.scale or 0)


def spelled(kind: ColumnType) -> str:
    """A type for people, with all its limits."""
    return f"{kind} of {kind.bits} bits" if kind.bits is not None else str(kind)


def _added(side: Side, before: Seen, schema: Schema, view: View | None) -> Iterator[Difference]:
    table = schema.tables[before.table]
    written = set() if view is None else {view.paths[index] for index in view.written}
    for column in table.columns:
        if column.name in before.names or (column.name,) in (() if view is None else view.paths):
            continue
        is_missed = not (column.nullable or column.has_default or column.read_only) and (column.name,) not in written
        why = "the map does not read it"
        if is_missed:
            why = "it must not be empty and has no default: records that are new there are parked, until it has one or"
            why += " the map writes it"
        yield Difference(side, f"column {table.name}.{column.name} was added", "harmless", why)


# -- going on without what is gone -----------------------------------------------------------------------------------


LOST: Final = frozenset({"unknown_column", "unknown_lookup"})


def without_lost(table_map: TableMap, problems: Iterable[Problem]) -> TableMap:
    """The map without the lines that lead to a column that is not there any more."""
    lost = {problem.line for problem in problems if problem.code in LOST and problem.line}
    return replace(table_map, columns=tuple(each for each in table_map.columns if each.line not in lost))


def lost_paths(now: CompiledMap, before: Mapping[Side, Seen], held: Mapping[Side, Sequence[str]]) -> list[str]:
    """The columns that a map reads, and read before, and that nobody followed while it was held: so their changes are
    not known."""
    found = []
    for side in Side:
        view, read = now.views[side], before[side].columns.keys()
        for path in view.paths:
            was_read = (before[side].table, path[0]) in read if len(path) == 1 else True
            if was_read and show_path(path) not in held[side]:
                found.append(f"{side} {view.table}.{show_path(path)}")
    return found
