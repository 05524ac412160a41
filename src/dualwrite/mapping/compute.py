"""Formulas as functions: a tree of ``formula`` is held against the columns' types, then becomes generated Python.

Nothing that a person wrote gets into the generated text; it consists of names made here.  Numbers are exact up to a
hundred digits; a quotient that never ends has fifteen, or four behind the point where these are more.

Null: ``&`` and ``concat`` take it for an empty text; ``=`` and ``!=`` compare it like any value, the other comparisons
with it are false, and so is a truth that is null; all else with a null is null.  A text of a column that declares
``empty_is_null`` is null where it is empty.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import (
    ROUND_DOWN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from typing import Any, Final, TypeAlias

from dualwrite.canonical import CastError, canonical, number, show, spelled
from dualwrite.mapping.formula import Call, Constant, Field, FormulaError, Node
from dualwrite.mapping.paths import End
from dualwrite.mapping.values import spellings
from dualwrite.model import ABSENT, Cell, Path, Value, show_path
from dualwrite.schema import Column, ColumnType, TypeName

Some: TypeAlias = Any
"""A value as the generated functions compute with it: a text, a Decimal, a bool, or None."""
LONGEST: Final = 1_000_000
"""So many characters a text that is made may have."""

_TRAPS: Final = [InvalidOperation, DivisionByZero, Overflow]
_EXACT: Final = Context(prec=100, rounding=ROUND_HALF_UP, traps=[*_TRAPS, Inexact])
_NEARLY: Final = Context(prec=5, rounding=ROUND_DOWN, traps=_TRAPS)
_ROUNDED: Final = Context(prec=100_000, rounding=ROUND_HALF_UP, traps=_TRAPS)

_KINDS: Final[Mapping[TypeName, str]] = {
    TypeName.INTEGER: "number",
    TypeName.NUMERIC: "number",
    TypeName.FLOAT: "number",
    TypeName.BOOLEAN: "boolean",
    TypeName.DATE: "date",
    TypeName.TIME: "time",
    TypeName.TIMESTAMP: "moment",
    TypeName.TIMESTAMPTZ: "instant",
}
"""The kinds of values in formulas; all other types are text."""
_TYPES: Final[Mapping[str, TypeName]] = {
    "text": TypeName.TEXT,
    "number": TypeName.NUMERIC,
    "boolean": TypeName.BOOLEAN,
    "date": TypeName.DATE,
    "time": TypeName.TIME,
    "moment": TypeName.TIMESTAMP,
    "instant": TypeName.TIMESTAMPTZ,
    "null": TypeName.TEXT,
}
_SPOKEN: Final = {
    "text": "a text",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date",
    "time": "a time of day",
    "moment": "a moment",
    "instant": "a moment with a time zone",
    "null": "null",
}
_DATED: Final = ("date", "moment", "instant")


@dataclass(frozen=True, slots=True)
class Computed:
    """A formula as a function of its columns' cells, and the column that its results are values of."""

    paths: tuple[Path, ...]
    result: Column
    function: Callable[..., Cell]


def compile_formula(node: Node, text: str, ends: Mapping[Path, End]) -> Computed:
    """The formula over these columns, by their paths as it writes them; raises FormulaError."""
    columns = [(path, end.column) for path, end in ends.items()]
    maker = _Maker(columns)
    made = maker.make(node)
    arguments = ", ".join(f"c{place}" for place in range(len(columns)))
    absent = " or ".join(f"c{place} is ABSENT" for place in range(len(columns)))
    result = maker.spelled(made)
    body = f"return ABSENT if {absent} else {result}" if columns else f"return {result}"
    source = f"def formula({arguments}):\n    {body}"
    exec(compile(source, "<formula>", "exec"), maker.namespace)
    made_function: Callable[..., Cell] = maker.namespace["formula"]
    paths = tuple(end.path for end in ends.values())
    return Computed(paths, Column(f"expr: {text}", ColumnType(_TYPES[made.kind])), made_function)


@dataclass(frozen=True, slots=True)
class _Made:
    """A part as generated text, and the kind of its values; ``column`` where it is nothing but a column."""

    text: str
    kind: str
    node: Node
    column: Column | None = None


@dataclass
class _Maker:
    """The text of one function in the making."""

    columns: Sequence[tuple[Path, Column]]
    namespace: dict[str, Any] = field(default_factory=lambda: dict(_RUNTIME))

    def name(self, item: object) -> str:
        """A name for an object in the generated text."""
        made = f"k{len(self.namespace)}"
        self.namespace[made] = item
        return made

    def make(self, node: Node) -> _Made:
        """A part of the formula."""
        match node:
            case Constant(kind, value):
                return _Made(self.name(Decimal(str(value)) if kind == "number" else value), kind, node)
            case Field():
                return self.cell(node)
            case Call("if"):
                return self.choice(node)
            case Call("and" | "or" | "not"):
                return self.logic(node)
            case Call("=" | "!=" | "<" | "<=" | ">" | ">="):
                return self.comparison(node)
            case Call():
                return self.call(node, [self.make(part) for part in node.parts])

    def cell(self, node: Field) -> _Made:
        """A column's value; null where the cell is, and where it is an empty text that means null."""
        place = next(place for place, (path, _) in enumerate(self.columns) if path == node.path)
        column, variable = self.columns[place][1], f"c{place}"
        kind = _KINDS.get(column.type.name, "text")
        if kind == "number":
            return _Made(f"_from_number({variable})", kind, node, column)
        if kind == "boolean":
            return _Made(f"_from_boolean({variable})", kind, node, column)
        if column.choices:
            names = {number: name for name, number in column.choices}
            return _Made(f"{self.name(names)}.get({variable}, {variable})", kind, node, column)
        return _Made(f"({variable} or None)" if column.empty_is_null else variable, kind, node, column)

    # -- conditions -----------------------------------------------------------------------------------------------

    def truth(self, node: Node) -> str:
        """A condition."""
        made = self.make(node)
        if made.kind != "boolean":
            message = f"a condition belongs here, and {self.said(made)} is {_SPOKEN[made.kind]}"
            raise FormulaError(message, node.at)
        return made.text

    def logic(self, node: Call) -> _Made:
        """Conditions joined; a null counts as false."""
        parts = [self.truth(part) for part in node.parts]
        if node.name == "not":
            return _Made(f"(not {parts[0]})", "boolean", node)
        joined = f" {node.name} ".join(f"({part})" for part in parts)
        return _Made(f"bool({joined})", "boolean", node)

    def choice(self, node: Call) -> _Made:
        """``if``: only the part that is chosen is computed."""
        *pairs, last = node.parts
        tests = [self.truth(part) for part in pairs[::2]]
        values = self.alike([self.make(part) for part in (*pairs[1::2], last)])
        text = values[-1].text
        for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
            text = f"({value.text} if {test} else {text})"
        return _Made(text, self.kind_of(values), node)

    def comparison(self, node: Call) -> _Made:
        """Two values of one kind."""
        left, right = self.alike([self.make(part) for part in node.parts], compared=True)
        if node.name in ("=", "!="):
            text = f"({left.text} {'==' if node.name == '=' else '!='} {right.text})"
        else:
            if "boolean" in (left.kind, right.kind):
                raise FormulaError(f"true and false have no order: {node.name} cannot compare them", node.at)
            text = f"_ordered(_{_ORDERS[node.name]}, {left.text}, {right.text})"
        return _Made(text, "boolean", node)

    def alike(self, parts: Sequence[_Made], *, compared: bool = False) -> list[_Made]:
        """The parts made to be of one kind; texts in the formula become dates where dates are meant."""
        kind = self.kind_of(parts)
        columns = [part.column for part in parts if part.column is not None]
        found = [self.literal(part, kind, columns if compared else []) for part in parts]
        for part in found:
            if part.kind not in (kind, "null"):
                first = next(each for each in found if each.kind == kind)
                what = "is compared with" if compared else "stands beside"
                message = f"{self.said(first)}, {_SPOKEN[kind]}, {what} {self.said(part)}, {_SPOKEN[part.kind]}"
                raise FormulaError(f"{message}{_hint(kind, part.kind)}", part.node.at)
        if compared and any(column.ignore_case for column in columns) and kind == "text":
            return [_Made(f"_fold({part.text})", part.kind, part.node) for part in found]
        return found

    def kind_of(self, parts: Sequence[_Made]) -> str:
        """The kind of several parts: that of the first that is neither null nor a text as written."""
        kinds = [part.kind for part in parts if part.kind != "null"]
        sure = [part.kind for part in parts if part.kind != "null" and not isinstance(part.node, Constant)]
        dated = [kind for kind in sure if kind not in ("text", "number", "boolean")]
        return (dated or sure or kinds or ["null"])[0]

    def literal(self, part: _Made, kind: str, columns: Sequence[Column]) -> _Made:
        """A value as written, in the kind that is meant, and in the spelling of a choice that it is held against."""
        node = part.node
        if not isinstance(node, Constant) or node.value is None:
            return part
        if node.kind == "text" and kind not in ("text", "number", "boolean", "null"):
            try:
                value = canonical(ColumnType(_TYPES[kind]))(str(node.value))
            except CastError as error:
                raise FormulaError(error.message, node.at) from None
            return _Made(self.name(value), kind, node)
        if node.kind == "text" and not node.value and any(column.empty_is_null for column in columns):
            return _Made("None", "null", node)
        choice = next((column for column in columns if column.choices), None)
        if choice is not None and node.kind in ("text", "number"):
            return _Made(self.name(_choice(choice, str(node.value), node.at)), "text", node)
        return part

    # -- functions ------------------------------------------------------------------------------------------------

    def call(self, node: Call, parts: list[_Made]) -> _Made:
        """A function of its parts' values."""
        name = node.name
        if name in ("&", "concat"):
            return _Made(f"_concat({', '.join(map(self.as_text, parts))})", "text", node)
        if name == "text":
            return _Made(f"_text({self.as_text(parts[0])})", "text", node)
        if name == "isblank":
            return _Made(f"({parts[0].text} in _BLANK)", "boolean", node)
        if name == "coalesce":
            found = self.alike(parts)
            return _Made(f"_coalesce({_listed(found)})", self.kind_of(found), node)
        if name in ("+", "*"):
            self.expect(parts, "number", node)
            return _Made(f"_chain({self.name(node.signs)}, {_listed(parts)})", "number", node)
        if name in ("date", "year", "month", "day"):
            self.expect(parts, "date", node)
            return _Made(f"_{name}({parts[0].text})", "date" if name == "date" else "number", node)
        takes, gives = _SIGNATURES[name]
        for part, kind in zip(parts, takes, strict=False):
            self.expect([part], kind, node)
        return _Made(f"_{name}({_listed(parts)})", gives, node)

    def expect(self, parts: Sequence[_Made], kind: str, node: Call) -> None:
        """The parts must be of this kind; null is of every kind."""
        for part in parts:
            fits = part.kind in _DATED if kind == "date" else part.kind == kind
            if not fits and part.kind != "null":
                name = "-" if node.name == "minus" else node.name
                message = f"{name} takes {_SPOKEN[kind]}, and {self.said(part)} is {_SPOKEN[part.kind]}"
                joins = "; & joins texts" if name == "+" and part.kind == "text" else ""
                raise FormulaError(f"{message}{_hint(kind, part.kind)}{joins}", part.node.at)

    def as_text(self, part: _Made) -> str:
        """The part's values as text."""
        if part.kind == "number":
            return f"_spelled({part.text})"
        return f"_said({part.text})" if part.kind == "boolean" else part.text

    def spelled(self, part: _Made) -> str:
        """The part's values in canonical text."""
        if part.kind == "number":
            return f"_spelled({part.text})"
        return f"_truth({part.text})" if part.kind == "boolean" else part.text

    def said(self, part: _Made) -> str:
        """What people see of a part."""
        match part.node:
            case Field(path):
                return show_path(path)
            case Constant(kind, value):
                return "null" if value is None else repr(value) if kind == "text" else str(value).lower()
            case Call(name):
                return f"the result of {'-' if name == 'minus' else name}"


def _listed(parts: Sequence[_Made]) -> str:
    return ", ".join(part.text for part in parts)


def _choice(column: Column, text: str, at: int) -> str:
    """The name of a choice that a formula spells."""
    for spelling in spellings(column, text):
        for name, number_ in column.choices:
            if spelling in (name, number_):
                return name
    names = ", ".join(name for name, _ in column.choices[:20])
    raise FormulaError(f"{text!r} is no choice of {column.name} ({names})", at)


def _hint(wanted: str, given: str) -> str:
    if wanted == "number" and given == "text":
        return ": write number(…), or the number without quotes"
    if wanted == "text" and given != "null":
        return ": write text(…), or the value in quotes"
    return ""


# what the generated functions call


def _failed(message: str) -> CastError:
    return CastError("not_computed", message)


def _from_number(cell: Value) -> Decimal | None:
    if cell is None or cell == "":
        return None
    value = number(cell)
    if not value.is_finite():
        raise _failed(f"{cell} is no number to compute with")
    return value


def _from_boolean(cell: Value) -> bool | None:
    return None if cell is None else cell == "t"


def _spelled(value: Decimal | None) -> Value:
    return None if value is None else spelled(value)


def _said(value: bool | None) -> Value:
    return None if value is None else "true" if value else "false"


def _truth(value: bool | None) -> Value:
    return None if value is None else "t" if value else "f"


def _concat(*parts: Value) -> str:
    found = [part for part in parts if part]
    if sum(map(len, found)) > LONGEST:
        raise _failed(f"it makes a text of more than {LONGEST} characters")
    return "".join(found)


def _fold(text: Value) -> Value:
    return None if text is None else text.casefold()


def _ordered(compare: Callable[[Any, Any], bool], left: Some, right: Some) -> bool:
    return left is not None and right is not None and compare(left, right)


def _coalesce(*values: Some) -> Some:
    return next((value for value in values if value is not None), None)


def _chain(signs: Sequence[str], first: Decimal | None, *others: Decimal | None) -> Decimal | None:
    """Numbers joined by operators of one rank, from the left."""
    if first is None or any(other is None for other in others):
        return None
    for sign, other in zip(signs, others, strict=True):
        assert other is not None
        first = _joined(sign, first, other)
    return first


def _joined(sign: str, one: Decimal, other: Decimal) -> Decimal:
    try:
        match sign:
            case "+":
                return _EXACT.add(one, other)
            case "-":
                return _EXACT.subtract(one, other)
            case "*":
                return _EXACT.multiply(one, other)
            case _:
                return _divided(one, other)
    except (DivisionByZero, InvalidOperation):
        raise _failed("it divides by zero") from None
    except DecimalException:
        raise _failed("a number gets more than a hundred digits") from None


def _divided(one: Decimal, other: Decimal) -> Decimal:
    """The quotient; one that never ends has as many digits as any system keeps of a number."""
    try:
        return _EXACT.divide(one, other)
    except Inexact:
        whole = _NEARLY.divide(one, other).adjusted() + 1
        return Context(prec=max(15, whole + 4), rounding=ROUND_HALF_UP, traps=_TRAPS).divide(one, other)


def _of_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; null of a null."""

    def wrapped(*values: Some) -> Some:
        return None if None in values else function(*values)

    return wrapped


def _count(value: Decimal, what: str) -> int:
    """A whole number that counts characters or digits."""
    if value != value.to_integral_value() or abs(value) > LONGEST:
        raise _failed(f"{spelled(value)} is no {what}")
    return int(value)


def _substring(text: str, start: Decimal, length: Decimal | None = None) -> str:
    first = _count(start, "place of a character")
    last = len(text) if length is None else first - 1 + max(0, _count(length, "number of characters"))
    return text[max(0, first - 1) : max(0, last)]


def _left(text: str, length: Decimal) -> str:
    return text[: max(0, _count(length, "number of characters"))]


def _right(text: str, length: Decimal) -> str:
    return text[max(0, len(text) - max(0, _count(length, "number of characters"))) :]


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        return text
    if len(text) + text.count(old) * (len(new) - len(old)) > LONGEST:
        raise _failed(f"it makes a text of more than {LONGEST} characters")
    return text.replace(old, new)


def _number(text: str) -> Decimal:
    try:
        value = number(text)
    except CastError as error:
        raise _failed(error.message) from None
    if not value.is_finite():
        raise _failed(f"{show(text)} is no number to compute with")
    return value


def _round(value: Decimal, digits: Decimal = Decimal(0)) -> Decimal:
    places = _count(digits, "number of digits")
    if not -100 <= places <= 100:
        raise _failed(f"{places} is no number of digits")
    if value and value.adjusted() < -places - 1:
        return Decimal(0)
    return _ROUNDED.quantize(value, Decimal(1).scaleb(-places)) + 0


def _mod(one: Decimal, other: Decimal) -> Decimal:
    try:
        return _EXACT.remainder(one, other)
    except (DivisionByZero, InvalidOperation):
        raise _failed("it divides by zero") from None
    except DecimalException:
        raise _failed("a number gets more than a hundred digits") from None


def _whole(rounding: str) -> Callable[[Decimal], Decimal]:
    return lambda value: value.to_integral_value(rounding)


def _day_of(moment: str) -> str:
    if not moment[:4].isdigit() or len(moment.partition(" ")[0]) != 10:
        raise _failed(f"{moment} is beyond the years 1 to 9999")
    return moment[:10]


def _part(first: int, last: int) -> Callable[[str], Decimal]:
    return lambda moment: Decimal(_day_of(moment)[first:last])


_ORDERS: Final = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_RUNTIME: Final[Mapping[str, object]] = {
    "ABSENT": ABSENT,
    "_BLANK": (None, ""),
    "_abs": _of_values(abs),
    "_ceiling": _of_values(_whole("ROUND_CEILING")),
    "_chain": _chain,
    "_coalesce": _coalesce,
    "_concat": _concat,
    "_contains": _of_values(operator.contains),
    "_date": _of_values(_day_of),
    "_day": _of_values(_part(8, 10)),
    "_endswith": _of_values(str.endswith),
    "_floor": _of_values(_whole("ROUND_FLOOR")),
    "_fold": _fold,
    "_from_boolean": _from_boolean,
    "_from_number": _from_number,
    "_ge": operator.ge,
    "_gt": operator.gt,
    "_le": operator.le,
    "_left": _of_values(_left),
    "_length": _of_values(lambda text: Decimal(len(text))),
    "_lower": _of_values(str.lower),
    "_lt": operator.lt,
    "_minus": _of_values(operator.neg),
    "_mod": _of_values(_mod),
    "_month": _of_values(_part(5, 7)),
    "_number": _of_values(_number),
    "_ordered": _ordered,
    "_replace": _of_values(_replace),
    "_right": _of_values(_right),
    "_round": _of_values(_round),
    "_said": _said,
    "_spelled": _spelled,
    "_startswith": _of_values(str.startswith),
    "_substring": _of_values(_substring),
    "_text": lambda value: value,
    "_trim": _of_values(str.strip),
    "_truth": _truth,
    "_upper": _of_values(str.upper),
    "_year": _of_values(_part(0, 4)),
}
_SIGNATURES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "abs": (("number",), "number"),
    "ceiling": (("number",), "number"),
    "contains": (("text", "text"), "boolean"),
    "endswith": (("text", "text"), "boolean"),
    "floor": (("number",), "number"),
    "left": (("text", "number"), "text"),
    "length": (("text",), "number"),
    "lower": (("text",), "text"),
    "minus": (("number",), "number"),
    "mod": (("number", "number"), "number"),
    "number": (("text",), "number"),
    "replace": (("text", "text", "text"), "text"),
    "right": (("text", "number"), "text"),
    "round": (("number", "number"), "number"),
    "startswith": (("text", "text"), "boolean"),
    "substring": (("text", "number", "number"), "text"),
    "trim": (("text",), "text"),
    "upper": (("text",), "text"),
}
"""What the functions take, and what they give."""
