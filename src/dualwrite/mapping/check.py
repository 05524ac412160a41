"""What is wrong with a table map, or doubtful, before any row is read: all at once, with file, line and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final, TypeVar

from dualwrite.errors import Problem
from dualwrite.filters import never_both
from dualwrite.losses import incompatible, loses
from dualwrite.mapping.binding import SIDES, Binding, Pair, Report, bind
from dualwrite.mapping.cells import directed, fallback, given_by, spells_null
from dualwrite.mapping.check_values import check_texts, check_values
from dualwrite.mapping.d365_columns import KEPT, unread_entries, unread_transforms
from dualwrite.mapping.paths import natural, show_paths
from dualwrite.mapping.tablemap import (
    POLICIES,
    ROW_POLICIES,
    Case,
    ColumnMapping,
    Default,
    Formula,
    Round,
    TableMap,
    Trim,
    Truncate,
    ValueMap,
    called,
)
from dualwrite.mapping.units import group_pairs, unfit
from dualwrite.model import Path, Side, show_path
from dualwrite.names import guess
from dualwrite.schema import Schema, TypeName

ON_LEAVE: Final = ("detach", "delete")
_Item = TypeVar("_Item")

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "bad_formula": (
        "An expr: names a column that is not there, or its parts do not go together.",
        "correct it at the character that the message names",
    ),
    "bad_value": (
        "A value in the map (default, values, else, filter) is none of its column's values.",
        "write a value that the column can hold",
    ),
    "circular": (
        "One-way lines feed each other in a circle, so that no value of theirs would ever settle.",
        "leave one of them out, or carry one column both ways instead",
    ),
    "company_differs": (
        "The map names another company column than the table declares.",
        "name the same column in company: and in the side's schema file",
    ),
    "company_mismatch": (
        "One side's table belongs to companies and the other side's does not, though other tables there do.",
        "declare the company of the other table in its schema file, or map a table that belongs to companies as well",
    ),
    "company_missing": (
        "A table belongs to companies, but the map has no company: records of different companies may be mixed up.",
        "add company: LEFT = right, or make the company a member of key:",
    ),
    "duplicate_map": ("Two maps have the same name.", "give each map a name of its own"),
    "duplicate_target": ("Two lines of the map write the same column.", "keep one of them"),
    "filters_overlap": (
        "Two maps write the same columns of a table and tell its records apart by their filters alone.",
        "make sure that no record ever passes both filters",
    ),
    "incompatible_types": (
        "No value of the one column can become a value of the other.",
        "map another column, or change the type of one",
    ),
    "key_may_be_absent": (
        "A key column has a value map with else: keep, so that a record could be left without its key.",
        "say else: park for the key column",
    ),
    "key_one_way": (
        "A side gets columns but cannot tell which record they belong to: a key column is not carried there.",
        "carry every key column in all directions in which anything is carried",
    ),
    "key_polymorphic": (
        "A member of the key is a lookup that may lead to several tables: what is carried does not say to which, so "
        "it does not tell records apart.",
        "name other columns in key:",
    ),
    "key_unmapped": (
        "A column of the key is not mapped.",
        "map every column of the key, or name other columns in key:",
    ),
    "lookup_key_unmapped": (
        "A lookup is written, but what is mapped does not identify one record of the table that it points to.",
        "map every member of that table's key, or declare its key in the side's schema file",
    ),
    "lookup_may_find_several": (
        "A record is looked up by what it refers to itself, which is no key of its table; where several match, the "
        "record that looks it up is parked.",
        "map a key of that table, or declare it in the side's schema file",
    ),
    "lookup_mixed_directions": (
        "Some parts of a lookup are carried both ways, some one way: those only help to find the record, and where "
        "they alone differ, both sides count as equal.",
        "carry all parts of the lookup in the same directions",
    ),
    "lookup_not_key": (
        "A column of the referenced record is to be written, but a lookup can only choose a record by its key.",
        "carry it the other way only, or map it in a map of the referenced table",
    ),
    "lookup_polymorphic": (
        "A record is to be found by a lookup of its own that may lead to several tables: what is carried does not say "
        "to which, so it does not tell records apart.",
        "carry it the other way only, or map the key of the record that is looked up",
    ),
    "mandatory_may_be_null": (
        "A mandatory column gets its value from one that may be empty; such records are parked.",
        "say default: VALUE for the column",
    ),
    "mandatory_unmapped": (
        "A mandatory column without a default gets no value, so that no record can be created.",
        "map it, or write a constant into it with default:",
    ),
    "maps_share_records": (
        "Two maps create and delete the same records of a table, each with columns of its own.",
        "say deletes: false in one of them, or give both filters that no record passes together",
    ),
    "may_lose_data": (
        "Some values of the one column do not fit into the other; such records are parked.",
        "widen the column, or say truncate: true or round: true where that is meant",
    ),
    "no_columns": ("The map carries nothing.", "add lines under columns:"),
    "no_key": (
        "Nothing says which left and right records are the same.",
        "say which columns identify a record: key: [COLUMN, …]",
    ),
    "no_source": (
        "A line carries nothing in one of its directions: it has no column there, and no default.",
        "name the column, turn the direction, or say default: VALUE",
    ),
    "no_way_back": (
        "A line is carried both ways through upper, lower, trim or expr, which cannot be undone.",
        "carry it one way, with >> or <<",
    ),
    "no_unique_index": (
        "No unique index stands behind the key: looking records up is slow, and a key may occur twice.",
        "create a unique index on the key's columns",
    ),
    "policy_not_shared": (
        "The order of a column's values is not the same on both sides, so max and min would decide differently there.",
        "use newest, left, right or manual for the column",
    ),
    "read_only_target": (
        "The map writes a column that cannot be written (generated or computed).",
        "carry it out of that side only",
    ),
    "several_keys": (
        "The map names no key, and the tables offer several; an error where nothing speaks for one of them.",
        "name the columns that identify a record: key: [COLUMN, …]",
    ),
    "source_twice": (
        "Two two-way lines share a column: one of them carries back, edits of what the other one leads to are undone.",
        "carry one of them one way, which says the same",
    ),
    "sum_not_number": (
        "sum adds numbers, and this column is none, is part of the key, or has a value map.",
        "use another policy for the column",
    ),
    "unit_policies_differ": (
        "Lines that are decided as one (the parts of a lookup) name different policies.",
        "name the same policy for all parts of the lookup",
    ),
    "transform_on_key": (
        "A key column goes through upper, lower, trim or expr: the other side's record could not be found back.",
        "carry the key as it is, or by a value map",
    ),
    "two_maps_one_column": (
        "Two maps write the same column of the same records.",
        "carry it in one map only, or give both maps filters that no record passes together",
    ),
    "unknown_column": ("A path leads to a column that is not there.", "correct the name"),
    "unknown_filter_column": ("A filter names a column that is not there.", "correct the name"),
    "unknown_lookup": ("A path follows a lookup that is not there.", "correct the name, or declare the reference"),
    "unknown_on_leave": (
        "on_leave is none of detach and delete.",
        "write on_leave: detach or on_leave: delete",
    ),
    "unknown_policy": ("A conflict policy is not known.", f"use one of {', '.join(POLICIES)}"),
    "unknown_row_policy": (
        "The policy for an update against a delete is not known.",
        f"use one of {', '.join(ROW_POLICIES)}",
    ),
    "unknown_table": ("A table is not there.", "correct the name"),
    "bad_field_mapping": (
        "A field mapping came out of Dual-write that no line can say: it is kept for the way back, and nothing else.",
        "write a line for it, or remove it from x-d365",
    ),
    "unread_transform": (
        "A transform came out of Dual-write that is not known: without it, wrong values would be carried.",
        "say what it does with the options of the line, then remove it from x-d365",
    ),
    "unread_filter": (
        "A filter cannot be read; it is kept as it stands, but the map does not run.",
        "write the filter anew, in OData or X++",
    ),
    "value_map_ambiguous": (
        "A value map lists a value twice, with different results.",
        "list every value once",
    ),
    "value_map_not_reversible": (
        "A two-way value map cannot be read backwards: two values become the same one.",
        "carry the column one way, or give every value its own counterpart",
    ),
}
"""What each code means, and what to do about it."""


def check_map(table_map: TableMap, left: Schema, right: Schema) -> list[Problem]:
    """Everything that is wrong or doubtful about one map."""
    return examine(table_map, left, right)[1]


def check_maps(maps: Sequence[TableMap], left: Schema, right: Schema) -> list[Problem]:
    """Everything that is wrong or doubtful about the maps of a link, each and together."""
    problems: list[Problem] = []
    bindings: list[Binding] = []
    for table_map in maps:
        binding, found = examine(table_map, left, right)
        problems += found
        bindings += [binding] if binding is not None else []
    return problems + list(_between(maps, bindings))


def examine(table_map: TableMap, left: Schema, right: Schema) -> tuple[Binding | None, list[Problem]]:
    """The map bound to both schemas (None when a table is unknown), and its problems in the order of its lines."""
    binding, report = bind(table_map, left, right)
    _check_words(report)
    if binding is not None:
        for check in _CHECKS:
            check(binding, report)
    return binding, _finished(report)


def _finished(report: Report) -> list[Problem]:
    unique = dict.fromkeys(replace(found, remedy=found.remedy or CODES[found.code][1]) for found in report.problems)
    return sorted(unique, key=lambda found: found.line)


# -- words ------------------------------------------------------------------------------------------------------------


def _check_words(report: Report) -> None:
    table_map = report.table_map
    for code, entry, word, known in (
        ("unknown_policy", "conflict", table_map.conflict, POLICIES),
        ("unknown_row_policy", "rows", table_map.rows, ROW_POLICIES),
        ("unknown_on_leave", "on_leave", table_map.on_leave, ON_LEAVE),
    ):
        if word is not None and word not in known:
            report.add(code, f"{entry} is {word!r}", guess(word, known), line=report.line(entry))
    for side, unread in table_map.unread.items():
        message = f"the filter {unread.text!r} cannot be read: {unread.reason}"
        report.add("unread_filter", message, line=report.line("filter"), side=side)
    for entry in unread_entries(table_map):
        message = f"nothing is carried by the field mapping {entry}"
        report.add("bad_field_mapping", message, line=report.line(KEPT), level="warning")
    for mapping in table_map.columns:
        for kind in unread_transforms(mapping):
            report.add("unread_transform", f"a transform of type {kind!r} is not known", line=mapping.line)
        word = mapping.conflict
        if word is not None and word not in POLICIES:
            report.add("unknown_policy", f"conflict is {word!r}", guess(word, POLICIES), line=mapping.line)
        _check_source(mapping, report)
    if not table_map.columns:
        report.add("no_columns", "the map has no columns", line=report.line("columns"))


def _check_source(mapping: ColumnMapping, report: Report) -> None:
    constant = any(isinstance(transform, Default | Formula) for transform in mapping.transforms)
    for source in SIDES:
        if not mapping.direction.carries(source):
            continue
        if mapping.path(source.other) is None or (mapping.path(source) is None and not constant):
            shown = show_path(mapping.left or mapping.right or ("none",))
            report.add("no_source", f"nothing of {shown} can be carried to the {source.other} side", line=mapping.line)


# -- columns ----------------------------------------------------------------------------------------------------------


def _check_targets(binding: Binding, report: Report) -> None:
    for side in SIDES:
        into: dict[tuple[str, ...], Pair] = {}
        for pair in binding.pairs:
            if not pair.carries(side.other):
                continue
            path = pair.ends[side].path
            for place in dict.fromkeys((path, _held_in(binding, side, path))):
                first = into.setdefault(place, pair)
                if first is pair:
                    continue
                before = first.ends[side].path
                if first.two_way and pair.two_way and before == path:
                    _check_twice(binding, side, first, pair, report)
                elif before == path or (len(before) == 1) != (len(path) == 1):
                    message = f"{show_path(path)} is written by {first.place} already"
                    report.add("duplicate_target", message, line=pair.mapping.line, side=side)
            _check_writable(binding, side, pair, report)


def _check_twice(binding: Binding, side: Side, first: Pair, pair: Pair, report: Report) -> None:
    column = f"{show_path(pair.ends[side].path)} of {binding.tables[side].name}"
    message = f"{column} is mapped both ways in {first.place} already"
    report.add("source_twice", message, line=pair.mapping.line, side=side)


def _held_in(binding: Binding, side: Side, path: Path) -> Path:
    """The column of the table itself in which a path is stored, where that is one."""
    columns = binding.tables[side].lookup_columns(path[0]) if len(path) > 1 else ()
    return columns if len(columns) == 1 else path


def _check_writable(binding: Binding, side: Side, pair: Pair, report: Report) -> None:
    path = pair.ends[side].path
    for name in _columns_of(binding, side, path):
        column = binding.tables[side].column(name)
        if column is not None and column.read_only:
            message = f"{show_path(path)} of {binding.tables[side].name} cannot be written"
            report.add("read_only_target", message, line=pair.mapping.line, side=side)


def _columns_of(binding: Binding, side: Side, path: Path) -> tuple[str, ...]:
    """The columns of the table itself that hold a path's value."""
    return path if len(path) == 1 else binding.tables[side].lookup_columns(path[0])


def _check_circles(binding: Binding, report: Report) -> None:
    """Columns that are carried both ways are one; what they feed one way must not lead back to them."""
    home: dict[tuple[Side, Path], tuple[Side, Path]] = {}
    for pair in (pair for pair in binding.pairs if pair.two_way):
        left, right = ((side, pair.ends[side].path) for side in SIDES)
        home[right] = home.get(left, left)
        home.setdefault(left, home[right])
    feeds: dict[tuple[Side, Path], set[tuple[Side, Path]]] = {}
    for pair in (pair for pair in binding.pairs if not pair.two_way):
        for source in SIDES:
            if pair.carries(source):
                end = (source.other, pair.ends[source.other].path)
                givers = {home.get((source, path), (source, path)) for path in pair.reads(source)}
                target = home.get(end, end)
                if any(_leads(feeds, target, giver) for giver in givers):
                    message = f"{pair.name} is made of what is made of it"
                    report.add("circular", message, line=pair.mapping.line, side=source.other)
                for giver in givers:
                    feeds.setdefault(giver, set()).add(target)


def _leads(
    feeds: Mapping[tuple[Side, Path], set[tuple[Side, Path]]], start: tuple[Side, Path], goal: tuple[Side, Path]
) -> bool:
    """Does one column feed another, perhaps by way of others?"""
    seen, open_ = {start}, [start]
    while open_:
        here = open_.pop()
        if here == goal:
            return True
        further = feeds.get(here, set()) - seen
        seen |= further
        open_ += further
    return False


def _check_types(binding: Binding, report: Report) -> None:
    for pair in binding.pairs:
        for source in SIDES:
            if pair.carries(source) and (source in pair.ends or pair.computed is not None):
                _check_type(pair, source, report)
        check_texts(pair, report)


def _check_type(pair: Pair, source: Side, report: Report) -> None:
    column, target = given_by(pair, source), pair.ends[source.other].column
    maps = [transform for transform in pair.mapping.transforms if isinstance(transform, ValueMap)]
    listed = {column.type.name, target.type.name} & {TypeName.CHOICE, TypeName.BOOLEAN}
    if maps and (maps[0].otherwise is not None or listed):
        return
    line, side = pair.mapping.line, source.other
    if (reason := incompatible(column, target)) is not None:
        report.add("incompatible_types", reason, line=line, side=side)
        return
    asked = Truncate if target.type.name in (TypeName.TEXT, TypeName.OTHER) else Round
    meant = any(isinstance(transform, asked) for transform in pair.mapping.transforms)
    loss = None if meant or maps else loses(column, target)
    if loss is not None:
        report.add("may_lose_data", loss, line=line, side=side, level="warning")


def _check_mandatory(binding: Binding, report: Report) -> None:
    for side in SIDES:
        if not binding.carried(side.other):
            continue
        table, written = binding.tables[side], binding.written(side)
        filled = {name for path in written for name in _columns_of(binding, side, path)}
        for column in table.columns:
            if not (column.nullable or column.has_default or column.read_only or column.name in filled):
                message = f"{table.name} needs {column.name}, which has no default and is not mapped"
                report.add("mandatory_unmapped", message, line=report.line("columns"), side=side)
        for path, pair in written.items():
            columns = [found for name in _columns_of(binding, side, path) if (found := table.column(name)) is not None]
            if pair not in binding.key and not any(column.nullable for column in columns):
                _check_null(binding, side, pair, report)


def _check_null(binding: Binding, side: Side, pair: Pair, report: Report) -> None:
    """Can the source be empty where the target must not?"""
    source = side.other
    if source not in pair.ends or fallback(pair, source) is not None:
        return
    path, column = pair.ends[source].path, pair.ends[source].column
    held = [binding.tables[source].column(name) for name in _columns_of(binding, source, path)]
    spelled = spells_null(column) and not column.choices
    empty = spelled or column.nullable or any(each is not None and each.nullable for each in held)
    maps = [transform for transform in pair.mapping.transforms if isinstance(transform, ValueMap)]
    lists_null = any(member is None for each in maps for member, _ in directed(source, each))
    if empty and not lists_null:
        message = f"{pair.name}: {show_path(path)} may be empty, {binding.tables[side].name} needs a value"
        report.add("mandatory_may_be_null", message, line=pair.mapping.line, side=side, level="warning")


# -- the key and the company ------------------------------------------------------------------------------------------


def _check_key(binding: Binding, report: Report) -> None:
    line = report.line("key")
    for pair in binding.key:
        for source in SIDES:
            other = next((p for p in binding.pairs if p not in binding.key and p.carries(source)), None)
            if other is not None and not pair.carries(source):
                message = f"the key column {pair.name} is not carried to the {source.other} side, but {other.name} is"
                report.add("key_one_way", message, line=pair.mapping.line or line, side=source.other)
        for side in SIDES:
            path = pair.ends[side].path
            if binding.schemas[side].branches(binding.tables[side].name, path):
                message = f"{show_path(path)} may lead to several tables, so it cannot tell records apart"
                report.add("key_polymorphic", message, line=pair.mapping.line or line, side=side)
        texts = [step for step in pair.mapping.transforms if isinstance(step, Case | Trim | Formula)]
        if texts:
            message = f"the key column {pair.name} goes through {called(texts[0])}"
            report.add("transform_on_key", message, line=pair.mapping.line)
        if any(isinstance(t, ValueMap) and t.otherwise == "keep" for t in pair.mapping.transforms):
            message = f"the key column {pair.name} has else: keep"
            report.add("key_may_be_absent", message, line=pair.mapping.line)
    if binding.key and not any(found.code == "key_unmapped" or found.line == line for found in report.problems):
        for side in SIDES:
            _check_index(binding, side, report)
        _check_choice_of_key(binding, report)


def _check_index(binding: Binding, side: Side, report: Report) -> None:
    table, schema = binding.tables[side], binding.schemas[side]
    members = {pair.ends[side].path for pair in binding.key}
    raw = list(dict.fromkeys(n for pair in binding.key for n in _columns_of(binding, side, pair.ends[side].path)))
    for unique in (table.primary_key, *table.uniques):
        if unique and (set(natural(schema, table, unique)) <= members or set(unique) <= set(raw)):
            return
    columns = ", ".join(raw)
    message = f"{table.name} has no unique index on {columns}"
    remedy = f"create one, for instance {table.name}_key on {table.name} ({columns})"
    report.add("no_unique_index", message, remedy, line=report.line("key"), side=side, level="warning")


def _check_choice_of_key(binding: Binding, report: Report) -> None:
    if binding.table_map.key is not None:
        return
    company = binding.company.path(Side.RIGHT) if binding.company else None
    offered = {frozenset(path for path in key if path != company): key for key in reversed(binding.keys)}
    if len(offered) > 1:
        used, *others = reversed(offered.values())
        could = " or ".join(map(show_paths, others))
        message = f"records are told apart by {show_paths(used)}; {could} would do as well"
        equals = any(_rank(binding, key) == _rank(binding, used) for key in others)
        report.add("several_keys", message, line=report.line("right"), level="error" if equals else "warning")


def _rank(binding: Binding, key: Sequence[Path]) -> tuple[bool, bool, bool]:
    """What speaks for a key: it was declared, it is carried wherever anything is, and none of it may be empty."""
    side, company = Side.RIGHT, binding.company.path(Side.RIGHT) if binding.company else None
    table, own = binding.tables[side], [path for path in key if path != company]
    declared = [natural(binding.schemas[side], table, path) if len(path) == 1 else (path,) for path in table.key]
    pairs = [pair for pair in binding.pairs if pair.path(side) in own]
    columns = [table.column(name) for path in own for name in _columns_of(binding, side, path)]
    return (
        {path for paths in declared for path in paths} - {company} == set(own),
        all(any(pair.path(side) == path and pair.two_way for pair in pairs) for path in own),
        not any(column is None or column.nullable for column in columns),
    )


def _check_company(binding: Binding, report: Report) -> None:
    declared = {side: path for side in SIDES if (path := binding.tables[side].company) is not None}
    members = {side: {pair.ends[side].path for pair in binding.key} for side in SIDES}
    for side, path in declared.items():
        name = binding.tables[side].name
        if binding.table_map.company is None and path not in members[side]:
            message = f"the records of {name} belong to companies ({show_path(path)}), the map has no company"
            if side.other in declared:
                report.add("company_missing", message, line=report.line(str(side)), side=side, level="warning")
                continue
            message += f"; those of {binding.tables[side.other].name} do not"
            if any(table.company is not None for table in binding.schemas[side.other].tables.values()):
                report.add("company_mismatch", message, line=report.line(str(side)), side=side)
            else:  # perhaps nobody has told so far what belongs to companies there
                report.add("company_missing", message, line=report.line(str(side)), side=side, level="warning")
        elif binding.company is not None and binding.company.path(side) != path:
            found = show_path(binding.company.path(side) or ())
            message = f"company: names {found}, but the company of {name} is {show_path(path)}"
            report.add("company_differs", message, line=report.line("company"), side=side, level="warning")


# -- policies and lookups ---------------------------------------------------------------------------------------------


def _check_policies(binding: Binding, report: Report) -> None:
    inherited: dict[str, list[str]] = {}
    for name, group in group_pairs(binding):
        own = [pair.mapping.conflict for pair in group if pair.mapping.conflict]
        if len(set(own)) > 1:
            message = f"{name} is decided as one, by {' or '.join(dict.fromkeys(own))}"
            report.add("unit_policies_differ", message, line=group[-1].mapping.line)
        is_key = any(pair in binding.key for pair in group)
        code = unfit(group, own[0] if own else binding.table_map.conflict, is_key=is_key)
        if code and own:
            report.add(code, f"{name} cannot be decided by {own[0]}", line=group[0].mapping.line)
        elif code and not is_key and any(pair.two_way for pair in group):
            inherited.setdefault(code, []).append(name)
    for code, names in inherited.items():
        message = f"{binding.table_map.conflict} cannot decide {', '.join(names)}"
        report.add(code, message, "say conflict: for these columns themselves", line=report.line("conflict"))


def _check_lookups(binding: Binding, report: Report) -> None:
    for side in SIDES:
        lookups = [(lookup.reference.name, lookup.own) for lookup in binding.lookups[side]]
        for name, own in [*lookups, *((each.name, each.own) for each in binding.alternatives[side])]:
            parts = [pair for pair in binding.pairs if pair.path(side) in own and pair.carries(side.other)]
            if len({pair.two_way for pair in parts}) > 1:
                message = f"{name}: {show_paths(own)} are not all carried both ways"
                line = parts[-1].mapping.line
                report.add("lookup_mixed_directions", message, line=line, side=side, level="warning")


_CHECKS: Final[tuple[Callable[[Binding, Report], None], ...]] = (
    _check_targets,
    _check_circles,
    _check_types,
    _check_mandatory,
    check_values,
    _check_key,
    _check_company,
    _check_policies,
    _check_lookups,
)


# -- between maps -----------------------------------------------------------------------------------------------------


def check_between(maps: Sequence[TableMap], left: Schema, right: Schema) -> list[Problem]:
    """What is wrong or doubtful about maps together, each by itself left aside."""
    bindings = [binding for each in maps if (binding := bind(each, left, right)[0]) is not None]
    return list(_between(maps, bindings))


def _between(maps: Sequence[TableMap], bindings: Sequence[Binding]) -> Iterator[Problem]:
    for first, second in _meeting(maps, lambda each: [each.name]):
        report = Report(second)
        where = f" ({first.file})" if first.file else ""
        report.add("duplicate_map", f"there is another map {first.name!r}{where}", line=report.line("map"))
        yield from _finished(report)
    for one, other in _meeting(bindings, lambda each: [(side, each.tables[side].name) for side in SIDES]):
        report = Report(other.table_map)
        for side in SIDES:
            if one.tables[side].name == other.tables[side].name:
                _check_shared(one, other, side, report)
        yield from _finished(report)


def _meeting(items: Sequence[_Item], marks: Callable[[_Item], Iterable[object]]) -> list[tuple[_Item, _Item]]:
    """The pairs of items that have a mark in common, in their order."""
    holders: dict[object, list[int]] = {}
    for number, item in enumerate(items):
        for mark in marks(item):
            holders.setdefault(mark, []).append(number)
    pairs = {pair for numbers in holders.values() for pair in combinations(numbers, 2)}
    return [(items[one], items[other]) for one, other in sorted(pairs)]


def _are_apart(one: Binding, other: Binding, side: Side) -> bool:
    """Surely no record passes both maps' filters?"""
    schema, table = one.schemas[side], one.tables[side].name
    here, there = one.filters.get(side), other.filters.get(side)
    return here is not None and there is not None and never_both(here, there, lambda path: schema.resolve(table, path))


def _check_shared(one: Binding, other: Binding, side: Side, report: Report) -> None:
    """Two maps of one table: do they write the same column of the same record?"""
    taken = {_held_in(one, side, path) for path in one.written(side)}
    both = {path: pair for path, pair in other.written(side).items() if _held_in(other, side, path) in taken}
    values = {path: pair for path, pair in both.items() if pair not in other.key}
    filtered = side in one.table_map.filters and side in other.table_map.filters
    if not both or (filtered and (not values or _are_apart(one, other, side))):
        return
    code = "maps_share_records" if not values else "filters_overlap" if filtered else "two_maps_one_column"
    shared = values or both
    message = f"{one.table_map.name!r} writes {show_paths(list(shared))} of {other.tables[side].name} too"
    line = next(iter(shared.values())).mapping.line
    report.add(code, message, line=line, side=side, level="error" if code == "two_maps_one_column" else "warning")
