"""The integration keys of a Dual-write link: Dual-write keeps them in its connection set, not in its maps.

``read_keys`` takes that connection set as its service returns it, the body by which keys are set, and plain lists of
columns by table.  ``with_key`` gives a map its key, and its company where the key has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dualwrite.errors import Invalid, Problem
from dualwrite.mapping.d365_columns import Unreadable, path_of
from dualwrite.mapping.jsontext import Json, read_json
from dualwrite.mapping.tablemap import Company, TableMap
from dualwrite.model import Path

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "bad_keys": (
        "A file holds no integration keys.",
        'give it the connection set as JSON, or {"accounts": ["accountnumber", "msdyn_company.cdm_companycode"]}',
    ),
    "contradictory_keys": (
        "A file names two integration keys of one table.",
        "leave the key that counts; Dual-write shows it under Environment details",
    ),
}
LEFT_COMPANY: Final[Path] = ("DATAAREAID",)
"""The column in which every company-specific entity of the left system has its company."""
_COMPANY_CODE = "cdm_companycode"


@dataclass(frozen=True, slots=True)
class Key:
    """The members of an integration key; ``company`` is the one that says which company a record belongs to."""

    members: tuple[Path, ...]
    company: Path | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of tables.  Tables are found by their plural or singular names."""

    tables: Mapping[str, Key]

    def of(self, table: str) -> Key | None:
        """The key of a table."""
        return self.tables.get(_stem(table))


def _stem(name: str) -> str:
    """One form for ``account`` and ``accounts``, ``company`` and ``companies``, ``class`` and ``classes``."""
    folded = name.casefold()
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("s", "")):
        if folded.endswith(ending) and not folded.endswith("ss"):
            return folded[: -len(ending)] + instead
    return folded


def read_keys(text: str, file: str) -> Keys:
    """The keys in a text of JSON; raises Invalid with all that is wrong."""
    problems: list[Problem] = []
    found: dict[str, Key] = {}
    for table, columns, company in _tables(read_json(text, file), file, problems):
        key = _key(table, columns, company, file, problems)
        if key is not None and found.setdefault(_stem(table), key) != key:
            problems.append(_problem("contradictory_keys", f"{table} has two different keys", file))
    if not found and not problems:
        problems.append(_problem("bad_keys", "there is no integration key in it", file))
    if problems:
        raise Invalid(problems)
    return Keys(found)


def _problem(code: str, message: str, file: str) -> Problem:
    return Problem(code, message, CODES[code][1], file=file)


def _key(table: str, columns: Json, company: Json, file: str, problems: list[Problem]) -> Key | None:
    try:
        if not isinstance(columns, list) or not columns:
            raise Unreadable("a key is a list of columns")
        members = [path_of(column) for column in columns]
        whole = tuple(member for member in members if member is not None)
        if len(whole) < len(members):
            raise Unreadable("a column of the key has no name")
        named = path_of(company) if isinstance(company, str) else None
    except Unreadable as error:
        problems.append(_problem("bad_keys", f"the key of {table}: {error}", file))
        return None
    its = next(
        (member for member in whole if member == named or (len(member) > 1 and member[-1] == _COMPANY_CODE)), None
    )
    return Key(tuple(member for member in whole if member != its) if len(whole) > 1 else whole, its)


_Found = tuple[str, Json, Json]


def _tables(value: Json, file: str, problems: list[Problem]) -> Iterator[_Found]:
    """Tables with the columns of their keys, and the column of their company where that is said."""
    if not isinstance(value, dict):
        problems.append(_problem("bad_keys", "an object was expected", file))
    elif "environments" in value:
        environments = value["environments"]
        for environment in environments.values() if isinstance(environments, dict) else environments or ():
            yield from _schemas(environment)
    else:
        plain = value.get("integrationKeys", value)
        for table, columns in plain.items() if isinstance(plain, dict) else ():
            several = isinstance(columns, list) and bool(columns) and all(isinstance(each, list) for each in columns)
            for each in columns if several else [columns]:
                yield table, each, None


def _schemas(environment: Json) -> Iterator[_Found]:
    """The integration keys among the keys of each table of the right-hand system."""
    schemas = environment.get("schemas") if isinstance(environment, dict) else None
    if not isinstance(schemas, list) or environment.get("targetType", "CRM") != "CRM":
        return
    for schema in schemas:
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
            continue
        for key in _marked(schema.get("keys")):
            yield schema["name"], key.get("fields"), schema.get("primaryCompanyContextField")


def _marked(keys: Json) -> Sequence[Mapping[str, Json]]:
    whole = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []
    return [key for key in whole if key.get("isIntegrationKey") is True]


def with_key(table_map: TableMap, keys: Keys) -> TableMap:
    """The map with its table's key, where that is known."""
    key = keys.of(table_map.right)
    if key is None:
        return table_map
    company = Company(LEFT_COMPANY, key.company) if key.company is not None else table_map.company
    return replace(table_map, key=key.members, company=company)
