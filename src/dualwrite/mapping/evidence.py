"""What the values of two columns say about whether they belong together, and which value map lies between them.

Rows that were read from both sides are a sample: that values differ proves little, that they agree proves much, and
what two columns hold in the very same records proves most.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from dualwrite.mapping.tablemap import ValueMap
from dualwrite.model import Path, Side, Value
from dualwrite.schema import Column, Schema, Table, TypeName

Values: TypeAlias = Sequence[Value]
Read: TypeAlias = Callable[[Side, Table], Sequence[Sequence[Value]]]
"""Some rows of a table, with a cell for each of its columns."""

ENOUGH: Final = 5
"""Records or values below which nothing is concluded."""
MANY: Final = 20
"""Records from which on chance is ruled out."""
CODES: Final = 20
"""Different values up to which a column is taken to hold codes."""
_BOOLEAN: Final = ({"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"}, {"1", "0"}, {"on", "off"})
_TRUE: Final = frozenset({"yes", "y", "true", "t", "1", "on"})
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?")
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[ T]00:00:00(\.0+)?([+-]00(:00)?)?")
_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """``weight`` is added to how alike two names are; ``words`` say why, ``clash`` why they do not go together."""

    weight: float = 0.0
    words: str = ""
    values: ValueMap | None = None
    clash: str = ""


@dataclass
class Samples:
    """Some rows of every table that is asked about; read once each, and never more than ``read`` gives."""

    schemas: Mapping[Side, Schema]
    read: Read
    _rows: dict[tuple[Side, str], Mapping[str, Values]] = field(default_factory=dict)

    def column(self, side: Side, table: Table, name: str) -> Values:
        """The values of a column, row by row."""
        if (side, table.name) not in self._rows:
            rows = self.read(side, table)
            found = {column.name: [row[at] for row in rows] for at, column in enumerate(table.columns)}
            self._rows[side, table.name] = found
        return self._rows[side, table.name].get(name, ())

    def values(self, side: Side, table: Table, path: Path) -> Values:
        """The values at the end of a path, row by row; null where a referenced record is not in the sample."""
        if len(path) == 1:
            return self.column(side, table, path[0])
        reference = table.reference(path[0])
        parent = self.schemas[side].tables.get(reference.table) if reference else None
        if reference is None or parent is None:
            return ()
        ids = zip(*(self.column(side, parent, name) for name in reference.to), strict=True)
        ends = dict(zip(ids, self.values(side, parent, path[1:]), strict=True))
        held = zip(*(self.column(side, table, name) for name in reference.columns), strict=True)
        return [ends.get(each) for each in held]


def normal(value: Value) -> Value:
    """A value as it compares across systems: letter case, blanks and the spelling of numbers do not count."""
    text = (value or "").strip().casefold()
    if _NUMBER.fullmatch(text):
        return str(Decimal(text).normalize())
    midnight = _MIDNIGHT.fullmatch(text)
    return midnight[1] if midnight else text or None


def together(left: Sequence[Values], right: Sequence[Values]) -> list[tuple[int, int]]:
    """The rows of both samples that have the same key, by their numbers; keys that come twice are left out."""
    sides = [_by_key(members) for members in (left, right)]
    return [(at, sides[1][key]) for key, at in sides[0].items() if key in sides[1]]


def _by_key(members: Sequence[Values]) -> dict[tuple[Value, ...], int]:
    keys = [tuple(map(normal, key)) for key in zip(*members, strict=True)]
    counts = Counter(keys)
    return {key: at for at, key in enumerate(keys) if counts[key] == 1 and any(key)}


def overlap(left: Values, right: Values) -> float | None:
    """The share of different values that both samples have, of the smaller one's; None where there are too few."""
    mine, theirs = _distinct(left), _distinct(right)
    fewest = min(len(mine), len(theirs))
    return len(mine & theirs) / fewest if fewest >= ENOUGH else None


def weigh(mine: Column, theirs: Column, left: Values, right: Values, rows: Sequence[tuple[int, int]]) -> Evidence:
    """What two columns' samples say; ``rows`` are the same records in both."""
    if not _distinct(left) or not _distinct(right):
        return Evidence()
    pairs = [(left[at], right[other]) for at, other in rows]
    pairs = [(a, b) for a, b in pairs if normal(a) is not None and normal(b) is not None]
    agree = sum(normal(a) == normal(b) for a, b in pairs)
    if len(pairs) >= ENOUGH and agree / len(pairs) >= 0.8:
        return Evidence(
            _weight(len(pairs), len({normal(a) for a, _ in pairs})), f"{agree} of {len(pairs)} records agree"
        )
    return _through_codes(mine, theirs, left, right, pairs) or _apart(mine, theirs, left, right, len(pairs), agree)


def _weight(records: int, distinct: int) -> float:
    """What it is worth that so many records agree, in so many different values."""
    if distinct < 2:
        return 0.05
    return (0.5 if distinct >= ENOUGH else 0.2) + (0.2 if records >= MANY else 0)


def _through_codes(
    mine: Column, theirs: Column, left: Values, right: Values, pairs: Sequence[tuple[Value, Value]]
) -> Evidence | None:
    found = value_map(mine, theirs, left, right, pairs)
    if found is None:
        return None
    values, told, seen = found
    return Evidence(_weight(seen, len(values.pairs)) if seen else 0.1, told, values)


def _apart(mine: Column, theirs: Column, left: Values, right: Values, count: int, agree: int) -> Evidence:
    """What is said of columns of which neither records nor codes agree."""
    distinct = _distinct(left), _distinct(right)
    coded = all(map(_is_coded, (mine, theirs), (left, right))) and not _same_codes(mine, theirs)
    if coded and not distinct[0] & distinct[1]:
        shown = " and ".join(", ".join(sorted(each)[:4]) for each in distinct)
        return Evidence(clash=f"hold different codes ({shown}): write a value map")
    if count >= 2 * ENOUGH and agree / count < 0.2:
        return Evidence(-0.3, f"{agree} of {count} records agree")
    shared = overlap(left, right)
    if shared is None:
        return Evidence()
    if shared >= 0.5:
        tell_apart = min(_uniqueness(left), _uniqueness(right)) >= 0.95
        return Evidence(0.35 if tell_apart else 0.15, f"{shared:.0%} of the values are the same")
    unlike = abs(_uniqueness(left) - _uniqueness(right)) > 0.5
    return Evidence(-0.15, "one tells records apart, the other does not") if unlike else Evidence()


def is_telling(values: Values) -> bool:
    """Does a column tell the records of a sample apart?"""
    return len(values) >= 2 * ENOUGH and None not in values and len(_distinct(values)) == len(values)


def _distinct(values: Iterable[Value]) -> set[str]:
    return {text for text in map(normal, values) if text is not None}


def _uniqueness(values: Values) -> float:
    held = [value for value in values if value is not None]
    return len(set(held)) / len(held)


def _same_codes(mine: Column, theirs: Column) -> bool:
    """Do both columns say that they hold the same codes, whatever the samples show?"""
    kinds = {mine.type.name, theirs.type.name}
    return kinds == {TypeName.BOOLEAN} or bool(mine.choices and mine.choices == theirs.choices)


def _is_coded(column: Column, values: Values) -> bool:
    """Does a column hold codes?  A text does where few values come again and again; numbers are taken for amounts."""
    if column.choices or column.type.name in (TypeName.BOOLEAN, TypeName.CHOICE):
        return True
    held = [value for value in values if value is not None]
    few = len(held) >= 2 * ENOUGH and 3 * len(set(held)) <= len(held) and len(set(held)) <= CODES
    return few and column.type.name is TypeName.TEXT


# -------------------------------------------------------------------------------------------------- value maps


def value_map(
    mine: Column, theirs: Column, left: Values, right: Values, pairs: Sequence[tuple[Value, Value]]
) -> tuple[ValueMap, str, int] | None:
    """The value map between two columns of codes, why, and the records that show it; None where there is none.

    From records that are on both sides, else from words for yes and no, else from the labels of choices.
    """
    if any(len(_distinct(values)) > CODES for values in (left, right)):
        return None
    found = _by_records(pairs) or _by_yes_and_no(left, right) or _by_labels(mine, theirs, left, right)
    if found is None:
        return None
    values, why, records = found
    spelled = tuple((_spelled(mine, a), _spelled(theirs, b)) for a, b in values.pairs)
    return ValueMap(spelled), why, records


def _spelled(column: Column, value: Value) -> Value:
    """A value as people write it."""
    return {"t": "true", "f": "false"}.get(value or "", value) if column.type.name is TypeName.BOOLEAN else value


def _by_records(pairs: Sequence[tuple[Value, Value]]) -> tuple[ValueMap, str, int] | None:
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for left, right in pairs:
        if left is not None and right is not None:
            seen[left][right] += 1
    best = {left: counts.most_common(1)[0] for left, counts in seen.items()}
    fits, ends = sum(count for _, count in best.values()), {right for right, _ in best.values()}
    if len(pairs) < ENOUGH or len(best) < 2 or len(ends) < len(best) or fits < 0.95 * len(pairs):
        return None
    values = tuple((left, right) for left, (right, _) in sorted(best.items()))
    return ValueMap(values), f"{fits} of {len(pairs)} records agree through its value map", fits


def _by_yes_and_no(left: Values, right: Values) -> tuple[ValueMap, str, int] | None:
    sides = [next((words for words in _BOOLEAN if _distinct(each) <= words), None) for each in (left, right)]
    if sides[0] is None or sides[1] is None or sides[0] == sides[1]:
        return None
    spelled = [{str(normal(value)): value for value in values if value is not None} for values in (left, right)]
    ends = [[next(word for word in words or () if (word in _TRUE) is yes) for words in sides] for yes in (False, True)]
    values = tuple((spelled[0].get(mine, mine), spelled[1].get(theirs, theirs)) for mine, theirs in ends)
    return ValueMap(values), "both hold yes and no", 0


def _by_labels(mine: Column, theirs: Column, left: Values, right: Values) -> tuple[ValueMap, str, int] | None:
    """Codes of one side that are the labels of the other side's choices."""
    for column, codes, turned in ((theirs, left, False), (mine, right, True)):
        labels: dict[str, list[str]] = {}
        for label, number in column.choices:
            labels.setdefault(_letters(label), []).append(number)
        found = {code: labels.get(_letters(code), []) for code in sorted({each for each in codes if each is not None})}
        numbers = [number for each in found.values() for number in each]
        if len(found) > 1 and len(set(numbers)) == len(found) == len(numbers) and all(found.values()):
            values = tuple((number, code) if turned else (code, number) for code, (number,) in found.items())
            return ValueMap(values), "its codes are the labels of the choice", 0
    return None


def _letters(text: str) -> str:
    return _LETTERS.sub("", text.casefold())
