"""The notation under random input: any text is a map or ``Invalid``, and every map survives writing and reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.declared import read_declared
from dualwrite.document import flow
from dualwrite.errors import Invalid, Problem
from dualwrite.expression import And, Column, Compare, Literal, Or
from dualwrite.mapping import xpp
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import (
    POLICIES,
    ROW_POLICIES,
    Case,
    ColumnMapping,
    Company,
    Default,
    Direction,
    Formula,
    Round,
    TableMap,
    Trim,
    Truncate,
    Unread,
    ValueMap,
    Written,
)
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side
from dualwrite.project import load

# What people could have in a name or value, with a liking for all that means something to YAML or to us.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
ODD = st.text(
    st.one_of(st.sampled_from(" #:,{}[]&*!|>'\"%@`=<-.?~\n\t\\nullone019ab_$é\u2028\ufeff"), CHARACTERS), max_size=12
)
WORDS = st.sampled_from(
    [
        "long " * 120 + "!",
        "y" * 1100,
        "none",
        "null",
        "true",
        "no",
        "~",
        "1e3",
        "-1",
        "- a",
        "a: b",
        "a #b",
        "park",
        "keep",
        "=x",
        "x-y",
    ]
)
TEXTS = st.one_of(ODD, WORDS)
NAMES = TEXTS.filter(lambda text: text.strip())
VALUES = st.one_of(st.none(), TEXTS)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)

VALUE_MAPS = st.builds(
    ValueMap,
    st.lists(st.tuples(VALUES, VALUES), max_size=8).map(tuple),
    st.one_of(st.none(), st.sampled_from(["park", "keep", "=park", "=keep"]), TEXTS.map(lambda text: f"={text}")),
    st.none() | st.lists(st.tuples(VALUES, VALUES), max_size=4).map(tuple),
)
FLAGS = [Truncate(), Round(), Case("upper"), Case("lower"), Trim()]
TRANSFORMS = st.one_of(st.builds(Default, VALUES), VALUE_MAPS, st.sampled_from(FLAGS))
FORMULAS = st.sampled_from(["A & 'x'", 'if(A = "", 1, [b #] / 2)', "'null'", "\n upper(lookup.A)", "1", "' {:#'"])
POLICY = st.one_of(st.none(), st.sampled_from(POLICIES))
EXTRA = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3),
    max_leaves=8,
)
OWN = st.dictionaries(ODD.map(lambda text: f"x-{text}"), EXTRA, max_size=2)
MAPPINGS = st.builds(
    ColumnMapping,
    PATHS,
    st.sampled_from(Direction),
    PATHS,
    st.lists(TRANSFORMS, max_size=4).map(tuple),
    POLICY,
    extra=OWN,
)
CONSTANTS = st.builds(
    lambda path, to_right, value, more, policy: ColumnMapping(
        None if to_right else path,
        Direction.TO_RIGHT if to_right else Direction.TO_LEFT,
        path if to_right else None,
        (value, *more),
        policy,
    ),
    PATHS,
    st.booleans(),
    st.builds(Default, VALUES) | st.builds(Formula, FORMULAS),
    st.lists(TRANSFORMS, max_size=2),
    POLICY,
)
COLUMN = st.builds(Column, st.sampled_from([("a",), ("lookup", "b")]))
TERMS = st.builds(Compare, st.sampled_from(["eq", "ne"]), COLUMN, st.builds(Literal, ODD))
FILTERS = st.one_of(TERMS, st.builds(And, st.tuples(TERMS, TERMS)), st.builds(Or, st.tuples(TERMS, TERMS)))
XPP = st.sampled_from(["(a == 1)", 'a == "x\'y"', "(b like '*\\?')", '\n(a = "#: {")'])
FILTERS |= XPP.map(lambda text: Written("xpp", text, xpp.parse(text)))
UNREAD = st.builds(
    Unread,
    st.sampled_from(["odata", "xpp"]),
    st.sampled_from(["length(a) eq 1", "a eq", "(", "a eq 'x", '\n # : {"', 'a == "\\']),
)
MAPS = st.builds(
    TableMap,
    name=NAMES,
    left=NAMES,
    right=NAMES,
    columns=st.lists(MAPPINGS | CONSTANTS, min_size=1, max_size=6).map(tuple),
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,9}){3}", fullmatch=True),
    publisher=st.one_of(st.just(""), NAMES),
    company=st.one_of(st.none(), st.builds(Company, PATHS, PATHS)),
    key=st.one_of(st.none(), st.lists(PATHS, min_size=1, max_size=3).map(tuple)),
    filters=st.dictionaries(st.sampled_from(Side), FILTERS),
    conflict=POLICY,
    rows=st.sampled_from(ROW_POLICIES),
    deletes=st.booleans(),
    on_leave=st.sampled_from(["detach", "delete"]),
    unread=st.dictionaries(st.sampled_from(Side), UNREAD),
    extra=OWN,
).map(lambda found: replace(found, unread={k: each for k, each in found.unread.items() if k not in found.filters}))

LINES = """\
map: m
version: 1.0.0.0
left: L
right: R
company: A = b.c
key: [a, [b, c]]
filter: {left: {xpp: "a == 'x'"}, right: {odata: b ne null}}
conflict: newest
columns:
  - A = b
  - A >< b: {values: {x: 1, null: 2}, else: park, truncate: true, x-own: {a: b}}
  - none >> c: {default: ~}
  - none >> d: {expr: "if(A = 1, 'x', [b #] & A)", trim: true}
  - A >< e: {values: {x: 1}, reverse: {1: x, 2: x}, upper: true}
  - {left: [a, b], direction: both, right: "c d"}
x-own: {a: [1, 2]}
""".splitlines(keepends=True)
SCHEMA_LINES = """\
tables:
  T:
    key: [a, b.c]
    columns:
      a: {type: "numeric(18,2)", nullable: no, choices: {No: 0}}
    references:
      b: {table: U, columns: [b], to: [c]}
empty_is_null: yes
""".splitlines(keepends=True)


SETTINGS_LINES = """\
link: contoso
left:  {name: finops, url: "sqlite:///finops.db"}
right:
  url: "${CRM_URL}"
  timezone: Europe/Berlin
companies: [usmf, no]
conflict: max
maps: "maps/"
limits: {deletes: 500}
""".splitlines(keepends=True)


def mangled(lines: list[str]) -> st.SearchStrategy[str]:
    """A valid file in which some lines are missing, doubled, moved, or have text put into them."""
    piece = st.tuples(st.sampled_from(lines), st.integers(0, 60), st.one_of(st.just(""), ODD))
    return st.lists(piece, max_size=20).map(
        lambda pieces: "".join(f"{line[:at]}{text}{line[at:]}" for line, at, text in pieces)
    )


def plain(table_map: TableMap) -> TableMap:
    """The map without its lines."""
    columns = tuple(replace(mapping, line=0) for mapping in table_map.columns)
    company = table_map.company and replace(table_map.company, line=0)
    return replace(table_map, columns=columns, company=company, lines={})


@given(MAPS)
@settings(max_examples=150, deadline=None)
def test_writing_and_reading_give_the_same_map(table_map: TableMap):
    """Whatever a map holds, its file says exactly that."""
    assert plain(read_map(write_map(table_map), "")) == table_map


def problems(read: Callable[[str, str], object], text: str) -> Sequence[Problem]:
    """What a reader says of a text."""
    try:
        read(text, "f.yaml")
    except Invalid as error:
        return error.problems or (Problem("none", ""),)
    return ()


@given(st.one_of(st.text(), ODD, mangled(LINES)))
@settings(max_examples=250, deadline=None)
def test_any_text_is_a_map_or_invalid(text: str):
    """Bad input never ends in anything but problems that say something."""
    assert all(problem.message and problem.file == "f.yaml" for problem in problems(read_map, text))


@given(st.one_of(st.text(), ODD, mangled(SCHEMA_LINES)))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_declaration_or_invalid(text: str):
    """The same holds for schema files."""
    assert all(problem.message and problem.file == "f.yaml" for problem in problems(read_declared, text))


def load_settings(text: str, _: str) -> object:
    """Load a project with this text as its settings."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "maps").mkdir()
        (Path(folder) / "dualwrite.yaml").write_text(text, encoding="utf-8")
        return load(Path(folder), {"CRM_URL": "memory://crm"})


@given(st.one_of(ODD, mangled(SETTINGS_LINES), mangled(SETTINGS_LINES).map("".join(SETTINGS_LINES[:4]).__add__)))
@settings(max_examples=150, deadline=None)
def test_any_settings_are_a_project_or_invalid(text: str):
    """And for the settings of a project."""
    assert all(problem.message and problem.file for problem in problems(load_settings, text))


NODES = st.recursive(
    st.sampled_from(["", "a", "A = b", "none", "p.q", "x" * 300, "9" * 400, "1.0.0.0", "left", "A eq", "{", "[x"])
    | ODD,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["values", "left", "a", "expr"]), inner)
    ),
    max_leaves=5,
)
ENTRIES = ("map", "version", "publisher", "left", "right", "company", "key", "filter", "columns", "rows", "x-own")


@given(st.dictionaries(st.sampled_from(ENTRIES), NODES, min_size=1), st.lists(NODES, max_size=2))
@settings(max_examples=150, deadline=None)
def test_any_tree_is_a_map_or_invalid(entries: dict[str, object], columns: list[object]):
    """Whatever stands where something else is meant is told with its line and a remedy."""
    whole = {"map": "m", "left": "L", "right": "R", "columns": ["A = b", *columns], **entries}
    text = "".join(f"{name}: {flow(value)}\n" for name, value in whole.items())
    assert all(problem.line and problem.remedy for problem in problems(read_map, text))
