"""OData filters: the notation in which people write conditions on both sides.

The grammar is ``odata-query``'s.  Beyond it, names that are not plain words stand in square brackets (``[Item #]``,
``]`` doubled), paths may use ``/`` or ``.``, an enumeration's literal (``…NoYes'Yes'``) is its member's name, a boolean
column may stand alone, and ``not`` governs the whole comparison behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from odata_query import ast
from odata_query.exceptions import ArgumentCountException, ODataException, TokenizingException, UnknownFunctionException
from odata_query.grammar import ODataLexer, ODataParser

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
from dualwrite.mapping.odata_text import FUNCTIONS, PATTERN
from dualwrite.mapping.tokens import DEEPEST, limit, moment, path_of
from dualwrite.mapping.tokens import NAME as _NAME  # the lexer takes other words in capitals for tokens
from dualwrite.mapping.tokens import WORD as _WORD
from dualwrite.model import Path, show_path
from dualwrite.wildcards import from_regex

Node: TypeAlias = Any
"""A node of the package's tree, and a token of its lexer: neither has a type worth the name."""
Token: TypeAlias = Any
Known: TypeAlias = Callable[[Path], bool]

__all__ = ["FilterError", "parse"]


class _Spot(str):
    """A piece of the filter that knows where it stands: the tree keeps nothing else of it."""

    column: int

    @classmethod
    def at(cls, text: str, column: int) -> _Spot:
        spot = cls(text)
        spot.column = column
        return spot


# words


_END = r"(?![\w./])"


if TYPE_CHECKING:  # what the package's metaclass makes of the class below is beyond type checkers
    _Lexer = ODataLexer
else:

    class _Lexer(ODataLexer):
        """The package's tokens, but names may begin with ``any``, ``all``, ``null``, ``true`` and ``false``."""

        tokens = ODataLexer.tokens
        ANY = ALL = r"(?!)"  # never: collections are not for filters
        STRING = rf"(?:{_WORD}(?:\.{_WORD})*)?'(?:[^']|'')*'"
        BOOLEAN = rf"(?:true|false){_END}"
        NULL = rf"null{_END}"
        NOT = r"not(?=[\s(\[])\s*"
        AND = r"\s*\band(?=[\s(\[])\s*"
        OR = r"\s*\bor(?=[\s(\[])\s*"
        ODATA_IDENTIFIER = rf"{_NAME}(?:\.{_NAME})*"


_ORDER: Final = {
    ast.Eq: ("eq", "eq"),
    ast.NotEq: ("ne", "ne"),
    ast.Gt: ("gt", "lt"),
    ast.GtE: ("ge", "le"),
    ast.Lt: ("lt", "gt"),
    ast.LtE: ("le", "ge"),
}
"""The operators, and what each is when its sides change places."""
_WORDS: Final = ("eq", "ne", "gt", "ge", "lt", "le", "in", "and", "or")
_SYMBOLS: Final = {
    "=": "eq",
    "==": "eq",
    "!=": "ne",
    "<>": "ne",
    ">": "gt",
    ">=": "ge",
    "<": "lt",
    "<=": "le",
    "&&": "and",
    "||": "or",
    "!": "not",
}
_OPERANDS: Final = frozenset(
    {"ODATA_IDENTIFIER", "STRING", "INTEGER", "DECIMAL", "BOOLEAN", "NULL", "GUID", "DATE", "TIME", "DATETIME", ")"}
)


def _lexed(text: str) -> list[Token]:
    """The filter's tokens, each value knowing its place."""
    tokens: list[Token] = []
    try:
        tokens.extend(_Lexer().tokenize(text))
    except TokenizingException as error:
        raise _unreadable(text, error.token.index) from None
    ends = [token.index for token in tokens[1:]] + [len(text)]
    for token, end in zip(tokens, ends, strict=True):
        token.value = _valued(token, text[token.index : end])
    return tokens[tokens[0].type == "WS" : len(tokens) - (tokens[-1].type == "WS")]


def _valued(token: Token, raw: str) -> Node:
    column = token.index + 1
    match token.type:
        case "ODATA_IDENTIFIER":
            return ast.Identifier(_Spot.at(raw, column))
        case "STRING":
            return ast.String(_Spot.at(raw[raw.index("'") + 1 : -1].replace("''", "'"), column))
        case "INTEGER" | "DECIMAL":
            return ast.Integer(_Spot.at(raw, column))
        case "BOOLEAN":
            return ast.Boolean(_Spot.at(raw[0].lower(), column))
        case "DATE" | "TIME" | "GUID":
            return ast.String(_Spot.at(raw, column))
        case "DATETIME":
            return ast.String(_Spot.at(moment(raw, column), column))
        case _:
            return token.value


def _listed(tokens: list[Token]) -> Iterator[Token]:
    """The tokens with a comma behind the only member of a list, where the package's grammar wants one."""
    inside = single = False
    last = None
    for token in tokens:
        if last is not None and last.type == "IN" and token.type == "(":
            inside = single = True
        elif inside and token.type == ",":
            single = False
        elif inside and token.type == ")":
            if single and last is not None and last.type != "(":
                yield _comma(token)
            inside = False
        yield token
        last = token


def _comma(token: Token) -> Token:
    comma = type(token)()
    comma.type = comma.value = ","
    comma.lineno, comma.index = token.lineno, token.index
    return comma


# what is wrong


def _unreadable(text: str, index: int) -> FilterError:
    """The error for a place where no token begins."""
    match text[index]:
        case "'":
            return FilterError("the text that begins here has no closing quote", index + 1)
        case '"':
            return FilterError("text stands in single quotes", index + 1)
        case "[":
            return FilterError("the name that begins here has no closing bracket", index + 1)
        case _:
            return _misplaced(text, index, False)


def _misplaced(text: str, index: int, operand: bool) -> FilterError:
    """The error for a piece that cannot stand where it does; ``operand``: behind a column or value."""
    rest = text[index:].lstrip()
    column = len(text) - len(rest) + 1
    match = re.match(r"[=!<>&|]+|[\w.]+|.", rest, re.DOTALL)
    word = match[0] if match else ""
    if word in _SYMBOLS:
        return FilterError(f"{word} is no operator here, use {_SYMBOLS[word]}", column)
    if word.lower() in _WORDS:
        missing = "value" if operand else "column"
        return FilterError(f"{word} has no {missing} {'behind' if operand else 'before'} it", column)
    if operand and re.match(r"\w", word):
        return FilterError(f"{word} is no operator: there are {', '.join(_WORDS)}", column)
    return FilterError(f"{word} cannot stand here", column)


def _unbalanced(tokens: Iterable[Token]) -> FilterError | None:
    """What is wrong with the nesting, if anything; ``not`` goes one level deeper, and so does a step of a path."""
    opened: list[tuple[int, int]] = []
    depth = nots = steps = 0
    for token in tokens:
        steps = steps + 1 if token.type == "/" else steps if token.type == "ODATA_IDENTIFIER" else 0
        match token.type:
            case "WS":
                continue
            case "NOT":
                nots += 1
            case "(":
                opened.append((token.index + 1, nots + 1))
                depth, nots = depth + nots + 1, 0
            case ")":
                if not opened:
                    return FilterError("this parenthesis closes none", token.index + 1)
                depth, nots = depth - opened.pop()[1], 0
            case _:
                nots = 0
        if depth + nots > DEEPEST or steps > DEEPEST:
            return FilterError(f"the filter is nested deeper than {DEEPEST} levels", token.index + 1)
    return FilterError("this parenthesis is never closed", opened[-1][0]) if opened else None


def _explained(text: str, tokens: list[Token], error: ODataException) -> FilterError:
    if isinstance(error, (UnknownFunctionException, ArgumentCountException)):
        named = (token.value.name for token in tokens if token.type == "ODATA_IDENTIFIER")
        spot = next((name for name in named if name == error.function_name), error.function_name)
        if spot in (*FUNCTIONS, PATTERN):
            return FilterError(f"{spot} takes a column and a text", getattr(spot, "column", 0))
        return _no_function(spot)
    failed = getattr(error, "token", None)
    if failed is None:
        return FilterError("the filter ends where a column, a value or a parenthesis is missing", len(text) + 1)
    before = [token for token in tokens if token.index < failed.index and token.type != "WS"]
    if before and before[-1].type == "ODATA_IDENTIFIER" and before[-1].value.name.lower() in _WORDS:
        return _misplaced(text, before[-1].index, False)
    return _misplaced(text, failed.index, bool(before) and before[-1].type in _OPERANDS)


def _no_function(name: str) -> FilterError:
    known = ", ".join((*FUNCTIONS, PATTERN))
    return FilterError(f"the function {name} is not supported: there are {known}", getattr(name, "column", 0))


# reading


def parse(text: str, *, known: Known | None = None) -> Expression:
    """The expression that a filter spells; raises FilterError, also for a path that is not ``known``."""
    if not text.strip():
        raise FilterError("the filter is empty")
    limit(text, "the filter", FilterError)
    tokens = _lexed(text)
    if (unbalanced := _unbalanced(tokens)) is not None:
        raise unbalanced
    try:
        node = ODataParser().parse(_listed(tokens))
    except ODataException as error:
        raise _explained(text, tokens, error) from None
    return _condition(node, known or _anything)


def _anything(_path: Path) -> bool:
    return True


def _condition(node: Node, known: Known) -> Expression:
    match node:
        case ast.BoolOp(op=ast.And()):
            return And(tuple(_condition(part, known) for part in _chained(node, ast.And)))
        case ast.BoolOp():
            return Or(tuple(_condition(part, known) for part in _chained(node, ast.Or)))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_condition(operand, known))
        case ast.Compare(comparator=comparator, left=ast.UnaryOp(op=ast.Not(), operand=left), right=right):
            return Not(_condition(ast.Compare(comparator, left, right), known))
        case ast.Compare(comparator=ast.In(), left=left, right=ast.List(val=members)):
            return OneOf(_column(left, known), tuple(_literal(member) for member in members))
        case ast.Compare(comparator=comparator, left=left, right=right):
            return _comparison(*_ORDER[type(comparator)], left, right, known)
        case ast.Call(func=ast.Identifier(name=name), args=arguments):
            return _call(name, arguments, known)
        case ast.Boolean(val=value):
            return ALWAYS if value == "t" else NEVER
        case ast.Identifier() | ast.Attribute():
            return Compare("eq", _column(node, known), Literal("t"))
        case _:
            raise FilterError(f"{_named(node)} is no condition", _place(node))


def _chained(node: Node, kind: type) -> list[Node]:
    """The parts of a chain, however it is nested; it may be longer than calls can be deep."""
    parts: list[Node] = []
    open_ = [node]
    while open_:
        node = open_.pop()
        if isinstance(node, ast.BoolOp) and isinstance(node.op, kind):
            open_ += [node.right, node.left]
        else:
            parts.append(node)
    return parts


def _comparison(operator: str, turned: str, left: Node, right: Node, known: Known) -> Compare:
    for side in (left, right):
        if not (_is_column(side) or _is_literal(side)):
            raise FilterError(f"{_named(side)} stands where a column or a value belongs", _place(side) or _place(left))
    if _is_literal(left) and _is_literal(right):
        raise FilterError("both sides are values, one must be a column", _place(left) or _place(right))
    if _is_literal(left):
        left, right, operator = right, left, turned
    column = _column(left, known)
    if _is_column(right):
        hint = f"text stands in single quotes: '{show_path(_path(right))}'"
        raise FilterError(f"a column is compared with a value, not with another column; {hint}", _place(right))
    return Compare(operator, column, _literal(right))


def _call(name: str, arguments: list[Node], known: Known) -> Compare:
    if name not in (*FUNCTIONS, PATTERN):
        raise _no_function(name)
    column, literal = arguments
    if not _is_column(column) or not _is_literal(literal):
        raise FilterError(f"{name} takes a column first and a value second", getattr(name, "column", 0))
    if name == PATTERN and not isinstance(literal, ast.Null):
        return matching(_column(column, known), _pattern(literal))
    if name == PATTERN:
        return Compare("like", _column(column, known), Literal(None))
    return Compare(str(name), _column(column, known), _literal(literal))


def _pattern(node: Node) -> str:
    pattern = from_regex(_literal(node).value or "")
    if pattern is None:
        raise FilterError(f"{PATTERN} knows ^ $ . and .* alone, and a backslash before other signs", _place(node))
    return pattern


def _is_column(node: Node) -> bool:
    return isinstance(node, (ast.Identifier, ast.Attribute))


def _is_literal(node: Node) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Integer)
    return isinstance(node, (ast.String, ast.Integer, ast.Boolean, ast.Null))


def _literal(node: Node) -> Literal:
    if not _is_literal(node):
        raise FilterError(f"{_named(node)} stands where a value belongs", _place(node))
    if isinstance(node, ast.Null):
        return Literal(None)
    if isinstance(node, ast.UnaryOp):
        operand: Node = node.operand
        return Literal(f"-{operand.val}")
    return Literal(str(node.val))


def _pieces(node: Node) -> list[str]:
    """The names of a path as written, from the outermost."""
    found: list[str] = []
    while isinstance(node, ast.Attribute):
        found.append(node.attr)
        node = node.owner
    return [node.name, *reversed(found)]


def _path(node: Node) -> Path:
    return tuple(step for piece in _pieces(node) for step in path_of(piece))


def _column(node: Node, known: Known) -> Column:
    if not _is_column(node):
        raise FilterError(f"{_named(node)} stands where a column belongs", _place(node))
    path = _path(node)
    if not known(path):
        raise FilterError(f"there is no column {show_path(path)}", _place(node))
    return Column(path)


def _place(node: Node) -> int:
    """Where a node begins, 0 where the tree does not say."""
    while True:
        match node:
            case ast.Identifier(name=spot) | ast.String(val=spot) | ast.Integer(val=spot) | ast.Boolean(val=spot):
                return getattr(spot, "column", 0)
            case ast.Attribute(owner=inner) | ast.UnaryOp(operand=inner) | ast.Call(func=inner):
                node = inner
            case ast.Compare(left=inner) | ast.BinOp(left=inner) | ast.BoolOp(left=inner):
                node = inner
            case _:
                return 0


def _named(node: Node) -> str:
    match node:
        case ast.String() | ast.Integer() | ast.Boolean() | ast.Null():
            return "a value"
        case ast.BinOp() | ast.UnaryOp(op=ast.USub()):
            return "arithmetic, which filters do not have,"
        case ast.Call(func=func):
            return f"the function {func.name}"
        case ast.List():
            return "a list"
        case ast.Duration():
            return "a duration"
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp():
            return "a condition"
        case _:
            return "this"
