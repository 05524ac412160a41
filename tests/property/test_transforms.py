"""Whatever a line does to its values: behind an initial sync and live edits on both sides, the two sides agree."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase
from dualwrite.engine.link import key_of
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.errors import Invalid
from dualwrite.journal import Journal
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side, Value
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

TEXT = ColumnType(TypeName.TEXT)
CHOICES = (("Open", "1"), ("Done", "2"))


def _table(name: str, *columns: Column) -> Table:
    key = Column("code", TEXT, nullable=False)
    return Table(name, (key, *columns), ("code",), (("code",),))


LEFT = _table(
    "l",
    Column("a", TEXT),
    Column("e", TEXT, empty_is_null=True),
    Column("n", ColumnType(TypeName.NUMERIC)),
    Column("s", ColumnType(TypeName.CHOICE), choices=CHOICES),
)
RIGHT = _table(
    "r",
    Column("x", TEXT),
    Column("y", ColumnType(TypeName.TEXT, length=3)),
    Column("z", ColumnType(TypeName.NUMERIC, precision=9, scale=1)),
    Column("f", ColumnType(TypeName.BOOLEAN)),
)
SCHEMAS = {Side.LEFT: Schema({"l": LEFT}), Side.RIGHT: Schema({"r": RIGHT})}

TWO_WAY = (
    "a = x",
    "a >< x: {default: q}",
    "a >< x: {values: {a: 1, b: 2, null: 3}}",
    "a >< x: {values: {a: 1, b: 2}, else: park}",
    "a >< x: {values: {a: 1, b: 2}, default: 2}",
    "a >< x: [{default: a}, {values: {a: 1, b: 2}}]",
    "a >< x: {values: {a: 1, b: 1, c: 2}, reverse: {1: b, 2: c, 3: a}}",
    "a >< x: {values: {a: 1, b: 1}, reverse: {1: b, 2: null}, else: keep}",
    "a >< x: [{values: {a: b, b: c, c: a}}, {values: {a: 1, b: 2}}]",
    "a = y: {truncate: true}",
    "e = y: {truncate: true}",
    "e >< x: {default: q}",
    "e >< x: {values: {a: null, null: b}}",
    "n = z: {round: true}",
    "s >< f: {values: {Open: true, Done: false}}",
    "s >< x: {values: {1: o, Done: d}, else: o}",
)
ONE_WAY = (
    "a >> x: {upper: true}",
    "a >> x: {trim: true, lower: true, default: none}",
    "e >> y: {trim: true, truncate: true, default: no}",
    "a << x: {upper: true}",
    "e << x: {trim: true, default: q}",
    "a >> x: [{upper: true}, {values: {A: 1, B: null}}, {default: 9}]",
    "none >> x: {expr: a & '-' & n, upper: true}",
    "none >> z: {expr: n / 3, round: true}",
    "none >> z: {expr: length(a & e)}",
    "none >> f: {expr: s = 'Open' or n > 1}",
    "none >> y: {expr: \"if(isblank(e), 'no', e)\", truncate: true}",
    'e << none: {expr: "if(f, x, upper(y))"}',
    "none >> x: {default: 7}",
    "a << none: {default: 7}",
)


def _settled(lines: list[str]) -> bool:
    """Can the lines stand in one map?"""
    try:
        compile_map(read_map(_text(lines), ""), *SCHEMAS.values())
    except Invalid:
        return False
    return True


def _text(lines: list[str]) -> str:
    return "map: m\nleft: l\nright: r\nkey: [code]\ncolumns:\n  - code = code\n" + "".join(
        f"  - {line}\n" for line in lines
    )


FOLLOWS_IN_VAIN = ["a = y: {truncate: true}", "a >< x: {values: {a: 1, b: 2}, else: park}"]
"""What comes from ``y`` has no counterpart in ``x``, which follows."""
MAPS = st.lists(st.sampled_from(TWO_WAY + ONE_WAY), min_size=1, max_size=4, unique=True).filter(_settled)
WORDS = st.none() | st.sampled_from(["", "a", "b", "c", "A", " a ", "1", "2", "3", "abcdef"])
NUMBERS = st.none() | st.sampled_from(["0", "1", "2.5", "0.25", "-1"])
CELLS = {
    Side.LEFT: {"a": WORDS, "e": WORDS, "n": NUMBERS, "s": st.sampled_from([None, "1", "Done", "Open"])},
    Side.RIGHT: {"x": WORDS, "y": WORDS.map(lambda text: text and text[:3]), "z": NUMBERS.map(lambda n: n and n[:3]),
                 "f": st.sampled_from([None, "t", "f"])},
}  # fmt: skip
RECORDS = {side: st.fixed_dictionaries(cells) for side, cells in CELLS.items()}
EDITS = st.sampled_from(Side).flatmap(
    lambda side: st.tuples(
        st.just(side),
        st.sampled_from("123"),
        st.sampled_from(sorted(CELLS[side])).flatmap(lambda name: st.tuples(st.just(name), CELLS[side][name])),
    )
)


@settings(max_examples=60, deadline=None)
@given(
    MAPS,
    st.dictionaries(st.sampled_from("12"), RECORDS[Side.LEFT]),
    st.dictionaries(st.sampled_from("23"), RECORDS[Side.RIGHT]),
    st.lists(EDITS, max_size=6),
    st.sampled_from(Side),
)
@example(FOLLOWS_IN_VAIN, {}, {"2": {"x": None, "y": "", "z": None, "f": "f"}}, [], Side.RIGHT)
def test_both_sides_agree(
    lines: list[str],
    left: dict[str, dict[str, Value]],
    right: dict[str, dict[str, Value]],
    edits: list[tuple[Side, str, tuple[str, Value]]],
    master: Side,
) -> None:
    """What is not parked, or told of in the log, agrees, and carrying again writes nothing."""
    compiled = compile_map(read_map(write_map(read_map(_text(lines), "")), ""), *SCHEMAS.values())
    databases = {side: MemoryDatabase(SCHEMAS[side], str(side)) for side in Side}
    tables = {Side.LEFT: "l", Side.RIGHT: "r"}
    for side, records in ((Side.LEFT, left), (Side.RIGHT, right)):
        with databases[side].user() as user:
            for code, cells in records.items():
                user.insert(tables[side], {"code": code, **cells})
    connectors = {side: MemoryConnector(database) for side, database in databases.items()}
    journal = Journal.open("sqlite://")
    journal.set_state("m", desired="running", master=master.value)
    engine = Engine("link", connectors, [compiled], journal)
    engine.open()
    engine.reconcile()
    engine.drain()
    for side, code, (name, value) in edits:
        with databases[side].user() as user:
            user.update(tables[side], {"code": code}, {name: value})
        engine.drain()
    parked = {entry.shown_key for entry in journal.parked({})}
    told = [event for event in journal.events() if event.what == "one-way columns could not be put back"]
    parked |= {str(key_of(str(event.detail["key"]))[0]) for event in told}
    report = verify(compiled, connectors)
    odd = [found for found in report.differences if found.key[0] not in parked]
    engine.close()
    journal.close()
    assert not odd, odd
    assert {found.key[0] for found in report.unusable} <= parked
