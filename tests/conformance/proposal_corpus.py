"""Published maps as a corpus for proposals: two tables by their column facts, and the pairs that people mapped.

The facts say little of the types of Finance & Operations, so its columns are text; Dataverse's have their types, their
choices with labels, and lookups with the key of the table that they lead to.  Each side knows its key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dualwrite.model import Path as ColumnPath
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

SHARED = Path(__file__).parents[2] / ".." / "shared"
TYPES = {
    "boolean": TypeName.BOOLEAN,
    "choice": TypeName.CHOICE,
    "listLookup": TypeName.CHOICE,
    "integer": TypeName.INTEGER,
    "bigInteger": TypeName.INTEGER,
    "decimal": TypeName.NUMERIC,
    "currency": TypeName.NUMERIC,
    "baseCurrency": TypeName.NUMERIC,
    "dateTime": TypeName.TIMESTAMPTZ,
    "date": TypeName.DATE,
    "entityId": TypeName.UUID,
    "guid": TypeName.UUID,
}
IDENTIFYING = ("account", "number", "code", "id")


@dataclass(frozen=True)
class Case:
    """One published map: both schemas, and its pairs of a left column and a right path."""

    name: str
    left: Schema
    right: Schema
    pairs: frozenset[tuple[str, ColumnPath]]
    left_name: str
    right_name: str


def facts(folder: str) -> Iterator[Mapping]:
    """The column facts of one side."""
    for file in sorted((SHARED / "schemas" / folder).glob("*.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def cases() -> list[Case]:
    """All published maps whose two tables are known."""
    entities = {number: each for each in facts("fno") for number in each["maps"]}
    tables: dict[str, Mapping] = {}
    for each in facts("dataverse"):
        for name in (each["table"], each.get("published_set_name"), each["table"] + "s"):
            tables.setdefault(name or each["table"], each)
    found = []
    for file in sorted((SHARED / "maps").glob("*.json")):
        fact = json.loads(file.read_text(encoding="utf-8"))
        entity, table = entities.get(fact["map_number"]), tables.get(fact["dataverse_table"])
        if entity is not None and table is not None:
            found.append(case(fact, entity, table))
    return found


def case(fact: Mapping, entity: Mapping, table: Mapping) -> Case:
    """One map as a case."""
    names = {each["name"].upper(): each["name"] for each in entity["columns"]}
    lookups: dict[str, set[str]] = {}
    pairs = set()
    for field in fact["fields"]:
        left, right = field["fno"], field["dataverse"]
        if left is None or right is None or "polymorphic" in field.get("lookup", {}):
            continue
        steps = tuple(right.split("."))
        if len(steps) > 2:
            continue
        pairs.add((names.get(left.upper(), left), steps))
        if len(steps) == 2:
            lookups.setdefault(steps[0], set()).add(steps[1])
    key = the_key(fact, names)
    left_columns = list(dict.fromkeys([*names.values(), *(left for left, _ in pairs)]))
    uniques = ((key[0],),) if key else ()
    left = Table("subject", tuple(Column(name, ColumnType(TypeName.TEXT)) for name in left_columns), uniques=uniques)
    return Case(
        fact["name"],
        Schema({left.name: left}),
        right_schema(table, lookups, key[1] if key else None, pairs),
        frozenset(pairs),
        entity["table"],
        table["table"],
    )


def the_key(fact: Mapping, names: Mapping[str, str]) -> tuple[str, str] | None:
    """The natural key, as the facts' README finds it."""
    plain = [each for each in fact["fields"] if each["symbol"] in "=><" and "." not in (each["dataverse"] or ".")]
    plain = [each for each in plain if each["fno"]]
    named = [each for each in plain if any(word in each["fno"].lower() for word in IDENTIFYING)]
    first = next(iter([*named, *plain]), None)
    return first and (names.get(first["fno"].upper(), first["fno"]), first["dataverse"])


def right_schema(
    table: Mapping, lookups: Mapping[str, set[str]], key: str | None, pairs: set[tuple[str, ColumnPath]]
) -> Schema:
    """The Dataverse table, and a parent for each of its lookups whose key is known."""
    parents: dict[str, Table] = {}
    references = []
    columns = []
    known = {each["name"]: each for each in table["columns"]}
    for name in dict.fromkeys([*known, *(path[0] for _, path in sorted(pairs))]):
        each = known.get(name, {"type": None})
        kind = TYPES.get(each["type"], TypeName.TEXT)
        members = lookups.get(name) or {path.rpartition(".")[2] for path in each.get("lookup_paths", ())}
        if members:
            kind = TypeName.UUID
            target = f"{each.get('target') or name} {name}"
            text = (Column(member, ColumnType(TypeName.TEXT)) for member in sorted(members))
            parent_columns = (Column("id", ColumnType(TypeName.UUID)), *text)
            parents[target] = Table(target, parent_columns, ("id",), (("id",), tuple(sorted(members))))
            references.append(Reference(name, (name,), target, ("id",)))
        choices = tuple((str(one["label"]), str(one["value"])) for one in each.get("options", ()))
        columns.append(Column(name, ColumnType(kind), choices=choices))
    uniques = ((key,),) if key else ()
    subject = Table("subject", tuple(columns), uniques=uniques, references=tuple(references))
    return Schema({subject.name: subject, **parents})
