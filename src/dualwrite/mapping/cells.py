"""One cell on its way to the other side: value maps, casts, defaults.

A ``Carrier`` is a Python expression over one variable, and the objects that it names; ``rows`` joins the expressions
of a map into one function.  What cannot be carried raises CastError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dualwrite.casts import CastError, cast, common_form, identity
from dualwrite.mapping.binding import Pair
from dualwrite.mapping.tablemap import Round, Truncate, ValueMap
from dualwrite.mapping.values import as_written, spellings
from dualwrite.model import ABSENT, Cell, Side, Value
from dualwrite.schema import Column, TypeName

_LISTED = (TypeName.CHOICE, TypeName.BOOLEAN)


@dataclass(frozen=True, slots=True)
class Carrier:
    """How a cell gets to the other side.

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
    if source not in pair.ends:
        return Carrier("c{n}", {"c{n}": empty})
    column, target = pair.ends[source].column, pair.ends[source.other].column
    transforms = pair.mapping.transforms
    into = cast(
        column,
        target,
        truncate=any(isinstance(t, Truncate) for t in transforms),
        round_=any(isinstance(t, Round) for t in transforms),
        timezone=zone_of(pair, timezones),
    )
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


def fallback(pair: Pair, source: Side) -> Value:
    """What is written where the source has nothing."""
    target = pair.ends[source.other].column
    default = pair.constant
    if default is not None and default.value is not None:
        back = source is Side.RIGHT and pair.two_way
        return as_written(target, _partner(pair, default.value) if back else default.value)
    needed = not target.nullable and target.type.name is TypeName.TEXT
    return "" if needed and any(end.column.empty_is_null for end in pair.ends.values()) else None


def _partner(pair: Pair, value: str) -> Value:
    """The left word for a right-hand value of a two-way value map; the value itself where the map has none."""
    right = pair.ends[Side.RIGHT].column
    for transform in pair.mapping.transforms:
        if isinstance(transform, ValueMap):
            for one, other in transform.pairs:
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
    return Carrier(f"({null} if {{v}} is None else {{v}})" if empty is not None else "{v}", names)


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
    return [(one, other) if source is Side.LEFT else (other, one) for one, other in value_map.pairs]


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
