"""What can be said of maps without their systems: they are held against the tables that they speak of themselves.

Every table has just the columns that the maps name.  Integration keys, where they are known, say what identifies a
record, and by what lookups must find theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dualwrite.errors import Problem
from dualwrite.expression import paths
from dualwrite.mapping.check import check_between, check_maps
from dualwrite.mapping.d365_columns import related_table
from dualwrite.mapping.d365_keys import Keys
from dualwrite.mapping.tablemap import ColumnMapping, TableMap, Written
from dualwrite.model import Path, Side, targets_of
from dualwrite.names import match
from dualwrite.schema import Branch, Column, ColumnType, Polymorphic, Reference, Schema, Table, TypeName

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "key_unknown": (
        "An export says nothing about integration keys, so it cannot be checked that maps carry them.",
        "give the connection set, or the keys alone, with --keys",
    ),
}
_UNKNOWABLE: Final = frozenset(
    (
        "no_unique_index",
        "several_keys",
        "mandatory_unmapped",
        "mandatory_may_be_null",
        "company_missing",
        "may_lose_data",
    )
)
"""What only the systems can tell."""
_ID: Final = "the id"


def check_alone(maps: Sequence[TableMap], keys: Keys | None = None) -> list[Problem]:
    """Everything that is wrong or doubtful about maps by themselves.

    Each is held against tables of its own: what another map names is not known to be there.
    """
    unknowable = _UNKNOWABLE if keys is not None else _UNKNOWABLE | {"no_key"}
    problems = [problem for each in maps for problem in check_maps([each], *_schemas([each], keys))]
    problems = [problem for problem in problems if problem.code not in unknowable]
    together = check_between(maps, *_schemas(maps, keys))
    problems += [replace(each, level="warning") for each in together]  # nobody says which maps run together
    if keys is None and maps:
        meaning, remedy = CODES["key_unknown"]
        problems.append(Problem("key_unknown", meaning, remedy, "warning", maps[0].file))
    return problems


def _schemas(maps: Sequence[TableMap], keys: Keys | None) -> tuple[Schema, Schema]:
    return _Tables(Side.LEFT, keys).of(maps), _Tables(Side.RIGHT, keys).of(maps)


@dataclass
class _Draft:
    """A table as far as it has been spoken of."""

    columns: dict[str, str] = field(default_factory=dict)
    lookups: dict[str, str] = field(default_factory=dict)
    forks: dict[str, dict[str, str]] = field(default_factory=dict)
    sought: dict[Path, None] = field(default_factory=dict)


class _Tables:
    """The tables of one side, as maps speak of them."""

    def __init__(self, side: Side, keys: Keys | None) -> None:
        self.side, self.keys = side, keys
        self.drafts: dict[str, _Draft] = {}

    def of(self, maps: Iterable[TableMap]) -> Schema:
        """All of them."""
        for table_map in maps:
            table = table_map.table(self.side)
            self._draft(table)
            for path, line in self._paths(table_map):
                self._place(table, path, line)
        return Schema({name: self._table(name, draft) for name, draft in self.drafts.items()})

    def _paths(self, table_map: TableMap) -> Iterator[tuple[Path, ColumnMapping | None]]:
        """The paths of a map, plain ones first: what one names as a lookup, another may name as a column."""
        lines = [(path, line) for line in table_map.columns if (path := line.path(self.side)) is not None]
        yield from sorted(lines, key=lambda found: len(found[0]))
        found = table_map.filters.get(self.side)
        for path in paths(found.expression if isinstance(found, Written) else found):
            yield path, None
        if table_map.company is not None:
            yield getattr(table_map.company, self.side.value), None
        if self.side is Side.RIGHT:
            for path in table_map.key or ():
                yield path, None

    def _draft(self, table: str) -> _Draft:
        if table not in self.drafts:
            self.drafts[table] = _Draft()
            key = self._key_of(table)
            for path in key:
                self._place(table, path, None)
        return self.drafts[table]

    def _key_of(self, table: str) -> tuple[Path, ...]:
        key = self.keys.of(table) if self.keys is not None and self.side is Side.RIGHT else None
        if key is None:
            return ()
        return (*key.members, key.company) if key.company is not None else key.members

    def _place(self, table: str, path: Path, line: ColumnMapping | None) -> None:
        """Make sure that a path leads somewhere."""
        draft = self._draft(table)
        step, rest = path[0], path[1:]
        if targets := targets_of(path):
            for word, inner in targets:
                target = self._fork(draft, table, step, word)
                self._place(target, inner, None)
                self.drafts[target].sought[inner] = None
        elif rest:
            name = match(step, draft.lookups) or step
            target = draft.lookups.setdefault(name, self._behind(table, name, line))
            self._place(target, rest, None)
            self.drafts[target].sought[rest] = None
        else:
            draft.columns.setdefault(match(step, draft.columns) or step, step)

    def _behind(self, table: str, step: str, line: ColumnMapping | None) -> str:
        """The table behind a lookup: the one that an export names, where its key is known, else one of its own."""
        named = related_table(line) if line is not None else None
        return named if named and self._key_of(named) else f"{table}.{step}"

    def _fork(self, draft: _Draft, table: str, step: str, word: str) -> str:
        known = draft.forks.setdefault(step, {})
        named = self.keys is not None and self.keys.of(word) is not None
        return known.setdefault(match(word, known) or word, word if named else f"{table}.{step}.{word}")

    def _table(self, name: str, draft: _Draft) -> Table:
        references = [Reference(step, (f"{step} ",), target, (_ID,)) for step, target in draft.lookups.items()]
        references += [
            Reference(f"{step} {word}", (f"{step} ",), target, (_ID,))
            for step, branches in draft.forks.items()
            for word, target in branches.items()
        ]
        forks = tuple(
            Polymorphic(step, tuple(Branch(word, f"{step} {word}", word) for word in branches), f"{step} type")
            for step, branches in draft.forks.items()
        )
        names = [*draft.columns, *(reference.columns[0] for reference in references), _ID]
        names += [f"{step} type" for step in draft.forks]
        columns = tuple(Column(each, ColumnType(TypeName.OTHER)) for each in dict.fromkeys(names))
        key, company = self._key(name, draft), self._company(name)
        return Table(name, columns, (_ID,), ((_ID,),), tuple(references), key, company, forks)

    def _key(self, name: str, draft: _Draft) -> tuple[Path, ...]:
        """The key that is known; else a table behind a lookup is known by all that the map looks for there."""
        return self._key_of(name) or tuple(draft.sought)

    def _company(self, name: str) -> Path | None:
        key = self.keys.of(name) if self.keys is not None and self.side is Side.RIGHT else None
        return key.company if key is not None else None
