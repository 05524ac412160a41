"""X++ query range expressions: the filters of Finance & Operations, read into the tree of ``expression`` and written.

Nothing is null in Finance & Operations: an empty text is compared with ``""``, an empty date with the first of January
1900.  So there is no word for null here, and what needs one cannot be written; but ``==`` and ``!=`` with that day ask
whether a date is empty, and mean null as well where the date comes from a system that has it.  ``&&`` and ``||``
together need parentheses, and so does what stands behind ``!``: X++ ranks them otherwise than most people think.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, assert_never

from dualwrite.canonical import CastError, canonical
from dualwrite.expression import (
    ALWAYS,
    NEVER,
    And,
    Column,
    Compare,
    Expression,
    FilterError,
    Literal,
    Not,
    OneOf,
    Or,
    matching,
)
from dualwrite.mapping.tokens import BARE, END, MOMENT, WORD, Cursor, Token, moment
from dualwrite.model import Path, show_path
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnOf, ColumnType, TypeName, untyped
from dualwrite.wildcards import ANY, pattern_of, pieces_of

_TOKENS: Final = re.compile(
    r"""
      (?P<blank> \s+ )
    | (?P<text> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
    | (?P<moment> \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z? (?!\w) )
    | (?P<date> \d{1,2}\\\d{1,2}\\\d{4} (?!\w) )
    | (?P<number> (?:\d+\.\d+|\d+)(?:[eE][+-]?\d+)? (?![\w.]) )
    | (?P<enum> [^\W\d]\w*::\w+ )
    | (?P<word> [^\W\d]\w*(?:\.[^\W\d]\w*)* )
    | (?P<sign> <> | && | \|\| | == | != | <= | >= | [=<>!()-] )
    | (?P<junk> \d+\.\.\d+ | \w+ | [-+*/%&|]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS: Final = {
    "==": ("eq", "eq"),
    "=": ("eq", "eq"),
    "!=": ("ne", "ne"),
    "<": ("lt", "gt"),
    "<=": ("le", "ge"),
    ">": ("gt", "lt"),
    ">=": ("ge", "le"),
}
"""The operators, and what each is when its sides change places."""
_HINTS: Final = {
    "<>": "!=",
    "&": "&&",
    "|": "||",
    "and": "&&",
    "or": "||",
    "not": "!( )",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
"""What people who come from other languages write, and what it is here."""
_LIKE: Final = "like"
_CONSTANTS: Final = {"true": "t", "false": "f"}
_EMPTY_DATES: Final = frozenset({"1900-01-01", "1900-01-01 00:00:00", "1900-01-01 00:00:00+00"})
"""How an empty date, or moment, stands in Finance & Operations."""
_RESERVED: Final = frozenset({_LIKE, *_CONSTANTS, *_HINTS, "null"})

_Operand: TypeAlias = Column | Literal
_Part: TypeAlias = Expression | Column | Literal


# reading


def parse(text: str) -> Expression:
    """The expression that an X++ range spells; raises FilterError for what it cannot be or cannot say."""
    if not text.strip():
        raise FilterError("the filter is empty")
    parser = _Parser(text)
    found = parser.condition()
    parser.cursor.finish()
    return found


class _Parser:
    """One text on its way to an expression."""

    def __init__(self, text: str) -> None:
        self.cursor = Cursor(text, _TOKENS, "the filter", FilterError, _misplaced)

    def condition(self) -> Expression:
        """What is true or false."""
        token = self.cursor.here
        return _condition(self.chain(), token)

    def chain(self) -> _Part:
        """Parts joined by one operator."""
        token = self.cursor.here
        first = self.comparison()
        sign = self.cursor.here.text
        if sign not in ("&&", "||"):
            return first
        parts = [_condition(first, token)]
        while self.cursor.skip(sign):
            token = self.cursor.here
            parts.append(_condition(self.comparison(), token))
        if self.cursor.here.text in ("&&", "||"):
            raise FilterError("&& and || together need parentheses that say which comes first", self.cursor.here.column)
        return _joined(And if sign == "&&" else Or, parts)

    def comparison(self) -> _Part:
        """One operand, or two with an operator between them."""
        token = self.cursor.here
        left = self.operand()
        operator = self.cursor.here
        if operator.text == _LIKE:
            return self.like(left, token)
        if operator.text not in _OPERATORS:
            return left
        self.cursor.take()
        behind = self.cursor.here
        right = self.operand()
        for side, place in ((left, token), (right, behind)):
            if not isinstance(side, Column | Literal):
                raise FilterError("a condition stands where a field or a value belongs", place.column)
        if self.cursor.here.text in _OPERATORS or self.cursor.here.text == _LIKE:
            raise FilterError("a comparison has two sides: join several with &&", self.cursor.here.column)
        return _compared(*_OPERATORS[operator.text], left, right, token, behind)  # type: ignore[arg-type]  # told above

    def like(self, left: _Part, token: Token) -> Expression:
        """A field that matches a pattern."""
        self.cursor.take()
        pattern = self.cursor.take()
        if not isinstance(left, Column):
            raise FilterError("a field stands before like", token.column)
        if pattern.kind != "text":
            raise FilterError('a text stands behind like, as in like "A*"', pattern.column)
        return matching(left, _pattern(pattern.text))

    def operand(self) -> _Part:
        """A field, a value, or something in parentheses."""
        token = self.cursor.take()
        match token.kind, token.text:
            case "sign", "(":
                with self.cursor.deeper():
                    found = self.chain()
                self.cursor.close(token)
                return found
            case "sign", "!":
                return self.negation(token)
            case "sign", "-" if self.cursor.here.kind == "number":
                return Literal(f"-{self.cursor.take().text}")
            case "word", word if word.lower() in _CONSTANTS:
                return Literal(_CONSTANTS[word.lower()])
            case "word", word if word.lower() not in _RESERVED:
                return self.field(token)
            case _:
                return _literal(token)

    def negation(self, sign: Token) -> Expression:
        """The opposite of what stands in parentheses."""
        token = self.cursor.here
        if token.text not in ("(", "!"):
            raise FilterError("put what stands behind ! into parentheses: !(FIELD == VALUE)", sign.column)
        with self.cursor.deeper():
            return Not(_condition(self.operand(), token))

    def field(self, token: Token) -> Column:
        if self.cursor.here.text == "(":
            message = f"the function {token.text} cannot be expressed: write its value, or filter by a column"
            raise FilterError(message, token.column)
        return Column(tuple(token.text.split(".")))


def _joined(kind: type[And] | type[Or], parts: list[Expression]) -> Expression:
    """Parts joined flat: parentheses around a part of the same kind say nothing."""
    flat: list[Expression] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, kind) and part.parts else (part,))
    return kind(tuple(flat))


def _condition(part: _Part, token: Token) -> Expression:
    if isinstance(part, Column):
        raise FilterError(f"{show_path(part.path)} is compared with nothing: write FIELD == VALUE", token.column)
    if isinstance(part, Literal):
        raise FilterError("a value is no condition: write FIELD == VALUE", token.column)
    return part


def _compared(operator: str, turned: str, left: _Operand, right: _Operand, token: Token, behind: Token) -> Expression:
    if isinstance(left, Literal) and isinstance(right, Literal):
        return _constant(operator, left, right, token)
    if isinstance(left, Literal):
        left, right, operator, behind = right, left, turned, token
    if isinstance(left, Column) and isinstance(right, Literal):
        if behind.kind in ("date", "moment") and operator in ("eq", "ne") and right.value in _EMPTY_DATES:
            empty = OneOf(left, (right, Literal(None)))
            return empty if operator == "eq" else Not(empty)
        return Compare(operator, left, right)
    message = "a field is compared with a value, not with another field; text stands in double quotes"
    raise FilterError(message, behind.column)


def _constant(operator: str, left: Literal, right: Literal, token: Token) -> Expression:
    """``1 == 1`` and the like: what always holds, or never."""
    if operator not in ("eq", "ne") or token.kind != "number":
        raise FilterError("both sides are values, one must be a field", token.column)
    return ALWAYS if (left == right) == (operator == "eq") else NEVER


def _literal(token: Token) -> Literal:
    match token.kind:
        case "text":
            return Literal(_unquoted(token.text))
        case "number":
            return Literal(token.text)
        case "enum":
            return Literal(token.text.rpartition("::")[2])
        case "date":
            return Literal(_date(token))
        case "moment":
            return Literal(moment(token.text, token.column))
        case _:
            raise _misplaced(token)


def _unquoted(raw: str) -> str:
    """A text without its quotes; a backslash takes the meaning from a quote or another backslash."""
    return re.sub(r"\\([\"'\\])", r"\1", raw[1:-1])


def _pattern(raw: str) -> str:
    """The pattern behind ``like``: here a backslash takes the meaning from wildcards, too."""
    pieces = re.findall(r"\\([\"'\\*?])|(.)", raw[1:-1], re.DOTALL)
    return pattern_of((not escaped and sign in ("*", "?"), escaped or sign) for escaped, sign in pieces)


def _date(token: Token) -> str:
    day, month, year = token.text.split("\\")
    try:
        return canonical(ColumnType(TypeName.DATE))(f"{year}-{month}-{day}")
    except CastError:
        raise FilterError(rf"{token.text} is no date: dates are written dd\mm\yyyy", token.column) from None


def _misplaced(token: Token) -> FilterError:
    """The error for a token that cannot stand where it does."""
    word = token.text
    if token.kind == END:
        return FilterError("the filter ends where a field, a value or a parenthesis is missing", token.column)
    if word.lower() == "null":
        return FilterError('X++ ranges know no null: compare with the empty text ""', token.column)
    if word.lower() in _HINTS:
        return FilterError(f"{word} is no operator here, use {_HINTS[word.lower()]}", token.column)
    if word in ('"', "'"):
        return FilterError("the text that begins here has no closing quote", token.column)
    if ".." in word:
        return FilterError("a range of values is written (FIELD >= FROM) && (FIELD <= TO)", token.column)
    if word in _OPERATORS or word in ("&&", "||", _LIKE):
        return FilterError(f"{word} has no field or value before it", token.column)
    if re.fullmatch(r"[-+*/%]+", word):
        return FilterError("filters do not compute: write the value itself", token.column)
    return FilterError(f"{word} cannot stand here", token.column)


# writing

_SIGNS: Final = {"eq": "==", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_DATE: Final = re.compile(r"([1-9]\d{3})-(\d\d)-(\d\d)", re.ASCII)


def show(expression: Expression, column: ColumnOf | None = None) -> str:
    """The filter in X++; ``parse`` gives the same expression back, but that a list is written as its alternatives.

    With ``column`` literals are spelled as the column's type wants them, without it by their looks.  Raises FilterError
    for what X++ cannot express.
    """
    text = _shown(expression, column or untyped)
    return text if text.startswith("(") else f"({text})"


def _shown(expression: Expression, column: ColumnOf) -> str:
    match expression:
        case Compare():
            return _compare(expression, column)
        case OneOf(wanted, (Literal(value), Literal(None))) if value in _EMPTY_DATES:
            return f"({_field(wanted.path)} == {_empty_date(wanted.path, value, column)})"
        case Not(OneOf(wanted, (Literal(value), Literal(None)))) if value in _EMPTY_DATES:
            return f"({_field(wanted.path)} != {_empty_date(wanted.path, value, column)})"
        case OneOf(wanted, literals):
            return _shown(Or(tuple(Compare("eq", wanted, literal) for literal in literals)), column)
        case And(()):
            return "(1 == 1)"
        case Or(()):
            return "(1 == 0)"
        case And((part,)) | Or((part,)):
            return _shown(part, column)
        case And(parts) | Or(parts):
            sign = " && " if isinstance(expression, And) else " || "
            return f"({sign.join(_shown(part, column) for part in parts)})"
        case Not(part):
            return f"!{_shown(part, column)}" if not isinstance(part, Not) else f"!({_shown(part, column)})"
        case _:
            assert_never(expression)


def _compare(expression: Compare, column: ColumnOf) -> str:
    path, value = expression.column.path, expression.literal.value
    name = _field(path)
    if expression.operator in _SIGNS:
        found = column(path)
        spelled = _spelled(path, value, found)
        if value in _EMPTY_DATES and expression.operator in ("eq", "ne") and not spelled.startswith('"'):
            if found is not None:
                return _the_day(name, expression.operator, spelled)
            spelled = _quoted(value)
        return f"({name} {_SIGNS[expression.operator]} {spelled})"
    if value is None or (not value and expression.operator != _LIKE):
        raise FilterError(f"X++ cannot say {expression.operator} of nothing: {show_path(path)}")
    return f"({name} like {_quoted_pattern(expression.operator, value)})"


def _the_day(name: str, operator: str, spelled: str) -> str:
    """The first of January 1900 itself, without the dates that are empty."""
    low, sign, high = (">=", "&&", "<=") if operator == "eq" else ("<", "||", ">")
    return f"(({name} {low} {spelled}) {sign} ({name} {high} {spelled}))"


def _empty_date(path: Path, value: str, column: ColumnOf) -> str:
    """An empty date, as X++ spells it; raises FilterError for a column whose values are spelled otherwise."""
    spelled = _spelled(path, value, column(path))
    if spelled.startswith('"'):
        raise FilterError(f"X++ knows no null, and {show_path(path)} holds no dates")
    return spelled


def _quoted_pattern(operator: str, value: str) -> str:
    pieces = pieces_of(value) if operator == _LIKE else ((False, value),)
    before = ANY if operator in ("contains", "endswith") else ""
    behind = ANY if operator in ("contains", "startswith") else ""
    inner = "".join(text if wild else re.sub(r'["\\*?]', r"\\\g<0>", text) for wild, text in pieces)
    return f'"{before}{inner}{behind}"'


def _field(path: Path) -> str:
    for step in path:
        if not re.fullmatch(WORD, step) or step.lower() in _RESERVED:
            raise FilterError(f"X++ cannot name {show_path(path)}: {step!r} is not a plain word")
    return ".".join(path)


def _spelled(path: Path, value: str | None, column: SchemaColumn | None) -> str:
    kind = column.type.name if column is not None else None
    if value is None:
        raise FilterError(f'X++ knows no null: compare {show_path(path)} with the empty text ""')
    if value in ("t", "f") and kind in (None, TypeName.BOOLEAN):
        return "true" if value == "t" else "false"
    if kind in (TypeName.TEXT, TypeName.OTHER):
        return _quoted(value)
    if BARE.fullmatch(value):
        return value
    if kind in (None, TypeName.DATE) and (match := _DATE.fullmatch(value)) and _is(TypeName.DATE, value):
        return f"{match[3]}\\{match[2]}\\{match[1]}"
    if match := MOMENT.fullmatch(value):
        type_ = TypeName.TIMESTAMPTZ if match[3] else TypeName.TIMESTAMP
        if _is(type_, value):
            return f"{match[1]}T{match[2]}{'Z' if match[3] and kind is None else ''}"
    return _quoted(value)


def _is(type_: TypeName, value: str) -> bool:
    """Is this a value of the type in canonical text?"""
    try:
        return canonical(ColumnType(type_))(value) == value
    except CastError:
        return False


def _quoted(value: str) -> str:
    escaped = re.sub(r'["\\]', r"\\\g<0>", value)
    return f'"{escaped}"'
