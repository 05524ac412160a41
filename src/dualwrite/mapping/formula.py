"""Formulas (``expr:``): small computations over the columns of one record, read into a tree.

``compute`` holds a tree against the columns' types and turns it into a function.  Nothing here knows of tables.

From the loosest: ``or``, ``and``, ``not``, a comparison, ``&`` (texts joined), ``+`` ``-``, ``*`` ``/``, a sign; then
values, columns, functions and parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from dualwrite.expression import Misread
from dualwrite.mapping.tokens import END, NAME, Cursor, Token, path_of
from dualwrite.model import Path
from dualwrite.names import guess

_TOKENS: Final = re.compile(
    rf"""
      (?P<blank> \s+ )
    | (?P<text> '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<number> (?:\d+\.\d+|\d+) (?![\w.]) )
    | (?P<word> {NAME}(?:\.{NAME})* )
    | (?P<sign> <= | >= | <> | != | == | &(?!&) | [-=<>+*/(),] )
    | (?P<junk> \w+ | && | \|\|? | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMPARISONS: Final = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_HINTS: Final = {
    "&&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "eq": "=",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "mod": "mod(A, B)",
    "%": "mod(A, B)",
}
"""What people who come from other languages write, and what it is here."""
_CONSTANTS: Final = {"null": None, "true": True, "false": False}
_OPERATORS: Final = ("and", "or", "not")

FUNCTIONS: Final[dict[str, tuple[int, int | None]]] = {
    "abs": (1, 1),
    "ceiling": (1, 1),
    "coalesce": (1, None),
    "concat": (1, None),
    "contains": (2, 2),
    "date": (1, 1),
    "day": (1, 1),
    "endswith": (2, 2),
    "floor": (1, 1),
    "if": (3, None),
    "isblank": (1, 1),
    "left": (2, 2),
    "length": (1, 1),
    "lower": (1, 1),
    "mod": (2, 2),
    "month": (1, 1),
    "number": (1, 1),
    "replace": (3, 3),
    "right": (2, 2),
    "round": (1, 2),
    "startswith": (2, 2),
    "substring": (2, 3),
    "text": (1, 1),
    "trim": (1, 1),
    "upper": (1, 1),
    "year": (1, 1),
}
"""The functions, and how many values each takes: at least, and at most (None: any number)."""


DEEPEST: Final = 30
"""So many levels a formula may have."""


class FormulaError(Misread):
    """A formula that cannot be read, or whose parts do not go together."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value as written: a text, a number (its digits), a truth, or null.  ``kind`` is one of the types' names."""

    kind: str
    value: str | bool | None
    at: int


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the record."""

    path: Path
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function of some parts; operators are functions, too: ``and or not = != < <= > >= & + - * / minus``.

    Of ``+`` and ``*`` the ``signs`` say by which operator each part but the first is joined.
    """

    name: str
    parts: tuple[Node, ...]
    at: int
    signs: tuple[str, ...] = ()


Node: TypeAlias = Constant | Field | Call


def parse(text: str) -> Node:
    """The tree of a formula; raises FormulaError, which names the character at fault."""
    if not text.strip():
        raise FormulaError("the formula is empty")
    parser = _Parser(text)
    node = parser.expression()
    parser.cursor.finish()
    return node


def fields(node: Node) -> list[Field]:
    """The columns that a formula names, in order, each once."""
    found: dict[Path, Field] = {}
    for field in _walk(node):
        found.setdefault(field.path, field)
    return list(found.values())


def _walk(node: Node) -> Iterator[Field]:
    if isinstance(node, Field):
        yield node
    elif isinstance(node, Call):
        for part in node.parts:
            yield from _walk(part)


class _Parser:
    """One text on its way to a tree."""

    def __init__(self, text: str) -> None:
        self.cursor = Cursor(text, _TOKENS, "the formula", FormulaError, _behind, DEEPEST)

    def expression(self) -> Node:
        """Anything."""
        with self.cursor.deeper():
            return self.several("or", lambda: self.several("and", self.opposite))

    def several(self, word: str, part: Callable[[], Node]) -> Node:
        """Parts joined by a word."""
        at = self.cursor.here.column
        parts = [part()]
        while self.word(word):
            self.cursor.take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Call(word, tuple(parts), at)

    def word(self, word: str) -> bool:
        """Does this word stand here?"""
        return self.cursor.here.kind == "word" and self.cursor.here.text.lower() == word

    def opposite(self) -> Node:
        """Perhaps with ``not`` before it."""
        if not self.word("not") or self.cursor.next.text == ".":
            return self.comparison()
        at = self.cursor.take().column
        with self.cursor.deeper():
            return Call("not", (self.opposite(),), at)

    def comparison(self) -> Node:
        """One value, or two that are compared."""
        left = self.chain("&", lambda: self.chain("+-", lambda: self.chain("*/", self.signed)))
        sign = self.cursor.here
        if sign.text not in _COMPARISONS or sign.kind != "sign":
            return left
        self.cursor.take()
        right = self.chain("&", lambda: self.chain("+-", lambda: self.chain("*/", self.signed)))
        if self.cursor.here.text in _COMPARISONS:
            raise FormulaError("a comparison has two sides: join several with and", self.cursor.here.column)
        return Call(_COMPARISONS[sign.text], (left, right), sign.column)

    def chain(self, signs: str, part: Callable[[], Node]) -> Node:
        """Parts joined by operators of one rank."""
        parts, joined, at = [part()], list[str](), 0
        while self.cursor.here.kind == "sign" and self.cursor.here.text in signs:
            sign = self.cursor.take()
            at = at or sign.column
            joined.append(sign.text)
            parts.append(part())
        return Call(signs[0], tuple(parts), at, tuple(joined)) if joined else parts[0]

    def signed(self) -> Node:
        """Perhaps with a minus before it."""
        if self.cursor.here.text != "-" or self.cursor.here.kind != "sign":
            return self.primary()
        at = self.cursor.take().column
        with self.cursor.deeper():
            return Call("minus", (self.signed(),), at)

    def primary(self) -> Node:
        """A value, a column, a function, or something in parentheses."""
        token = self.cursor.take()
        match token.kind:
            case "text":
                quote = token.text[0]
                return Constant("text", token.text[1:-1].replace(quote * 2, quote), token.column)
            case "number":
                return Constant("number", token.text, token.column)
            case "sign" if token.text == "(":
                node = self.expression()
                self.cursor.close(token)
                return node
            case "word" if self.cursor.here.text == "(" and self.cursor.here.kind == "sign":
                return self.function(token)
            case "word" if token.text.lower() in _CONSTANTS:
                value = _CONSTANTS[token.text.lower()]
                return Constant("null" if value is None else "boolean", value, token.column)
            case "word" if token.text.lower() not in (*_OPERATORS, *_HINTS):
                return Field(path_of(token.text), token.column)
            case _:
                raise _misplaced(token)

    def function(self, token: Token) -> Node:
        """A function and what it is applied to."""
        name, opened = token.text.lower(), self.cursor.take()
        if name not in FUNCTIONS:
            hint = guess(name, FUNCTIONS) or f"known are: {', '.join(FUNCTIONS)}"
            raise FormulaError(f"there is no function {token.text}: {hint}", token.column)
        parts = [] if self.cursor.here.text == ")" else [self.expression()]
        while self.cursor.skip(","):
            parts.append(self.expression())
        self.cursor.close(opened)
        least, most = FUNCTIONS[name]
        if len(parts) < least or (most is not None and len(parts) > most) or (name == "if" and len(parts) % 2 == 0):
            raise FormulaError(f"{name} takes {_SHAPES[name]}", token.column)
        return Call(name, tuple(parts), token.column)


_SHAPES: Final = {
    "abs": "a number",
    "ceiling": "a number",
    "coalesce": "values, of which it gives the first that is there",
    "concat": "values, which it joins",
    "contains": "a text, and one to look for",
    "date": "a moment",
    "day": "a date",
    "endswith": "a text, and one to look for",
    "floor": "a number",
    "if": "a condition, a value and the value otherwise: if(A > 1, 'many', 'one')",
    "isblank": "one value",
    "left": "a text and how many characters",
    "length": "a text",
    "lower": "a text",
    "mod": "two numbers",
    "month": "a date",
    "number": "a text",
    "replace": "a text, what to replace, and by what",
    "right": "a text and how many characters",
    "round": "a number, and how many digits",
    "startswith": "a text, and one to look for",
    "substring": "a text, the first character (from 1), and perhaps how many",
    "text": "one value",
    "trim": "a text",
    "upper": "a text",
    "year": "a date",
}


def _behind(token: Token) -> FormulaError:
    return _misplaced(token, behind=True)


def _misplaced(token: Token, *, behind: bool = False) -> FormulaError:
    """The error for a token that cannot stand where it does; ``behind``: where an operator could."""
    word = token.text
    if token.kind == END:
        return FormulaError("the formula ends where a value or a parenthesis is missing", token.column)
    if word.lower() in _HINTS:
        return FormulaError(f"{word} is no operator here, use {_HINTS[word.lower()]}", token.column)
    if word in ("'", '"'):
        return FormulaError("the text that begins here has no closing quote", token.column)
    if word == "[":
        return FormulaError("the name that begins here has no closing bracket", token.column)
    if behind and token.kind in ("word", "number", "text"):
        return FormulaError(f"an operator is missing before {word}: texts are joined with &", token.column)
    return FormulaError(f"{word} cannot stand here", token.column)
