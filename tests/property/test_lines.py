"""Lines that are compared, or carried, without being taken apart: what comes of them is what comes of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dualwrite.engine.compare import Alone, Difference, Tally, compare
from dualwrite.errors import Invalid
from dualwrite.lined import BadTextError, Lined, text_of
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Position, Row, Side, Value
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

TEXTS = ["", " ", "a", "A", "a ", "t", "f", "\\N", "\t", "\n", "\\", "\r", "é", "abcd"]
NUMBERS = ["1", "0", "-0", "1.0", "1.00", "1.5", "NaN", "10000000000"]
MOMENTS = ["2024-02-29", "2024-02-29 12:00:00", "2024-02-29 12:00:00+00", "infinity", "12:00:00"]
OTHERS = ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "\\x00", "6f2a1c1e-0000-4000-8000-000000000000"]
VALUES: list[Value] = [None, *TEXTS, *NUMBERS, *MOMENTS, *OTHERS]
MAPPED: list[Value] = ["a", "b", "t"]
TEXT = ColumnType(TypeName.TEXT)
TYPES = [
    *map(ColumnType, TypeName),
    ColumnType(TypeName.TEXT, length=3),
    ColumnType(TypeName.NUMERIC, precision=18, scale=2),
    ColumnType(TypeName.INTEGER, bits=32),
]
VALUE_MAP = "{{values: {{a: t, b: f, t: a}}}}"
WAYS = ["{} = {}", "{} = {}", "{} > {}", "{} < {}", "{} >< {}: {{default: 1}}"]
WAYS += [f"{{}} {way} {{}}: {VALUE_MAP}" for way in ("><", ">")]
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = ["", "k1", "k2", "k3", "\\N", "\t"]


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    """A column of any type."""
    flags = draw(st.sampled_from([{}, {}, {"empty_is_null": True}, {"ignore_case": True}]))
    return Column(name, draw(st.just(TEXT) | st.sampled_from(TYPES)), **flags)


@st.composite
def maps(draw: st.DrawFn) -> tuple[str, Schema, Schema]:
    """A map of two columns, each carried in some way, behind the key; and the schemas."""
    pairs = ["K = k", *(draw(st.sampled_from(WAYS)).format(*names) for names in ("Aa", "Bb"))]
    if draw(st.booleans()):
        pairs.append("A > c")  # one cell for two
    text = "map: m\nleft: l\nright: r\nkey: [k]\ncolumns:\n" + "".join(f"  - {pair}\n" for pair in pairs)
    lefts = [draw(columns(name)) for name in "AB"]
    rights = [draw(columns(name)) for name in "abc"]
    if draw(st.booleans()):  # like the other side's, as the columns of most maps are
        rights[:2] = [Column(name, twin.type) for name, twin in zip("ab", lefts, strict=True)]
    return text, _schema("l", "K", lefts), _schema("r", "k", rights)


def _schema(table: str, key: str, others: Sequence[Column]) -> Schema:
    found = (Column(key, TEXT, nullable=False), *others)
    return Schema({table: Table(table, found, (key,), ((key,),))})


def bound(drawn: tuple[str, Schema, Schema]) -> CompiledMap:
    """The map, where it has no errors."""
    text, left, right = drawn
    try:
        return compile_map(read_map(text, ""), left, right)
    except Invalid:
        assume(condition=False)
        raise


@st.composite
def rows(draw: st.DrawFn, compiled: CompiledMap, side: Side, pool: Sequence[Value]) -> list[Row]:
    """Rows of that side, with different keys."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1))
    width = len(compiled.views[side].paths)
    cells = draw(st.lists(st.tuples(*[st.sampled_from(pool)] * width), min_size=len(keys), max_size=len(keys)))
    (place,) = compiled.views[side].key
    return [(*row[:place], key, *row[place + 1 :]) for key, row in zip(keys, cells, strict=True)]


def twins(compiled: CompiledMap, held: Sequence[Row]) -> list[Row]:
    """Rows of the right side that hold, letter by letter, what these of the left one do."""
    places = {path: place for place, path in enumerate(compiled.views[Side.LEFT].paths)}
    paths = [(path[0].upper(),) for path in compiled.views[Side.RIGHT].paths]
    return [tuple([row[places[path]] if path in places else None for path in paths]) for row in held]


def lined(held: Sequence[Row]) -> Lined:
    """The same as lines."""
    return Lined(text_of(held).splitlines(keepends=True), len(held[0]))


@dataclass
class Held:
    """A snapshot of these rows, two in a block."""

    rows: Sequence[Row]
    boundary = Position("feed", (1,))

    def blocks(self) -> Iterator[Sequence[Row]]:
        """Two rows at once."""
        return (self.rows[start : start + 2] for start in range(0, len(self.rows), 2))


def found(compiled: CompiledMap, sides: dict[Side, Sequence[Row]]) -> tuple[Any, ...]:
    """What a comparison of these rows tells."""
    tally = Tally()
    told = []
    for finding in compare(compiled, {side: Held(held) for side, held in sides.items()}, None, tally):
        singly = list(finding.differences()) if isinstance(finding, Alone) else [finding]
        told += [(each, each.units if isinstance(each, Difference) else ()) for each in singly]
    return sorted(told, key=repr), tally.equal, tally.read, tally.companies


@SETTINGS
@given(data=st.data(), drawn=maps())
def test_a_comparison_of_lines_finds_what_one_of_rows_finds(
    data: st.DataObject, drawn: tuple[str, Schema, Schema]
) -> None:
    """Whatever the types and the ways of a map: no difference is lost, none invented, and all are counted."""
    compiled = bound(drawn)
    pool = data.draw(st.lists(st.sampled_from(MAPPED) | st.sampled_from(VALUES), min_size=1, max_size=3))
    sides: dict[Side, Sequence[Row]] = {side: data.draw(rows(compiled, side, pool)) for side in Side}
    if data.draw(st.booleans()):
        sides[Side.RIGHT] = twins(compiled, sides[Side.LEFT])
    wanted = found(compiled, sides)
    assert found(compiled, {side: lined(held) for side, held in sides.items()}) == wanted
    assert found(compiled, {**sides, Side.LEFT: lined(sides[Side.LEFT])}) == wanted


@SETTINGS
@given(data=st.data(), drawn=maps())
def test_lines_are_carried_as_their_rows_are(data: st.DataObject, drawn: tuple[str, Schema, Schema]) -> None:
    """What lines become on the other side are the rows that theirs become; or it is told that they have to be read."""
    compiled = bound(drawn)
    pool = data.draw(st.lists(st.sampled_from(MAPPED) | st.sampled_from(VALUES), min_size=1, max_size=3))
    source = data.draw(st.sampled_from(Side))
    held = data.draw(rows(compiled, source, pool))
    carried = compiled.map_lines(source, lined(held))
    try:
        mapped = None if carried is None else list(carried)
    except BadTextError:
        mapped = None
    assert mapped is None or mapped == list(compiled.map_rows(source, held))
