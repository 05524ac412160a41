"""Two databases for a table map: tables as the published facts describe them, with the parents that lookups need.

Where the facts are silent, the map's own paths say what there must be: a path with a dot is a lookup into a table with
that column for its key, a value map tells a boolean or a choice, and everything else is text.  Record ``n`` has the
values of number ``n`` in every column, and its lookups lead to parents of the same number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from itertools import product
from pathlib import Path

from dualwrite.declared import Declared, read_declared
from dualwrite.expression import And, Compare, Expression, Not, OneOf, Or, paths
from dualwrite.filters import compile_filter
from dualwrite.mapping.tablemap import ColumnMapping, Default, TableMap, ValueMap, Written
from dualwrite.model import Path as Steps
from dualwrite.model import Side, targets_of
from dualwrite.schema import Column, ColumnType, TypeName

FACTS = Path(__file__).parents[3] / "shared" / "schemas"
COMPANIES = ("usmf", "demf")
RECORDS = 12
ID = "row_id"
_TYPES = {
    "boolean": "boolean", "listLookup": "choice", "choice": "choice", "listLookupCorrelated": "choice",
    "currency": "numeric", "baseCurrency": "numeric", "decimal": "numeric", "double": "numeric",
    "integer": "integer", "bigInteger": "bigint", "dateTime": "timestamp", "date": "date",
}  # fmt: skip
_TELLING = re.compile(r"account|number|code|id$|symbol|name", re.IGNORECASE)
_SQL = {
    "text": "VARCHAR(255)", "boolean": "BOOLEAN", "choice": "INTEGER", "integer": "INTEGER", "bigint": "BIGINT",
    "numeric": "NUMERIC(23,4)", "date": "DATE", "timestamp": "TIMESTAMP",
}  # fmt: skip
_COMMON = {
    "boolean": TypeName.BOOLEAN, "choice": TypeName.INTEGER, "integer": TypeName.INTEGER, "bigint": TypeName.INTEGER,
    "numeric": TypeName.NUMERIC, "date": TypeName.DATE, "timestamp": TypeName.TIMESTAMP,
}  # fmt: skip


def value(kind: str, word: str, number: int) -> object:
    """A value of that kind, another one for each number."""
    match kind:
        case "boolean":
            return bool(number % 2)
        case "choice" | "integer" | "bigint":
            return 100 + number
        case "numeric":
            return f"{100 + number}.5"
        case "date":
            return str(date(2024, 1, 1) + timedelta(days=number))
        case "timestamp":
            return f"{date(2024, 1, 1) + timedelta(days=number)} 00:00:00"
    return f"{word}-{number}"


def listed(values: Sequence[str | None]) -> str:
    """The kind of a column that holds these."""
    words = {each.lower() for each in values if each is not None}
    if words and words <= {"true", "false", "t", "f"}:
        return "boolean"
    return "choice" if words and all(re.fullmatch(r"-?\d+", word) for word in words) else "text"


def typed(kind: str, text: str | None) -> object:
    """A text of a map as a value of that kind."""
    if text is None or kind not in ("boolean", "choice", "integer", "bigint"):
        return text
    return text.lower() in ("true", "t") if kind == "boolean" else int(text)


def literals(expression: Expression | None) -> dict[Steps, list[str | None]]:
    """What a filter compares each of its columns with."""
    found: dict[Steps, list[str | None]] = {}

    def walk(each: Expression) -> None:
        match each:
            case Compare(_, column, literal):
                found.setdefault(column.path, []).append(literal.value)
            case OneOf(column, several):
                found.setdefault(column.path, []).extend(literal.value for literal in several)
            case Not(part):
                walk(part)
            case And(parts) | Or(parts):
                for part in parts:
                    walk(part)

    if expression is not None:
        walk(expression)
    return found


@cache
def facts(folder: str) -> Mapping[str, Mapping[str, dict]]:
    """The published facts about columns, by table and column, in small letters."""
    found: dict[str, dict[str, dict]] = {}
    for path in sorted((FACTS / folder).glob("*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        columns = {column["name"].lower(): column for column in table["columns"]}
        for name in (table["table"], f"{table['table']}s", table.get("label"), table.get("published_set_name")):
            if name:
                found.setdefault(name.lower(), columns)
    return found


@dataclass
class Place:
    """A table: its columns with their kinds, its lookups with the tables that they lead to, and what is unique.

    ``steps`` lead there from the map's own table.  ``forks`` are lookups with a table for each of their words.  A table
    behind one holds some ``numbers`` of records only, and its key is what the ``line`` has on the left.
    """

    name: str
    columns: dict[str, str] = field(default_factory=dict)
    lookups: dict[str, str] = field(default_factory=dict)
    forks: dict[str, dict[str, str]] = field(default_factory=dict)
    unique: list[str] = field(default_factory=list)
    has_id: bool = True
    steps: Steps = ()
    line: ColumnMapping | None = None
    numbers: Sequence[int] = range(RECORDS)

    def ddl(self, numbered: str) -> str:
        """The statement that creates it; ``numbered`` is how the system says that it gives out ids."""
        lines = [f'"{ID}" {numbered}'] if self.has_id else []
        lines += [f'"{name}" {_SQL[kind]}' for name, kind in self.columns.items()]
        lines += [f'"{name}" INTEGER REFERENCES "{table}" ("{ID}")' for name, table in self.lookups.items()]
        lines += [f'"{name}" INTEGER, "{name}_type" VARCHAR(40)' for name in self.forks]
        unique = ", ".join(f'"{name}"' for name in dict.fromkeys(self.unique))
        lines += [f"UNIQUE ({unique})"] if unique else []
        return f'CREATE TABLE "{self.name}" (\n  ' + ",\n  ".join(lines) + "\n)"


class World:
    """The tables of both sides for one map, and the records in them."""

    def __init__(self, table_map: TableMap, entity: str = "") -> None:
        """``entity`` is another name by which the facts know the left table."""
        self.map = table_map
        known = {Side.LEFT: facts("fno"), Side.RIGHT: facts("dataverse")}
        names = {Side.LEFT: entity or table_map.left, Side.RIGHT: table_map.right}
        self.facts = {side: known[side].get(names[side].lower(), {}) for side in Side}
        self.company = table_map.company
        self.key = self._key()
        self.kinds = self._kinds()
        self.fixed = {side: self._passing(side) for side in Side}
        self.parents: dict[str, Place] = {}
        self.places = {Side.LEFT: self._left(), Side.RIGHT: self._right()}

    def _key(self) -> tuple[ColumnMapping, ...]:
        """The lines that identify a record: those of the map's key, else the first that looks like one."""
        whole = [line for line in self.map.columns if line.left and line.right and not line.transforms]
        if self.map.key is not None:
            return tuple(next(line for line in whole if line.right == member) for member in self.map.key)
        needed = [side for side in Side if self.carries(side)]
        fit = [line for line in whole if all(line.direction.carries(side) for side in needed)] or whole
        own = [line for line in fit if line.right and len(line.right) == 1]
        telling = [line for line in own if line.left and _TELLING.search(line.left[0])]
        return tuple((telling or own or fit)[:1])

    def carries(self, source: Side) -> bool:
        """Is anything carried from there?"""
        return any(line.direction.carries(source) and line.path(source) for line in self.map.columns)

    def filter(self, side: Side) -> Expression | None:
        """What the side's filter says."""
        found = self.map.filters.get(side)
        return found.expression if isinstance(found, Written) else found

    # -- kinds --------------------------------------------------------------------------------------------------

    def _kinds(self) -> dict[tuple[Side, Steps], str]:
        """Both ends of a line are of one kind, but for value maps."""
        kinds: dict[tuple[Side, Steps], str] = {}
        for line in self.map.columns:
            pairs = self._pairs(line)
            told = self._told(line)
            if line.left:
                told = kinds.setdefault((Side.LEFT, line.left), "text" if pairs else told)
            if line.right:
                kinds.setdefault((Side.RIGHT, line.right), listed([right for _, right in pairs]) if pairs else told)
        for side in Side:
            for path, values in literals(self.filter(side)).items():
                kinds.setdefault((side, self._spelled(side, path, kinds)), listed(values))
        return kinds

    @staticmethod
    def _spelled(side: Side, path: Steps, kinds: Mapping[tuple[Side, Steps], str]) -> Steps:
        """The path as the lines of the map spell it."""
        names = {World._lower(known): known for each, known in kinds if each is side}
        return names.get(World._lower(path), path)

    @staticmethod
    def _lower(path: Steps) -> Steps:
        return tuple(step.lower() for step in path)

    @staticmethod
    def _pairs(line: ColumnMapping) -> tuple[tuple[str | None, str | None], ...]:
        return next((each.pairs for each in line.transforms if isinstance(each, ValueMap)), ())

    def _told(self, line: ColumnMapping) -> str:
        """What the facts tell of a line's columns: the right one's type counts first."""
        known = [each.value for each in line.transforms if isinstance(each, Default)]
        for side in Side:
            for path, values in literals(self.filter(side)).items():
                known += values if self._lower(path) == self._lower(line.path(side) or ()) else []
        if known:
            return listed(known)
        for side in (Side.RIGHT, Side.LEFT):
            path = line.path(side)
            column = self.facts[side].get(path[-1].lower(), {}) if path and len(path) == 1 else {}
            if column.get("type") in _TYPES:
                return _TYPES[column["type"]]
        return "text"

    # -- tables -------------------------------------------------------------------------------------------------

    def _left(self) -> Place:
        place = Place(self.map.left, self._own(Side.LEFT), has_id=False)
        place.unique = [line.left[-1] for line in self.key if line.left]
        if self.company:
            place.columns.setdefault(self.company.left[-1], "text")
            place.unique.append(self.company.left[-1])
        return self._filled(place, Side.LEFT)

    def _right(self) -> Place:
        place = Place(self.map.right)
        if self.company:
            self._look_up(place, self.company.right)
        for line in self.map.columns:
            if line.right and targets_of(line.right):
                self._fork(place, line)
            elif line.right and len(line.right) > 1:
                self._look_up(place, line.right)
        own = self._own(Side.RIGHT)
        place.columns = {name: kind for name, kind in own.items() if name not in place.lookups}
        place.unique = [line.right[0] for line in self.key if line.right]
        place.unique += [self.company.right[0]] if self.company else []
        return self._filled(place, Side.RIGHT)

    def _own(self, side: Side) -> dict[str, str]:
        return {path[0]: kind for (each, path), kind in self.kinds.items() if each is side and len(path) == 1}

    def _filled(self, place: Place, side: Side) -> Place:
        """With the columns besides that the facts know."""
        taken = {name.lower() for name in (*place.columns, *place.lookups)}
        for name, column in self.facts[side].items():
            if name not in taken and column.get("type") not in ("lookup", "entityId"):
                place.columns[column["name"]] = _TYPES.get(column.get("type"), "text")
        return place

    def _look_up(self, place: Place, path: Steps) -> None:
        """A lookup, and the table behind it with what the path names there."""
        step, rest = path[0], path[1:]
        if place.name == self.map.right and self._is_self(path):
            place.lookups[step] = place.name
            return
        is_company = self.company is not None and step == self.company.right[0]
        steps = () if is_company else (*place.steps, step)
        known = next((name for name, each in self.parents.items() if each.steps == steps and not each.line), None)
        name = known or ("companies" if is_company else f"parent{len(self.parents)}_{step}")
        parent = self.parents.setdefault(name, Place(name, steps=steps))
        place.lookups[step] = name
        if len(rest) > 1:
            self._look_up(parent, rest)
        else:
            parent.columns.setdefault(rest[0], self.kinds.get((Side.RIGHT, path), "text"))
        if not is_company and self.company is not None and place.name == self.map.right:
            self._look_up(parent, self.company.right)
        parent.unique = [*parent.columns, *parent.lookups]

    def _fork(self, place: Place, line: ColumnMapping) -> None:
        """A lookup that leads to one of several tables: each has every other parent."""
        assert line.right
        step, targets = line.right[0], targets_of(line.right)
        for index, (word, (column,)) in enumerate(targets):
            name = f"parent{len(self.parents)}_{word}"
            parent = Place(
                name, {column: "text"}, steps=(step, word), line=line, numbers=range(index, RECORDS, len(targets))
            )
            if self.company is not None:
                self._look_up(parent, self.company.right)
            parent.unique = [*parent.columns, *parent.lookups]
            self.parents[name] = parent
            place.forks.setdefault(step, {})[word] = name

    def _is_self(self, path: Steps) -> bool:
        """Does the lookup name another record of the same table, by a key that is this table's own?"""
        return [line.right for line in self.key] == [path[1:]] and path[1:] != ("msdyn_name",)

    def scripts(self, numbered: str) -> dict[Side, list[str]]:
        """The statements that create the tables, and fill those of parents."""
        behind_first = sorted(self.parents.values(), key=lambda place: (place.name != "companies", -len(place.steps)))
        rows = [self._parent(place, number) for place in behind_first for number in place.numbers]
        tables = [place.ddl(numbered) for place in (*behind_first, self.places[Side.RIGHT])]
        return {Side.LEFT: [self.places[Side.LEFT].ddl(numbered)], Side.RIGHT: [*tables, *filter(None, rows)]}

    def _parent(self, place: Place, number: int) -> str:
        if place.name == "companies":
            if number >= len(COMPANIES):
                return ""
            return f"""INSERT INTO "companies" VALUES ({number + 1}, '{COMPANIES[number]}')"""
        cells = {ID: number + 1} | {name: self._parent_cell(place, name, number) for name in place.columns}
        cells |= {name: self._reference(table, number) for name, table in place.lookups.items()}
        return insert(place.name, cells)

    def _parent_cell(self, place: Place, name: str, number: int) -> object:
        """What the record of that number has in the left column that leads there."""
        if place.line is not None:
            return self.left_cell(place.line, number)
        path = (*place.steps, name)
        line = next((line for line in self.map.columns if line.right == path and line.left), None)
        return self.left_cell(line, number) if line is not None else value(place.columns[name], name, number)

    def _reference(self, table: str, number: int) -> int:
        return number % len(COMPANIES) + 1 if table == "companies" else number + 1

    def choices(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Left columns that the filter compares by number and the map by name, with both."""
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for path, values in literals(self.filter(Side.LEFT)).items():
            spelled = self._spelled(Side.LEFT, path, self.kinds)
            line = next((line for line in self.map.columns if line.left == spelled), None)
            words = [one for one, _ in self._pairs(line)] if line else []
            words += [each.value for each in line.transforms if isinstance(each, Default)] if line else []
            if words and listed(values) == "choice" and listed(words) == "text":
                first = int(values[0] or 0) if len(words) == 1 else 0
                found[spelled[0]] = tuple((str(word), str(first + number)) for number, word in enumerate(words))
        return found

    def declared(self, side: Side) -> Declared:
        """What a person declares: companies, lookups to several tables, letter case, and the numbers of names."""
        tables: dict[str, dict[str, object]] = {self.map.table(side): {}}
        if side is Side.LEFT:
            numbers = {name: {"choices": dict(names)} for name, names in self.choices().items()}
            texts = {path[0] for each, path in self.kinds if each is side and self.kinds[each, path] == "text"}
            columns = {name: {"ignore_case": "true", **numbers.get(name, {})} for name in sorted(texts)}
            tables[self.map.left] = {"columns": columns} if columns else {}
        else:
            tables |= {name: {} for name in self.parents}
            tables[self.map.right] = {"references": self._forked()} if self.places[side].forks else {}
        for name, table in tables.items():
            lookups = self.parents.get(name, self.places[side]).lookups
            if self.company and (side is Side.LEFT or self.company.right[0] in lookups):
                table["company"] = list(getattr(self.company, side.value))
        written = {name: table for name, table in tables.items() if table}
        return read_declared(json.dumps({"tables": written}), f"{side}.yaml") if written else Declared()

    def _forked(self) -> dict[str, object]:
        return {
            name: {"columns": [name], "type": f"{name}_type",
                   "targets": {word: {"table": table, "to": [ID]} for word, table in targets.items()}}
            for name, targets in self.places[Side.RIGHT].forks.items()
        }  # fmt: skip

    # -- records ------------------------------------------------------------------------------------------------

    def _passing(self, side: Side) -> dict[Steps, str | None]:
        """Values with which a record passes the side's filter; constants that the link writes are as they are."""
        expression = self.filter(side)
        if expression is None:
            return {}
        known, names = literals(expression), paths(expression)
        constants = {line.path(side): each.value for line in self.map.columns if line.path(side.other) is None
                     for each in line.transforms if isinstance(each, Default)}  # fmt: skip
        spelled = [self._spelled(side, path, self.kinds) for path in names]
        types = [ColumnType(_COMMON.get(self.kinds[side, path], TypeName.TEXT)) for path in spelled]
        choices = self.choices() if side is Side.LEFT else {}
        columns = [Column(path[-1], type_) for path, type_ in zip(spelled, types, strict=True)]
        columns = [replace(each, type=ColumnType(TypeName.CHOICE), choices=choices[each.name]) if each.name in choices
                   else each for each in columns]  # fmt: skip
        passes = compile_filter(expression, lambda path: (names.index(path), columns[names.index(path)]))
        known = {path: [*known[path], *(name for name, _ in choices.get(each[0], ()))]
                 for path, each in zip(names, spelled, strict=True)}  # fmt: skip
        plain = {line.path(side) for line in self.map.columns if not self._pairs(line)}
        natural = {each: str(value(self.kinds[side, each], each[-1], 1)) if each in plain else None for each in spelled}
        offered = [[constants[each]] if each in constants else [natural[each], *known[path], "other", None]
                   for path, each in zip(names, spelled, strict=True)]  # fmt: skip
        for values in product(*offered):
            cells = [{"true": "t", "false": "f"}.get((each or "").lower(), each) for each in values]
            if passes(tuple(cells)):
                return {path: one for path, one in zip(spelled, values, strict=True) if one != natural[path]}
        raise AssertionError(f"no record passes {expression}")

    def left_cell(self, line: ColumnMapping, number: int) -> object:
        """What a record has on the left side of a line."""
        assert line.left
        kind = self.kinds[Side.LEFT, line.left]
        if line.left in self.fixed[Side.LEFT]:
            return typed(kind, self.fixed[Side.LEFT][line.left])
        if self.company and line.right == self.company.right:
            return COMPANIES[number % len(COMPANIES)]
        if line.right and len(line.right) > 1 and self._is_self(line.right):
            return None if number < len(COMPANIES) else self.left_cell(self.key[0], number % len(COMPANIES))
        if pair := self._pair(line, number):
            return typed(kind, pair[0])
        return value(kind, line.left[-1][:40], number)

    def right_cell(self, line: ColumnMapping, number: int) -> object:
        """What a record has on the right side of a line: a value, or the number of the parent."""
        assert line.right
        kind = self.kinds[Side.RIGHT, line.right]
        if line.right[0] in self.places[Side.RIGHT].forks:
            return number + 1
        if len(line.right) > 1:
            table = self.places[Side.RIGHT].lookups[line.right[0]]
            if table == self.map.right:
                return None if number < len(COMPANIES) else number % len(COMPANIES) + 1
            return self._reference(table, number)
        if line.right in self.fixed[Side.RIGHT]:
            return typed(kind, self.fixed[Side.RIGHT][line.right])
        if pair := self._pair(line, number):
            return typed(kind, pair[1])
        constant = next((each for each in line.transforms if isinstance(each, Default)), None)
        if line.left is None:
            return typed(kind, constant.value) if constant else None
        return self.left_cell(self._first(line.left), number)

    def _first(self, left: Steps) -> ColumnMapping:
        return next(line for line in self.map.columns if line.left == left)

    def _pair(self, line: ColumnMapping, number: int) -> tuple[str | None, str | None] | None:
        """The entry of a value map that a record has; one that leads both ways."""
        pairs = self._pairs(line)
        for index, side in enumerate(Side):
            wanted = self.fixed[side].get(line.path(side) or (), ...)
            pairs = tuple(pair for pair in pairs if wanted is ... or _folded(pair[index]) == _folded(wanted))
        return pairs[number % len(pairs)] if pairs else None

    def record(self, side: Side, number: int) -> dict[str, object]:
        """The record of that number, as the side has it."""
        lines = {line.path(side)[0]: line for line in reversed(self.map.columns) if line.path(side)}
        cell = self.left_cell if side is Side.LEFT else self.right_cell
        cells = {name: cell(line, number) for name, line in lines.items()}
        forks = self.places[side].forks.items()
        cells |= {f"{name}_type": [*targets][number % len(targets)] for name, targets in forks}
        for path, fixed in self.fixed[side].items():
            cells[path[0]] = typed(self.kinds[side, path], fixed)
        if side is Side.RIGHT and number < len(COMPANIES):  # others refer to these
            cells[ID] = number + 1
        if self.company:
            company = number % len(COMPANIES)
            cells[getattr(self.company, side.value)[0]] = COMPANIES[company] if side is Side.LEFT else company + 1
        return cells

    def edits(self, side: Side) -> Iterator[tuple[str, object]]:
        """Columns that may be edited on a side, with another value."""
        ends = [line.path(each) for line in self.map.columns for each in Side]
        taken = {line.path(each) for line in self.key for each in Side} | {
            path for each in Side for path in self.fixed[each]
        }
        for line in self.map.columns:
            path, other = line.path(side), line.path(side.other)
            free = path and other and not taken & {path, other} and ends.count(path) == ends.count(other) == 1
            if free and line.direction.carries(side) and not line.transforms and len(line.right or ()) == 1:
                yield path[0], value(self.kinds[side, path], "edited", 30)

    def named(self, side: Side, number: int) -> dict[str, object]:
        """The cells that tell a record from all others."""
        record = self.record(side, number)
        return {name: record[name] for name in self.places[side].unique}


def _folded(text: str | None) -> str | None:
    return text.lower() if text else text


def insert(table: str, cells: Mapping[str, object]) -> str:
    """A statement that inserts a row."""
    names = ", ".join(f'"{name}"' for name in cells)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(map(shown, cells.values()))})'


def shown(cell: object) -> str:
    """A value in SQL."""
    if cell is None or isinstance(cell, bool):
        return {None: "NULL", True: "TRUE", False: "FALSE"}[cell]
    return str(cell) if isinstance(cell, int) else "'" + str(cell).replace("'", "''") + "'"


def where(cells: Mapping[str, object]) -> str:
    """A condition that names a row."""
    return " AND ".join(f'"{name}" = {shown(cell)}' for name, cell in cells.items())
