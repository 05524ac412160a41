"""What a person declares of a side's tables (``schema/left.yaml``), laid over what the system says of itself.

For databases and views that do not tell their keys, references, choices or collations.  ``read_declared`` reads the
file, ``complete`` adds it to a reflected schema and reports what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dualwrite.document import Entries, Findings, Items, Node, Text, entries, flag, list_of, read, text_of
from dualwrite.errors import Problem
from dualwrite.model import Path, read_path, show_path
from dualwrite.names import guess, match
from dualwrite.schema import Branch, Column, ColumnType, Polymorphic, Reference, Schema, Table, TypeName


@dataclass(frozen=True, slots=True)
class DeclaredColumn:
    """What is declared of a column; None leaves what the system says."""

    name: str
    type: ColumnType | None = None
    nullable: bool | None = None
    read_only: bool | None = None
    empty_is_null: bool | None = None
    ignore_case: bool | None = None
    ignore_trailing_blanks: bool | None = None
    choices: tuple[tuple[str, str], ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """What is declared of a table.  ``empty_is_null`` holds for all its text columns, ``label`` is what people call it.

    ``lines`` tells where its key, its company and each of its references stand.  The references of ``polymorphic``
    lookups stand among the others.
    """

    name: str
    key: tuple[Path, ...] = ()
    company: Path | None = None
    columns: tuple[DeclaredColumn, ...] = ()
    references: tuple[Reference, ...] = ()
    polymorphic: tuple[Polymorphic, ...] = ()
    empty_is_null: bool | None = None
    label: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared of a side.  ``empty_is_null`` holds for all its text columns."""

    tables: Mapping[str, DeclaredTable] = field(default_factory=dict)
    empty_is_null: bool | None = None
    file: str = ""


_FLAGS = ("nullable", "read_only", "empty_is_null", "ignore_case", "ignore_trailing_blanks")
_TABLE = ("label", "key", "company", "columns", "references", "empty_is_null")
_TYPE = re.compile(r"(?P<name>[a-z]+)\s*(?:\(\s*(?P<first>\d{1,9})\s*(?:,\s*(?P<second>\d{1,9})\s*)?\))?", re.ASCII)
_TYPES = tuple(name.value for name in TypeName)
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_Read = TypeVar("_Read")


def read_declared(text: str, file: str) -> Declared:
    """The declarations in a file's text; raises Invalid with everything that is wrong."""
    findings = Findings(file)
    node = read(text, findings)
    top = entries(node, "a schema file", ("tables", "empty_is_null"), findings) if node else {}
    declared = Declared(
        _get(top, "tables", _tables, findings) or {}, _get(top, "empty_is_null", flag, findings), findings.file
    )
    findings.raise_if_any()
    return declared


def _get(
    found: Mapping[str, tuple[Text, Node]],
    name: str,
    read_entry: Callable[[Node, str, Findings], _Read],
    findings: Findings,
) -> _Read | None:
    return read_entry(found[name][1], name, findings) if name in found else None


def _tables(node: Node, what: str, findings: Findings) -> dict[str, DeclaredTable]:
    found = entries(node, what, None, findings)
    return {name: _table(name, key.line, value, findings) for name, (key, value) in found.items()}


def _table(name: str, line: int, node: Node, findings: Findings) -> DeclaredTable:
    found = entries(node, f"table {name}", _TABLE, findings)
    references, polymorphic = _get(found, "references", _references, findings) or ((), ())
    label = _get(found, "label", text_of, findings)
    return DeclaredTable(
        name,
        key=_get(found, "key", lambda item, what, _: list_of(item, what, _path, findings), findings) or (),
        company=_get(found, "company", _path, findings),
        columns=_get(found, "columns", _columns, findings) or (),
        references=references,
        polymorphic=polymorphic,
        empty_is_null=_get(found, "empty_is_null", flag, findings),
        label=label or "",
        line=line,
        lines=_lines(found),
    )


def _lines(found: Mapping[str, tuple[Text, Node]]) -> dict[str, int]:
    lines = {name: key.line for name, (key, _) in found.items()}
    references = found["references"][1] if "references" in found else None
    if isinstance(references, Entries):
        lines |= {_reference_entry(key.value or ""): key.line for key, _ in references.pairs}
    return lines


def _reference_entry(name: str) -> str:
    return f"references.{name}"


def _path(node: Node, what: str, findings: Findings) -> Path | None:
    """A text with dots, or a list of steps where names hold dots."""
    if isinstance(node, Items):
        return list_of(node, what, text_of, findings) or None
    text = text_of(node, what, findings)
    return read_path(text) if text is not None else None


def _columns(node: Node, what: str, findings: Findings) -> tuple[DeclaredColumn, ...]:
    found = entries(node, what, None, findings)
    return tuple(_column(name, key.line, value, findings) for name, (key, value) in found.items())


def _column(name: str, line: int, node: Node, findings: Findings) -> DeclaredColumn:
    found = entries(node, f"column {name}", ("type", "choices", *_FLAGS), findings)
    flags = {word: _get(found, word, flag, findings) for word in _FLAGS}
    return DeclaredColumn(
        name,
        type=_get(found, "type", _type, findings),
        choices=_get(found, "choices", _choices, findings) or (),
        line=line,
        **flags,
    )


def _type(node: Node, what: str, findings: Findings) -> ColumnType | None:
    text = text_of(node, what, findings)
    if text is None:
        return None
    try:
        return column_type(text)
    except ValueError as error:
        findings.add("bad_entry", node.line, str(error), guess(text.partition("(")[0].strip(), _TYPES))
        return None


def column_type(text: str) -> ColumnType:
    """A type as ``str(ColumnType)`` writes it, and ``integer(16|32|64)``; raises ValueError for anything else."""
    found = _TYPE.fullmatch(text.strip().lower())
    if found is None or found["name"] not in _TYPES:
        raise ValueError(f"{text!r} is not a type")
    name = TypeName(found["name"])
    first, second = (int(number) if number else None for number in (found["first"], found["second"]))
    if first is None:
        return ColumnType(name)
    if name is TypeName.NUMERIC and (second or 0) <= first:
        return ColumnType(name, precision=first, scale=second or 0)
    if name in (TypeName.TEXT, TypeName.BYTES, TypeName.CHOICE) and second is None:
        return ColumnType(name, length=first)
    if name is TypeName.INTEGER and second is None and first in (16, 32, 64):
        return ColumnType(name, bits=first)
    raise ValueError(f"{text!r}: {name.value} has no such limits")


def _choices(node: Node, what: str, findings: Findings) -> tuple[tuple[str, str], ...]:
    """``{name: number}``; every number once."""
    pairs: dict[str, str] = {}
    for name, (key, value) in entries(node, what, None, findings).items():
        number = text_of(value, f"choice {name}", findings)
        if number is None:
            continue
        if not _NUMBER.fullmatch(number):
            findings.add("bad_entry", key.line, f"choice {name} has the number {number!r}", "write a whole number")
        elif number in pairs:
            findings.add("bad_entry", key.line, f"choices {pairs[number]} and {name} have the same number {number}")
        else:
            pairs[number] = name
    return tuple((name, number) for number, name in pairs.items())


_PARTS = ("table", "columns", "to")
_WRITE = "write {table: TABLE, columns: [COLUMN], to: [COLUMN OF THE OTHER TABLE]}"


def _references(node: Node, what: str, findings: Findings) -> tuple[tuple[Reference, ...], tuple[Polymorphic, ...]]:
    """The plain references, those of polymorphic lookups among them, and the polymorphic lookups."""
    references: list[Reference] = []
    polymorphic: list[Polymorphic] = []
    for name, (_, value) in entries(node, what, None, findings).items():
        if isinstance(value, Entries) and any(key.value == "targets" for key, _ in value.pairs):
            lookup, led = _polymorphic(name, value, findings)
            polymorphic.append(lookup)
            references += led
        else:
            found = entries(value, f"reference {name}", _PARTS, findings)
            reference = _reference(name, f"reference {name}", value.line, found, findings)
            references += [reference] if reference is not None else []
    return tuple(references), tuple(polymorphic)


def _reference(
    name: str, what: str, line: int, found: Mapping[str, tuple[Text, Node]], findings: Findings
) -> Reference | None:
    for part in _PARTS:
        if part not in found:
            findings.add("missing_key", line, f"{what} needs {part}:", _WRITE)
    table = _get(found, "table", text_of, findings)
    columns = _get(found, "columns", _names, findings) or ()
    to = _get(found, "to", _names, findings) or ()
    if columns and to and len(columns) != len(to):
        message = f"{what} pairs {len(columns)} columns with {len(to)}"
        findings.add("bad_entry", line, message, "columns and to must have the same length")
    return Reference(name, columns, table, to) if table else None


def _polymorphic(name: str, node: Node, findings: Findings) -> tuple[Polymorphic, list[Reference]]:
    """``{columns: [ID], type: TYPE, targets: {word: {table: TABLE, to: [ID]}}}``, or columns of its own per target."""
    found = entries(node, f"reference {name}", ("columns", "type", "targets"), findings)
    kind = _get(found, "type", text_of, findings)
    if ("columns" in found) != ("type" in found):
        remedy = "name both the column of the id and the one of its type, or give each target its own columns:"
        findings.add("bad_entry", node.line, f"reference {name} needs columns: and type: together", remedy)
    branches: list[Branch] = []
    references: list[Reference] = []
    for word, (_, value) in entries(found["targets"][1], "targets", None, findings).items():
        what = f"reference {name}, target {word}"
        own = entries(value, what, (*_PARTS, "value"), findings)
        shared = {"columns": found["columns"]} if "columns" in found and "columns" not in own else {}
        reference = _reference(f"{name}.{word}", what, value.line, {**own, **shared}, findings)
        if reference is not None:
            references.append(reference)
            branches.append(Branch(word, reference.name, _value(own, findings) or word))
    if not branches and not findings.problems:
        findings.add("bad_entry", node.line, f"reference {name} has no targets", "write targets: {WORD: {table: …}}")
    return Polymorphic(name, tuple(branches), kind), references


def _value(found: Mapping[str, tuple[Text, Node]], findings: Findings) -> str | None:
    return text_of(found["value"][1], "value", findings) if "value" in found else None


def _names(node: Node, what: str, findings: Findings) -> tuple[str, ...]:
    return list_of(node, what, text_of, findings)


def complete(schema: Schema, declared: Declared) -> tuple[Schema, list[Problem]]:
    """The schema with what is declared laid over it, and a problem for each declaration that does not fit.

    What does not fit is left out.  Names match exactly, else by their letters when that is unique.
    """
    findings = Findings(declared.file)
    tables = {name: _with_empty(table, declared.empty_is_null) for name, table in schema.tables.items()}
    found: dict[str, DeclaredTable] = {}
    for table in declared.tables.values():
        name = match(table.name, tables)
        if name is None:
            message = f"table {table.name!r} does not exist"
            findings.add("unknown_table", table.line, message, guess(table.name, tables))
        else:
            found[name] = table
    for name, table in found.items():
        tables[name] = _with_columns(_with_empty(tables[name], table.empty_is_null), table, findings)
    for name, table in found.items():
        tables[name] = _with_references(tables[name], table, tables, findings)
    for name, table in found.items():
        tables[name] = _with_paths(tables[name], table, tables, findings)
    return Schema(tables), findings.problems


def _with_empty(table: Table, empty_is_null: bool | None) -> Table:
    if empty_is_null is None:
        return table
    columns = (
        replace(column, empty_is_null=empty_is_null) if column.type.name is TypeName.TEXT else column
        for column in table.columns
    )
    return replace(table, columns=tuple(columns))


def _with_columns(table: Table, declared: DeclaredTable, findings: Findings) -> Table:
    columns = {column.name: column for column in table.columns}
    for wanted in declared.columns:
        name = _column_name(table, wanted.name, wanted.line, findings)
        if name is not None:
            columns[name] = _overlay(columns[name], wanted)
    return replace(table, columns=tuple(columns.values()), label=declared.label)


def _overlay(column: Column, wanted: DeclaredColumn) -> Column:
    flags = {name: getattr(wanted, name) for name in _FLAGS if getattr(wanted, name) is not None}
    column = replace(column, type=wanted.type or column.type, **flags)
    if wanted.choices:
        return replace(column, type=replace(column.type, name=TypeName.CHOICE), choices=wanted.choices)
    return column


def _column_name(table: Table, name: str, line: int, findings: Findings) -> str | None:
    known = [column.name for column in table.columns]
    found = match(name, known)
    if found is None:
        findings.add("unknown_column", line, f"table {table.name} has no column {name!r}", guess(name, known))
    return found


def _with_references(table: Table, declared: DeclaredTable, tables: Mapping[str, Table], findings: Findings) -> Table:
    references = {reference.name: reference for reference in table.references}
    for wanted in declared.references:
        line = _line_of(declared, wanted.name)
        target = match(wanted.table, tables)
        if target is None:
            message = f"reference {wanted.name} leads to table {wanted.table!r}, which does not exist"
            findings.add("unknown_table", line, message, guess(wanted.table, tables))
            continue
        columns = [_column_name(table, name, line, findings) for name in wanted.columns]
        to = [_column_name(tables[target], name, line, findings) for name in wanted.to]
        if None not in columns and None not in to:
            own, theirs = tuple(filter(None, columns)), tuple(filter(None, to))
            references[wanted.name] = Reference(wanted.name, own, target, theirs)
    return _with_polymorphic(replace(table, references=tuple(references.values())), declared, findings)


def _line_of(declared: DeclaredTable, reference: str) -> int:
    names = (reference, reference.partition(".")[0])
    return next((line for name in names if (line := declared.lines.get(_reference_entry(name)))), declared.line)


def _with_polymorphic(table: Table, declared: DeclaredTable, findings: Findings) -> Table:
    """The polymorphic lookups all of whose references are there."""
    lookups = {lookup.name: lookup for lookup in table.polymorphic}
    for wanted in declared.polymorphic:
        line = _line_of(declared, wanted.name)
        kind = _column_name(table, wanted.type, line, findings) if wanted.type else None
        if all(table.reference(branch.reference) for branch in wanted.branches) and bool(kind) == bool(wanted.type):
            lookups[wanted.name] = replace(wanted, type=kind)
    return replace(table, polymorphic=tuple(lookups.values()))


def _with_paths(table: Table, declared: DeclaredTable, tables: Mapping[str, Table], findings: Findings) -> Table:
    key_line, company_line = (declared.lines.get(name, declared.line) for name in ("key", "company"))
    key = [_resolved(table, path, tables, key_line, findings) for path in declared.key]
    company = _resolved(table, declared.company, tables, company_line, findings) if declared.company else None
    whole = tuple(path for path in key if path is not None)
    return replace(
        table, key=whole if whole and len(whole) == len(key) else table.key, company=company or table.company
    )


def _resolved(table: Table, path: Path, tables: Mapping[str, Table], line: int, findings: Findings) -> Path | None:
    """The path with every name as the system spells it."""
    steps: list[str] = []
    for step in path[:-1]:
        known = [reference.name for reference in table.references]
        name = match(step, known)
        reference = table.reference(name) if name else None
        if reference is None or reference.table not in tables:
            message = f"{show_path(path)}: table {table.name} has no reference {step!r}"
            findings.add("unknown_reference", line, message, guess(step, known) or "declare it under references:")
            return None
        steps.append(reference.name)
        table = tables[reference.table]
    last = _column_name(table, path[-1], line, findings)
    return None if last is None else (*steps, last)
