"""What a filter means for a column's type: as a function over rows, and as SQL with the same answers.

Both look at values in the same form: numbers as numbers, text by the column's collation, the rest as canonical text,
in which dates of the years 1 to 9999 are in order.  A cell that is no value of its type is neither equal to anything
nor before or behind it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from functools import lru_cache
from sqlite3 import Connection
from typing import Any, Final, assert_never

from dualwrite.canonical import NUMBERS, CastError, canonical, identity
from dualwrite.expression import And, Compare, Expression, Not, OneOf, Or, simplify
from dualwrite.model import ABSENT, Path, Row, Value, show_path
from dualwrite.schema import Column, ColumnType, TypeName
from dualwrite.wildcards import LONGEST, glob, matcher
from dualwrite.wildcards import like as like_pattern

Test = Callable[[Row], bool]

TEXTUAL: Final = frozenset({TypeName.TEXT, TypeName.OTHER, TypeName.CHOICE, TypeName.JSON})
_SEARCHES: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "contains": operator.contains,
    "startswith": str.startswith,
    "endswith": str.endswith,
}
_TEXTUAL_ONLY: Final = frozenset({*_SEARCHES, "like"})
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


# literals and columns


def _literal(column: Column, path: Path, value: Value) -> Value:
    """The literal in the column's form; null where the column takes empty text for it."""
    if value is None:
        return None
    if column.ignore_trailing_blanks and column.type.name in TEXTUAL:
        value = value.rstrip(" ")
    if column.empty_is_null and not value:
        return None
    try:
        value = canonical(column.type)(value)
    except CastError as error:
        raise CastError(error.code, f"filter on {show_path(path)}: {error.message}") from None
    return value.casefold() if column.ignore_case and column.type.name in TEXTUAL else value


def _twins(column: Column, value: str) -> tuple[str, ...]:
    """All spellings of a choice's value that cells may hold: its name and its number."""
    found = {value}
    for name, number in column.choices if column.type.name is TypeName.CHOICE else ():
        if value in (name, number) or (column.ignore_case and value == name.casefold()):
            found |= {name.casefold() if column.ignore_case else name, number}
    return tuple(sorted(found))


def _compared(operator_: str, column: Column, path: Path, value: str) -> Column:
    """The column as this operator sees it: a choice orders as a number when it is held against one."""
    if operator_ == "like" and len(value) > LONGEST:
        raise CastError("too_long", f"filter on {show_path(path)}: a pattern has up to {LONGEST} characters")
    if operator_ in _TEXTUAL_ONLY and column.type.name not in TEXTUAL:
        raise CastError("not_a_value", f"filter on {show_path(path)}: {operator_} needs text, this is {column.type}")
    if operator_ in ("gt", "ge", "lt", "le") and column.type.name is TypeName.CHOICE and _number(value) is not None:
        return replace(column, type=ColumnType(TypeName.NUMERIC))
    return column


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except DecimalException:
        return None
    return None if value.is_nan() else value


def _plain(column: Column) -> bool:
    """Do cells compare as they are?"""
    textual = column.type.name in TEXTUAL
    flags = column.empty_is_null or (textual and (column.ignore_case or column.ignore_trailing_blanks))
    return not flags and column.type.name not in NUMBERS


def _cell_form(column: Column) -> Callable[[str], Any]:
    """From a cell's text to what compares; None for what compares with nothing."""
    if column.type.name in NUMBERS:
        return _number
    blanks = column.ignore_trailing_blanks and column.type.name in TEXTUAL
    fold = column.ignore_case and column.type.name in TEXTUAL
    empty = column.empty_is_null

    def form(text: str) -> str | None:
        if blanks:
            text = text.rstrip(" ")
        if empty and not text:
            return None
        return text.casefold() if fold else text

    return form


# on rows


def compile_filter(expression: Expression | None, resolve: Callable[[Path], tuple[int, Column]]) -> Test:
    """The condition as a function over rows.  ``resolve`` gives the index of a path's cell and its column.

    An absent cell counts as null.  Raises CastError, naming the column, for a literal that is no value of its type.
    """
    return _test(simplify(expression), resolve) if expression is not None else _always


def _always(row: Row) -> bool:  # noqa: ARG001  # the shape of a test
    return True


def _never(row: Row) -> bool:  # noqa: ARG001  # the shape of a test
    return False


def _test(expression: Expression, resolve: Callable[[Path], tuple[int, Column]]) -> Test:
    match expression:
        case Compare(name, column, literal):
            return _compare(name, *resolve(column.path), column.path, literal.value)
        case OneOf(column, literals):
            index, kind = resolve(column.path)
            return _one_of(index, kind, column.path, [literal.value for literal in literals])
        case And(parts):
            return _all([_test(part, resolve) for part in parts])
        case Or(parts):
            return _any([_test(part, resolve) for part in parts])
        case Not(part):
            inner = _test(part, resolve)
            return lambda row: not inner(row)
        case _:
            assert_never(expression)


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda row: first(row) and second(row)

    def test(row: Row) -> bool:
        for each in tests:  # noqa: SIM110  # a generator costs twice as much per row
            if not each(row):
                return False
        return True

    return test


def _any(tests: Sequence[Test]) -> Test:
    def test(row: Row) -> bool:
        for each in tests:  # noqa: SIM110  # as above
            if each(row):
                return True
        return False

    return test


def _is_null(index: int, column: Column) -> Test:
    if not column.empty_is_null:
        return lambda row: (cell := row[index]) is None or cell is ABSENT
    form = _cell_form(replace(column, type=ColumnType(TypeName.TEXT)))  # empty is null for every type

    def test(row: Row) -> bool:
        cell = row[index]
        return cell is None or cell is ABSENT or form(cell) is None

    return test


def _compare(name: str, index: int, column: Column, path: Path, value: Value) -> Test:
    value = _literal(column, path, value)
    if value is None:
        null = _is_null(index, column)
        return null if name == "eq" else (lambda row: not null(row)) if name == "ne" else _never
    test = _valued(name, index, column, path, value)
    if not _empties_pass(name, column, value):
        return test
    null = _is_null(index, column)
    return lambda row: test(row) or null(row)


def _empties_pass(name: str, column: Column, value: str) -> bool:
    """Does the comparison hold for the empty text of a column that has no null of its own?"""
    if not column.empty_is_null:
        return False
    return name == "ne" or (name == "like" and matcher(value)(""))


def _valued(name: str, index: int, column: Column, path: Path, value: str) -> Test:
    if name in ("eq", "ne") and len(twins := _twins(column, value)) > 1:
        return _among(index, column, twins, name == "eq")
    column = _compared(name, column, path, value)
    if name == "like":
        matches = matcher(value)
        return _against(index, lambda cell, _: matches(cell), column, value)
    return _against(index, (_ORDERS | _SEARCHES)[name], column, value)


def _against(index: int, compare: Callable[[Any, Any], bool], column: Column, value: str) -> Test:
    if _plain(column):
        if compare is operator.eq:
            return lambda row: row[index] == value
        return lambda row: (cell := row[index]) is not None and cell is not ABSENT and compare(cell, value)
    form = _cell_form(column)
    wanted = form(value)

    def test(row: Row) -> bool:
        cell = row[index]
        if cell is None or cell is ABSENT:
            return False
        found = form(cell)
        return found is not None and compare(found, wanted)

    return test


def _among(index: int, column: Column, values: Sequence[str], wanted: bool) -> Test:
    form = identity if _plain(column) else _cell_form(column)
    members = frozenset(map(form, values))

    def test(row: Row) -> bool:
        cell = row[index]
        if cell is None or cell is ABSENT:
            return False
        found = form(cell)
        return found is not None and (found in members) is wanted

    return test


def _one_of(index: int, column: Column, path: Path, values: Sequence[Value]) -> Test:
    literals = [_literal(column, path, value) for value in values]
    known = [twin for value in literals if value is not None for twin in _twins(column, value)]
    among = _among(index, column, known, True)
    if None not in literals:
        return among
    null = _is_null(index, column)
    return lambda row: among(row) or null(row)


# as SQL


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database spells what filters need.

    ``column`` brings the SQL of a column to the form in which its values compare, null where they compare with
    nothing; ``literal`` brings a canonical literal to the value that is bound, ``pattern`` a pattern to what ``like``
    understands.  The templates take ``{value}``, ``{literal}`` and ``{size}``, the literal's length in characters;
    ``known`` turns unknown into false.
    """

    placeholder: str
    true: str
    false: str
    known: str
    contains: str
    startswith: str
    endswith: str
    like: str
    column: Callable[[Column, str], str]
    literal: Callable[[Column, str], object]
    pattern: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Renderer:
    column_sql: Callable[[Path], tuple[str, Column]]
    dialect: Dialect
    bound: list[object]

    def render(self, expression: Expression) -> str:
        match expression:
            case Compare(name, column, literal):
                return self.compare(name, column.path, literal.value)
            case OneOf(column, literals):
                return self.one_of(column.path, [literal.value for literal in literals])
            case And(()):
                return self.dialect.true
            case Or(()):
                return self.dialect.false
            case And(parts):
                return _balanced(list(map(self.render, parts)), "AND")
            case Or(parts):
                return _balanced(list(map(self.render, parts)), "OR")
            case Not(part):
                return f"NOT {self.render(part)}"
            case _:
                assert_never(expression)

    def compare(self, name: str, path: Path, value: Value) -> str:
        sql, column = self.column_sql(path)
        value = _literal(column, path, value)
        if value is None:
            return self.null(name, sql, column)
        test = self.valued(name, sql, column, path, value)
        return f"({test} OR {self.null('eq', sql, column)})" if _empties_pass(name, column, value) else test

    def valued(self, name: str, sql: str, column: Column, path: Path, value: str) -> str:
        if name in ("eq", "ne"):
            return self.among(sql, column, _twins(column, value), name == "eq")
        column = _compared(name, column, path, value)
        form = self.dialect.column(column, sql)
        self.bound.append(self.dialect.pattern(value) if name == "like" else self.dialect.literal(column, value))
        if name in _TEXTUAL_ONLY:
            template: str = getattr(self.dialect, name)
            test = template.format(value=form, literal=self.dialect.placeholder, size=len(value))
        else:
            test = f"{form} {_SIGNS[name]} {self.dialect.placeholder}"
        return self.dialect.known.format(test)

    def null(self, name: str, sql: str, column: Column) -> str:
        if name not in ("eq", "ne"):
            return self.dialect.false
        if column.empty_is_null:
            sql = self.dialect.column(replace(column, type=ColumnType(TypeName.TEXT)), sql)
        return f"({sql} IS {'' if name == 'eq' else 'NOT '}NULL)"

    def among(self, sql: str, column: Column, values: Sequence[str], wanted: bool) -> str:
        self.bound.extend(self.dialect.literal(column, value) for value in values)
        places = ", ".join([self.dialect.placeholder] * len(values))
        word = "IN" if wanted else "NOT IN"
        return self.dialect.known.format(f"{self.dialect.column(column, sql)} {word} ({places})")

    def one_of(self, path: Path, values: Sequence[Value]) -> str:
        sql, column = self.column_sql(path)
        literals = [_literal(column, path, value) for value in values]
        known = [twin for value in literals if value is not None for twin in _twins(column, value)]
        tests = [self.among(sql, column, known, True)] if known else []
        if None in literals:
            tests.append(self.null("eq", sql, column))
        return f"({' OR '.join(tests)})"


def _balanced(tests: Sequence[str], word: str) -> str:
    """Tests joined as a tree of little depth: databases limit how deep a condition may be."""
    if len(tests) < 3:
        return f"({f' {word} '.join(tests)})"
    middle = len(tests) // 2
    return f"({_balanced(tests[:middle], word)} {word} {_balanced(tests[middle:], word)})"


_SIGNS: Final = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def render_sql(
    expression: Expression, column_sql: Callable[[Path], tuple[str, Column]], dialect: Dialect
) -> tuple[str, list[object]]:
    """The condition as SQL and its bound values: true where ``compile_filter`` says so, false elsewhere, never null.

    ``column_sql`` gives the SQL of a path's value and its column.  Raises CastError as ``compile_filter`` does.
    """
    renderer = _Renderer(column_sql, dialect, [])
    return renderer.render(simplify(expression)), renderer.bound


def _sqlite_column(column: Column, sql: str) -> str:
    if column.type.name in NUMBERS:  # text that is no number would be 0
        junk = f"typeof({sql}) = 'text' AND ({sql} GLOB '*[^0-9.eE+-]*' OR {sql} NOT GLOB '*[0-9]*')"
        return f"CASE WHEN {junk} THEN NULL ELSE CAST({sql} AS NUMERIC) END"
    if column.type.name not in TEXTUAL:
        return f"dualwrite_canonical('{column.type.name.value}', {sql})"
    form = f"CAST({sql} AS TEXT)"
    if column.ignore_trailing_blanks:
        form = f"rtrim({form}, ' ')"
    if column.empty_is_null:
        form = f"nullif({form}, '')"
    return f"dualwrite_fold({form})" if column.ignore_case else f"{form} COLLATE BINARY"


def _sqlite_literal(column: Column, value: str) -> object:
    if column.type.name not in NUMBERS:
        return value
    exact = Decimal(value)
    whole = column.type.name is not TypeName.FLOAT and exact.is_finite() and exact == exact.to_integral_value()
    return int(exact) if whole and abs(exact) < 2**63 else float(exact)


@lru_cache(maxsize=16)
def _spelling(name: str) -> Callable[[str], str]:
    return canonical(ColumnType(TypeName(name)))


def _sqlite_canonical(name: str, value: object) -> str | None:
    if value is None:
        return None
    try:
        return _spelling(name)(rf"\x{value.hex()}" if isinstance(value, bytes) else str(value))
    except CastError:
        return None


def _sqlite_fold(value: str | None) -> str | None:
    return None if value is None else value.casefold()


def prepare_sqlite(connection: Connection) -> None:
    """Give a connection the functions that the SQL of the ``SQLITE`` dialect calls."""
    connection.create_function("dualwrite_canonical", 2, _sqlite_canonical, deterministic=True)
    connection.create_function("dualwrite_fold", 1, _sqlite_fold, deterministic=True)


SQLITE: Final = Dialect(
    placeholder="?",
    true="1",
    false="0",
    known="coalesce({}, 0)",
    contains="instr({value}, {literal}) > 0",
    startswith="instr({value}, {literal}) = 1",
    endswith="substr({value}, length({value}) - {size} + 1) = {literal}",
    like="{value} GLOB {literal}",
    column=_sqlite_column,
    literal=_sqlite_literal,
    pattern=glob,
)
"""SQLite on a connection that went through ``prepare_sqlite``; numbers compare exactly up to fifteen digits."""


def _postgresql_column(column: Column, sql: str) -> str:
    kind = column.type.name
    if kind is TypeName.INTEGER:
        return sql
    if kind in NUMBERS:  # a float's own cast to numeric loses digits that its text keeps
        return f"nullif({sql}{'::text' if kind is TypeName.FLOAT else ''}::numeric, 'NaN')"
    form = f"left({sql}::text, 1)" if kind is TypeName.BOOLEAN else f"{sql}::text"
    if column.ignore_trailing_blanks and kind in TEXTUAL:
        form = f"rtrim({form}, ' ')"
    return f'{f"nullif({form}, {_EMPTY})" if column.empty_is_null else form} COLLATE "C"'


_EMPTY: Final = "''"


def _postgresql_literal(column: Column, value: str) -> object:
    return Decimal(value) if column.type.name in NUMBERS else value


POSTGRESQL: Final = Dialect(
    placeholder="\0",
    true="TRUE",
    false="FALSE",
    known="coalesce({}, FALSE)",
    contains="strpos({value}, {literal}) > 0",
    startswith="starts_with({value}, {literal})",
    endswith="right({value}, {size}) = {literal}",
    like=r"{value} LIKE {literal} ESCAPE E'\\'",
    column=_postgresql_column,
    literal=_postgresql_literal,
    pattern=like_pattern,
)
"""PostgreSQL in a session that writes canonical text; each placeholder is to be replaced by its number.

The SQL of a column has the column's type.  What ignores letter case must not be asked: no function of all supported
versions folds letters as ``compile_filter`` does.
"""


# what two conditions have in common


@dataclass(frozen=True, slots=True)
class _Range:
    """The values of a column that a condition leaves: ``allowed`` (None: all) without ``excluded``."""

    allowed: frozenset[Any] | None = None
    excluded: frozenset[Any] = frozenset()

    def meets(self, other: _Range) -> _Range:
        """What both leave."""
        allowed = [each.allowed for each in (self, other) if each.allowed is not None]
        both = frozenset.intersection(*allowed) if allowed else None
        return _Range(both, self.excluded | other.excluded)

    def left(self) -> frozenset[Any]:
        """The values that are left of those allowed."""
        return (self.allowed or frozenset()) - self.excluded

    def is_empty(self) -> bool:
        """Surely no value is left."""
        return self.allowed is not None and not self.left()


def never_both(one: Expression, other: Expression, column_of: Callable[[Path], Column | None]) -> bool:
    """Surely no row passes both conditions, because a column would have to hold two values.

    Finds what follows from equality with values and null; False where it would need more than that.
    """
    ranges = _ranges(simplify(And((one, other))), column_of)
    return any(each.is_empty() for each in ranges.values())


def _ranges(expression: Expression, column_of: Callable[[Path], Column | None]) -> dict[Path, _Range]:
    match expression:
        case Compare("eq", column, literal):
            return _equal((literal.value,), column.path, column_of)
        case OneOf(column, literals):
            return _equal(tuple(literal.value for literal in literals), column.path, column_of)
        case Compare("ne", column, literal):
            return _unequal(literal.value, column.path, column_of)
        case Not(Compare("eq", column, literal)):
            found = _equal((literal.value,), column.path, column_of)
            return {path: _Range(None, each.allowed or frozenset()) for path, each in found.items()}
        case And(parts):
            whole: dict[Path, _Range] = {}
            for part in parts:
                for path, each in _ranges(part, column_of).items():
                    whole[path] = whole[path].meets(each) if path in whole else each
            return whole
        case Or(parts) if parts:
            several = [_ranges(part, column_of) for part in parts]
            shared = [path for path in several[0] if all(_is_listed(ranges.get(path)) for ranges in several)]
            return {path: _Range(frozenset().union(*(ranges[path].left() for ranges in several))) for path in shared}
        case _:
            return {}


def _unequal(value: Value, path: Path, column_of: Callable[[Path], Column | None]) -> dict[Path, _Range]:
    """A null is never unequal to anything, but an empty text of a column without a null is."""
    found = _equal((value,), path, column_of)
    column = column_of(path)
    null = frozenset[Any]() if column is not None and column.empty_is_null else frozenset({None})
    return {path: _Range(None, (each.allowed or frozenset()) | null) for path, each in found.items()}


def _is_listed(found: _Range | None) -> bool:
    return found is not None and found.allowed is not None


def _equal(values: Sequence[Value], path: Path, column_of: Callable[[Path], Column | None]) -> dict[Path, _Range]:
    """The range of a column that equals one of the values; nothing where one is no value of the column."""
    column = column_of(path)
    if column is None:
        return {}
    allowed: set[Any] = set()
    for value in values:
        try:
            text = _literal(column, path, value)
        except CastError:
            return {}
        if text is None:
            allowed.add(None)
        elif column.type.name in NUMBERS:
            allowed.add(_number(text))
        else:
            allowed.update(_twins(column, text))
    return {path: _Range(frozenset(allowed))}
