"""What is wrong with what the lines of a map do to values: transforms, value maps, defaults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dualwrite.casts import CastError
from dualwrite.filters import TEXTUAL
from dualwrite.mapping.binding import SIDES, Binding, Pair, Report
from dualwrite.mapping.cells import constant, directed, fallback, given_by, in_order, is_stepwise
from dualwrite.mapping.tablemap import Case, Default, Formula, Trim, ValueMap, called
from dualwrite.mapping.values import literal, spellings
from dualwrite.model import Side, Value, show_path
from dualwrite.schema import Column, TypeName

_LISTED: Final = (TypeName.CHOICE, TypeName.BOOLEAN)


def check_texts(pair: Pair, report: Report) -> None:
    """upper, lower and trim: of texts, and one way."""
    texts = [step for step in pair.mapping.transforms if isinstance(step, Case | Trim | Formula)]
    if pair.two_way and texts:
        message = f"{pair.name} is carried both ways, and {called(texts[0])} has no way back"
        report.add("no_way_back", message, line=pair.mapping.line)
    for source in SIDES:
        given = given_by(pair, source)
        if not pair.carries(source) or given.type.name in TEXTUAL:
            continue
        for step in in_order(pair, source):
            if isinstance(step, ValueMap | Default):
                break
            if isinstance(step, Case | Trim):
                message = f"{called(step)} changes texts, and {given.name} is {given.type}"
                report.add("incompatible_types", message, "take it off", line=pair.mapping.line, side=source)


def check_values(binding: Binding, report: Report) -> None:
    """Value maps and defaults: that their values are some, and lead back where they must."""
    for pair in binding.pairs:
        for transform in pair.mapping.transforms:
            if isinstance(transform, Default):
                _check_default(pair, report)
        maps = [transform for transform in pair.mapping.transforms if isinstance(transform, ValueMap)]
        for number, value_map in enumerate(maps):
            back = directed(Side.RIGHT, value_map) if value_map.reverse is not None else []
            lefts = [*(one for one, _ in value_map.pairs), *(one for _, one in back)]
            _check_members(pair, Side.LEFT, lefts if number == 0 else [], report)
            last = number == len(maps) - 1
            rights = [*(other for _, other in value_map.pairs), *(other for other, _ in back)]
            _check_members(pair, Side.RIGHT, rights if last else [], report)
            _check_reversible(pair, value_map, report)
            _check_way_back(pair, value_map, report)
            _check_else(pair, value_map, report)


def _check_default(pair: Pair, report: Report) -> None:
    for source in SIDES:
        if not pair.carries(source):
            continue
        try:
            value = constant(pair, source) if is_stepwise(pair) else fallback(pair, source)
        except CastError as error:
            message = f"default: it cannot be carried to {show_path(pair.ends[source.other].path)}: {error.message}"
            report.add("bad_value", message, line=pair.mapping.line, side=source.other)
            continue
        if value is not None:
            _check_literal(pair, source.other, value, "default", report)


def _check_members(pair: Pair, side: Side, members: Iterable[Value], report: Report) -> None:
    if side in pair.ends:
        for member in members:
            if member is not None:
                _check_literal(pair, side, member, "values", report, is_source=not pair.carries(side.other))


def _check_literal(pair: Pair, side: Side, value: str, what: str, report: Report, *, is_source: bool = False) -> None:
    """What is written must be a value of the column; what is only looked for may as well never come."""
    try:
        literal(pair.ends[side].column, value)
    except CastError as error:
        level = "warning" if is_source else "error"
        message = f"{what}: {value!r} is no value of {show_path(pair.ends[side].path)}: {error.message}"
        report.add("bad_value", message, line=pair.mapping.line, side=side, level=level)


def _check_else(pair: Pair, value_map: ValueMap, report: Report) -> None:
    rule = value_map.otherwise
    if rule is None or not rule.startswith("="):
        return
    if pair.two_way:
        results = [other for other, _ in directed(Side.RIGHT, value_map)]
        if not _repeated(pair, Side.RIGHT, [rule[1:]], results):
            message = f"else: {rule[1:]!r} is not among the right-hand values, so it has no way back"
            report.add("value_map_not_reversible", message, line=pair.mapping.line)
        return
    for source in SIDES:
        if pair.carries(source):
            _check_literal(pair, source.other, rule[1:], "else", report)


def _check_reversible(pair: Pair, value_map: ValueMap, report: Report) -> None:
    for source in SIDES:
        if not pair.carries(source) or source not in pair.ends:
            continue
        undone = pair.two_way and value_map.reverse is None
        earlier: dict[Value, set[Value]] = {}  # spellings of members, with what these become
        for member, result in directed(source, value_map):
            spelled = _spelled(pair.ends[source].column, [member])
            before = set().union(*(earlier.get(text, ()) for text in spelled))
            for text in spelled:
                earlier.setdefault(text, set()).add(result)
            if before if undone else before - {result}:
                code = "value_map_not_reversible" if undone else "value_map_ambiguous"
                shown = "null" if member is None else repr(member)
                message = f"{show_path(pair.ends[source].path)}: {shown} is listed twice"
                report.add(code, message, line=pair.mapping.line, side=source)


def _check_way_back(pair: Pair, value_map: ValueMap, report: Report) -> None:
    """With a way back of its own, what one way makes must be known to the other: whole records are carried."""
    if not pair.two_way or value_map.reverse is None or value_map.otherwise not in (None, "park"):
        return
    if value_map.otherwise is None and not any(end.column.type.name in _LISTED for end in pair.ends.values()):
        return
    for source in SIDES:
        column = pair.ends[source.other].column
        known = _spelled(column, [member for member, _ in directed(source.other, value_map)])
        for _, result in directed(source, value_map):
            if result is not None and known.isdisjoint(_spelled(column, [result])):
                entry = "reverse" if source is Side.LEFT else "values"
                message = f"{result!r} is not listed in {entry}:, so it has no way back"
                report.add("value_map_not_reversible", message, line=pair.mapping.line, side=source.other)


def _repeated(pair: Pair, side: Side, values: Sequence[Value], others: Sequence[Value]) -> bool:
    """Do the two lists share a value of the column, however it is spelled?"""
    column = pair.ends[side].column
    return bool(_spelled(column, values) & _spelled(column, others))


def _spelled(column: Column, values: Iterable[Value]) -> set[Value]:
    found: set[Value] = set()
    for value in values:
        found |= {None} if value is None else set(spellings(column, value))
    return found
