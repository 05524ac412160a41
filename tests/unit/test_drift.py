"""What has changed in a map's tables, and what that means: every kind of change, on plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualwrite.engine.drift import Seen, differences, seen_from, seen_text, worst
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

TEXT, NUMERIC, INTEGER = TypeName.TEXT, TypeName.NUMERIC, TypeName.INTEGER
L, R = Side.LEFT, Side.RIGHT
MAP = "map: m\nleft: items\nright: items\nkey: [code]\ncolumns:\n"
LINES = "  - code = code\n  - name = name\n  - price = price\n  - terms.code = terms.code\n"


def table(*columns: Column, storage: str = "1", key: tuple[str, ...] = ("code",)) -> Schema:
    """A system with a table of items, and one that they look up."""
    terms = Table("terms", (Column("code", ColumnType(TEXT)),), ("code",), (("code",),), key=(("code",),))
    refers = Reference("terms", ("terms",), "terms", ("code",))
    items = Table("items", columns, key, (key,), (refers,), storage=storage)
    return Schema({"items": items, "terms": terms})


CODE = Column("code", ColumnType(TEXT), nullable=False, mark="1")
NAME = Column("name", ColumnType(TEXT, 40), mark="2")
PRICE = Column("price", ColumnType(NUMERIC, precision=10, scale=2), mark="3")
TERMS = Column("terms", ColumnType(TEXT), mark="4")
WAS = table(CODE, NAME, PRICE, TERMS)


def compiled(schema: Schema, lines: str = LINES) -> CompiledMap:
    """The map, between two systems of one kind."""
    return compile_map(read_map(MAP + lines, ""), schema, schema)


def changed(**columns: Column | None) -> Schema:
    """The table with other columns, without some (None), or with more."""
    known = {each.name: each for each in (CODE, NAME, PRICE, TERMS)} | columns
    return table(*(each for each in known.values() if each is not None))


def typed(column: Column, **limits: int | None) -> Column:
    """A column with other limits."""
    return replace(column, type=replace(column.type, **limits))


CASES = {
    "nothing": (WAS, "", "harmless"),
    "longer": (changed(name=typed(NAME, length=60)), "items.name was changed from text(40) to text(60)", "harmless"),
    "unlimited": (changed(name=typed(NAME, length=None)), "from text(40) to text", "harmless"),
    "shorter": (changed(name=typed(NAME, length=20)), "from text(40) to text(20)", "sync"),
    "more digits": (changed(price=typed(PRICE, precision=12)), "numeric(10,2) to numeric(12,2)", "harmless"),
    "fewer before the point": (changed(price=typed(PRICE, precision=12, scale=6)), "to numeric(12,6)", "sync"),
    "fewer behind the point": (changed(price=typed(PRICE, scale=0)), "to numeric(10,0)", "sync"),
    "retyped": (changed(name=replace(NAME, type=ColumnType(INTEGER, bits=32))), "to integer of 32 bits", "sync"),
    "dropped": (changed(name=None), "column items.name was dropped or renamed", "edit"),
    "of a lookup": (changed(terms=None), "column items.terms was dropped or renamed", "edit"),
    "anew": (changed(name=replace(NAME, mark="5")), "column items.name was dropped and made anew", "sync"),
    "mandatory": (changed(name=replace(NAME, nullable=False)), "items.name must not be empty any more", "harmless"),
    "optional": (changed(code=replace(CODE, nullable=True)), "items.code may be empty now", "harmless"),
    "computed": (changed(name=replace(NAME, read_only=True)), "items.name is computed now", "sync"),
    "collated": (changed(name=replace(NAME, ignore_case=True)), "items.name compares its values", "sync"),
    "added": (changed(more=Column("more", ColumnType(TEXT))), "column items.more was added", "harmless"),
    "key": (table(CODE, NAME, PRICE, TERMS, key=("code", "name")), "was (code), and is (code, name)", "harmless"),
    "table": (Schema({}), "table items was dropped or renamed", "edit"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_change_is_told_with_its_meaning(case: str) -> None:
    """Exactly, and nothing where there is none."""
    now, told, meaning = CASES[case]
    before = seen_from(seen_text({L: WAS, R: WAS}, compiled(WAS)))[R]
    assert before == Seen.of(WAS, compiled(WAS).views[R])
    view = compiled(WAS).views[R] if case not in ("dropped", "of a lookup", "table") else None
    found = differences(R, before, now, view)
    assert [each.side for each in found] == [R] * bool(told)
    assert told in "".join(each.what for each in found)
    assert worst(found) == meaning


def test_a_table_that_was_written_anew_may_hold_other_values() -> None:
    """Where a column takes more and the table is another file by now, nobody knows what became of its values."""
    before = Seen.of(WAS, compiled(WAS).views[L])
    now = table(CODE, typed(NAME, length=60), PRICE, TERMS, storage="2")
    (found,) = differences(L, before, now, compiled(now).views[L])
    assert (found.meaning, "written anew" in found.why) == ("sync", True)
    rewritten = table(CODE, NAME, PRICE, TERMS, storage="2")  # VACUUM FULL, for instance
    assert not differences(L, before, rewritten, compiled(rewritten).views[L])


def test_what_a_map_does_not_read_any_more_is_harmless() -> None:
    """A column may go once the map's file does not name it."""
    before = Seen.of(WAS, compiled(WAS).views[L])
    now = changed(name=None)
    view = compiled(now, LINES.replace("  - name = name\n", "")).views[L]
    (found,) = differences(L, before, now, view)
    assert (found.what, found.meaning) == ("column items.name was dropped or renamed", "harmless")


def test_a_column_that_must_be_filled_and_is_not_is_told() -> None:
    """It parks new records, unless it has a default."""
    before = Seen.of(WAS, compiled(WAS).views[L])
    for has_default, word in ((False, "are parked"), (True, "does not read it")):
        must = Column("must", ColumnType(TEXT), nullable=False, has_default=has_default)
        (found,) = differences(L, before, changed(must=must), compiled(WAS).views[L])
        assert (found.meaning, word in found.why) == ("harmless", True)
