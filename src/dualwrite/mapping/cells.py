"""One cell on its way to the other side: value maps, casts, defaults.

A ``Carrier`` is a Python expression over one variable, and the objects that it names; ``rows`` joins the expressions
of a map into one function.  What cannot be carried raises CastError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from dualwrite.casts import CastError, cast, common_form, identity
from dualwrite.mapping.binding import Pair
from dualwrite.mapping.tablemap import Case, Default, Formula, Round, Transform, Trim, Truncate, ValueMap
from dualwrite.mapping.values import as_written, spellings
from dualwrite.model import ABSENT, Cell, Side, Value
from dualwrite.schema import Column, ColumnType, TypeName

_LISTED = (TypeName.CHOICE, TypeName.BOOLEAN)
AS_IT_IS = "{v}"
"""The expression of a cell that is carried unchanged."""


@dataclass(frozen=True, slots=True, eq=False)
class Carrier:
    """How a cell gets to the other side; each is itself alone, so that what is made of it can be kept.

    ``expression`` is Python over the variable ``{v}`` and the names in ``names``, each ending in ``{n}``: a number that
    tells the carriers within one function apart.
    """

    expression: str
    names: Mapping[str, object] = field(default_factory=dict)

    def over(self, variable: str, number: int, namespace: dict[str, object]) -> str:
        """The expression over a variable; its names are added to the namespace."""
        namespace.update((name.replace("{n}", str(number)), item) for name, item in self.names.items())
        return self.expression.replace("{v}", variable).replace("{n}", str(number))


def zone_of(pair: Pair, timezones: Mapping[Side, str]) -> str:
    """The time zone in which the pair's moments without one are meant: that of the side that has none."""
    for side, end in pair.ends.items():
        if end.column.type.name is not TypeName.TIMESTAMPTZ:
            return timezones.get(side, "UTC")
    return "UTC"


def carrier(pair: Pair, source: Side, timezones: Mapping[Side, str]) -> Carrier:
    """How the pair's value gets from ``source`` to the other side (whether or not the map says that it does)."""
    empty = fallback(pair, source)
    if source not in pair.ends and pair.computed is None:
        return Carrier("c{n}", {"c{n}": empty})
    column, target = given_by(pair, source), pair.ends[source.other].column
    transforms = pair.mapping.transforms
    into = cast(
        column,
        target,
        truncate=any(isinstance(t, Truncate) for t in transforms),
        round_=any(isinstance(t, Round) for t in transforms),
        timezone=zone_of(pair, timezones),
    )
    if pair.computed is not None:
        return Carrier("s{n}(e{n}({v}))", {"e{n}": pair.computed.function, "s{n}": _stepwise(pair, source, into)})
    if is_stepwise(pair):
        return Carrier("s{n}({v})", {"s{n}": _stepwise(pair, source, into)})
    maps = [transform for transform in transforms if isinstance(transform, ValueMap)]
    if maps:
        return _mapped(pair, source, maps, into, empty)
    return _plain(into, empty, empty_is_null=spells_null(column))


def comparer(pair: Pair, side: Side, timezones: Mapping[Side, str]) -> Callable[[Value], Value]:
    """The pair's common form, of values of that side."""
    column = pair.ends[side].column
    other = pair.ends[side.other].column if side.other in pair.ends else column
    return common_form(column, other, timezone=zone_of(pair, timezones))


def spells_null(column: Column) -> bool:
    """Does an empty text of the column mean nothing?"""
    return column.empty_is_null and column.type.name in (TypeName.TEXT, TypeName.CHOICE, TypeName.OTHER)


def given_by(pair: Pair, source: Side) -> Column:
    """The column of which the pair's values are, coming from that side."""
    if source in pair.ends:
        return pair.ends[source].column
    return pair.computed.result if pair.computed is not None else Column("none", ColumnType(TypeName.TEXT))


def fallback(pair: Pair, source: Side) -> Value:
    """What is written where the source has nothing; null where that cannot be carried, which ``check`` tells."""
    if is_stepwise(pair):
        with suppress(CastError):
            return constant(pair, source)
        return None
    target = pair.ends[source.other].column
    default = pair.constant
    if default is not None and default.value is not None:
        back = source is Side.RIGHT and pair.two_way
        return as_written(target, _partner(pair, default.value) if back else default.value)
    return _nothing(pair, target)


def constant(pair: Pair, source: Side) -> Value:
    """What the steps of a pair make of nothing.  Raises CastError."""
    made = _stepwise(pair, source, cast(given_by(pair, source), pair.ends[source.other].column))(None)
    return None if made is ABSENT else made


def _nothing(pair: Pair, target: Column) -> Value:
    """Nothing, as the target has it: a text that must not be null is empty where that means the same."""
    needed = not target.nullable and target.type.name is TypeName.TEXT
    return "" if needed and any(end.column.empty_is_null for end in pair.ends.values()) else None


def _partner(pair: Pair, value: str) -> Value:
    """The left word for a right-hand value of a two-way value map; the value itself where the map has none."""
    right = pair.ends[Side.RIGHT].column
    for transform in pair.mapping.transforms:
        if isinstance(transform, ValueMap):
            for other, one in directed(Side.RIGHT, transform):
                if other is not None and set(spellings(right, other)) & set(spellings(right, value)):
                    return one
    return value


def _plain(into: Callable[[str], str], empty: Value, *, empty_is_null: bool) -> Carrier:
    names: dict[str, object] = {} if empty is None else {"d{n}": empty}
    null = "d{n}" if names else "None"
    if into is not identity:
        names["f{n}"] = into
        missing = "not {v}" if empty_is_null else "{v} is None"
        return Carrier(f"({null} if {missing} else {{v}} if {{v}} is ABSENT else f{{n}}({{v}}))", names)
    if empty_is_null:
        return Carrier(f"({{v}} or {null})", names)
    return Carrier(f"({null} if {{v}} is None else {{v}})" if empty is not None else AS_IT_IS, names)


# value maps


class Members(dict[Cell, Cell]):
    """A value map in one direction: what is listed is found at once, the rest goes by letter case, then by rule."""

    __slots__ = ("_folded", "_otherwise")

    def __init__(self, listed: Mapping[Cell, Cell], otherwise: Callable[[str], Cell]) -> None:
        """``otherwise`` decides about values that are not listed."""
        super().__init__(listed)
        self._otherwise = otherwise
        self._folded: dict[str, Cell] = {}
        several: set[str] = set()
        for member, result in listed.items():
            if isinstance(member, str) and self._folded.setdefault(member.casefold(), result) != result:
                several.add(member.casefold())
        for member in several:
            del self._folded[member]

    def __missing__(self, value: Cell) -> Cell:
        """What becomes of a value that is not listed as it stands."""
        assert isinstance(value, str)
        found = self._folded.get(value.casefold(), self)
        return self._otherwise(value) if found is self else found  # type: ignore[return-value]


def directed(source: Side, value_map: ValueMap) -> list[tuple[Value, Value]]:
    """A value map's members as seen from ``source``."""
    if source is Side.LEFT:
        return list(value_map.pairs)
    if value_map.reverse is not None:
        return list(value_map.reverse)
    return [(other, one) for one, other in value_map.pairs]


# one step after the other


def is_stepwise(pair: Pair) -> bool:
    """Do the pair's transforms have to be done step by step, in their order?"""
    kinds = [type(transform) for transform in pair.mapping.transforms]
    if any(kind in (Case, Trim, Formula) for kind in kinds):
        return True
    return Default in kinds and ValueMap in kinds[kinds.index(Default) :]


def in_order(pair: Pair, source: Side) -> Sequence[Transform]:
    """The steps in the order in which a value from ``source`` takes them: from left to right as written, and back."""
    flags = (Truncate, Round, Formula)
    found = [transform for transform in pair.mapping.transforms if not isinstance(transform, flags)]
    return found if source is Side.LEFT else found[::-1]


def _stepwise(pair: Pair, source: Side, into: Callable[[str], str]) -> Callable[[Cell], Cell]:
    """The pair's steps as one function.  What no value map has translated is cast behind the last step for text."""
    steps = in_order(pair, source)
    target = pair.ends[source.other].column
    maps = [place for place, step in enumerate(steps) if isinstance(step, ValueMap)]
    last = max((place for place, step in enumerate(steps) if isinstance(step, ValueMap | Case | Trim)), default=-1)
    functions: list[_Step] = [_cleared] if spells_null(given_by(pair, source)) else []
    functions += [] if maps or last >= 0 else [_cast(into)]
    for place, step in enumerate(steps):
        match step:
            case Default(value=value):
                functions.append(_default(value if place < last else as_written(target, value)))
            case ValueMap():
                functions.append(_member(pair, source, step, place == maps[0], place == maps[-1], into))
            case Case(to=to):
                functions.append(_texts(str.upper if to == "upper" else str.lower))
            case Trim():
                functions.append(_texts(str.strip))
                functions += [_cleared] if spells_null(given_by(pair, source)) else []
        functions += [_cast(into)] if place == last and not maps else []
    nothing = _nothing(pair, target)

    def carried(cell: Cell) -> Cell:
        for function in functions:
            if cell is ABSENT:
                return cell
            cell = function(cell)
        return nothing if cell is None else cell

    return carried


_Step: TypeAlias = Callable[[Value], Cell]


def _cleared(value: Value) -> Cell:
    return value or None


def _cast(into: Callable[[str], str]) -> _Step:
    return lambda value: None if value is None else into(value)


def _texts(change: Callable[[str], str]) -> _Step:
    return lambda value: None if value is None else change(value)


def _default(value: Value) -> _Step:
    return lambda given: value if given is None else given


def _member(
    pair: Pair, source: Side, value_map: ValueMap, first: bool, last: bool, into: Callable[[str], str]
) -> _Step:
    target, column = pair.ends[source.other].column, given_by(pair, source)
    listed: dict[Cell, Cell] = {}
    for member, result in directed(source, value_map):
        made = as_written(target, result) if last else result
        for spelling in _members(column, member) if first else (member,):
            listed.setdefault(spelling, made)
    listed.setdefault(None, None)
    return Members(listed, _otherwise(pair, source, value_map, into if last else identity, last)).__getitem__


def _mapped(pair: Pair, source: Side, maps: Sequence[ValueMap], into: Callable[[str], str], empty: Value) -> Carrier:
    ordered = list(maps) if source is Side.LEFT else list(reversed(maps))
    expression, names = "{v}", dict[str, object]()
    for step, value_map in enumerate(ordered):
        first, last = step == 0, step == len(ordered) - 1
        listed: dict[Cell, Cell] = {}
        for member, result in directed(source, value_map):
            if last:
                result = as_written(pair.ends[source.other].column, result)
                result = empty if result is None else result
            for spelling in _members(pair.ends[source].column, member) if first else (member,):
                listed.setdefault(spelling, result)
        listed.setdefault(None, empty if last else None)
        listed[ABSENT] = ABSENT
        if first and spells_null(pair.ends[source].column):
            listed.setdefault("", listed[None])
        names[f"m{step}_{{n}}"] = Members(listed, _otherwise(pair, source, value_map, into if last else identity, last))
        expression = f"m{step}_{{n}}[{expression}]"
    return Carrier(expression, names)


def _members(column: Column, member: Value) -> Iterable[Value]:
    return (None,) if member is None else spellings(column, member)


def _otherwise(
    pair: Pair, source: Side, value_map: ValueMap, into: Callable[[str], str], last: bool
) -> Callable[[str], Cell]:
    """The rule for values that are not listed."""
    rule = value_map.otherwise
    target = pair.ends[source.other].column
    if rule == "keep":
        return lambda _: ABSENT
    if rule is not None and rule.startswith("="):
        value: Value = rule[1:]
        if source is Side.RIGHT and pair.two_way:
            value = _partner(pair, rule[1:])
        settled = as_written(target, value) if last else value
        return lambda _: settled
    listed = any(end.column.type.name in _LISTED for end in pair.ends.values())
    if rule == "park" or (last and listed):
        return _refuse
    return into


def _refuse(_value: str) -> Cell:
    raise CastError("value_not_mapped", "it is not in the value map")
