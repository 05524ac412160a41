"""The functions of a compiled map, generated as source text: straight code over the cells of a tuple.

Nothing that a person wrote gets into the text; it consists of numbers and of names made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dualwrite.casts import CastError, identity
from dualwrite.errors import RowProblem
from dualwrite.mapping.cells import Carrier
from dualwrite.mapping.values import REMEDIES
from dualwrite.model import ABSENT, Cell, Key, Path, Row, Side, Value, show_path

Common = Callable[[Value], Value]
SHOWN = 60
"""So many characters of a value stand in a message."""


@dataclass(frozen=True, slots=True)
class Line:
    """A column mapping between two views: its unit, its cell on each side, how it is carried and compared.

    ``carriers`` hold the directions in which the map carries it, ``could`` those in which it can be (of key columns
    both).  ``inputs`` are the cells that its carriers read: its own one, none for a constant, several for a
    ``formula``, of which ``names`` are the paths.
    """

    unit: str
    indexes: Mapping[Side, int]
    paths: Mapping[Side, Path]
    carriers: Mapping[Side, Carrier]
    could: Mapping[Side, Carrier]
    common: Mapping[Side, Common]
    inputs: Mapping[Side, tuple[int, ...]]
    formula: str = ""
    names: tuple[Path, ...] = ()

    @property
    def meeting(self) -> Side:
        """The side in whose form the key compares: that into which it is carried."""
        return Side.RIGHT if Side.LEFT in self.carriers or Side.RIGHT not in self.carriers else Side.LEFT


class Text:
    """A function's source text in the making, with the objects that it names."""

    def __init__(self) -> None:
        self.namespace: dict[str, object] = {"ABSENT": ABSENT, "CastError": CastError}
        self._number = 0

    def cell(self, carrier: Carrier, variable: str) -> str:
        """The expression of a carried cell."""
        self._number += 1
        return carrier.over(variable, self._number, self.namespace)

    def common(self, form: Common, expression: str) -> str:
        """The expression in common form; empty is null."""
        if form is identity:
            return f"({expression} or None)"
        self._number += 1
        self.namespace[f"k{self._number}"] = form
        return f"(x if (x := {expression}) is ABSENT else k{self._number}(x) or None)"

    def function(self, parameters: str, body: Sequence[str]) -> Callable[..., Any]:
        """The function with this body."""
        source = "\n    ".join([f"def generated({parameters}):", *body])
        exec(compile(source, "<table map>", "exec"), self.namespace)
        made: Callable[..., Any] = self.namespace["generated"]  # type: ignore[assignment]
        return made


def _names(prefix: str, used: set[int], width: int) -> str:
    return ", ".join(f"{prefix}{index}" if index in used else "_" for index in range(width))


def _unpack(row: str, prefix: str, used: set[int], width: int) -> str:
    """The statement that gets the used cells of a row into variables."""
    if len(used) * 2 < width:
        return "; ".join(f"{prefix}{index} = {row}[{index}]" for index in sorted(used)) or "pass"
    return f"({_names(prefix, used, width)},) = {row}"


def _each(prefix: str, used: set[int], width: int) -> str:
    """The loop over rows that gets the used cells of each into variables."""
    return f"for ({_names(prefix, used, width)},) in rows"


def _tuple(cells: Sequence[str]) -> str:
    return f"({', '.join(cells)}{',' if len(cells) == 1 else ''})"


def _given(line: Line, source: Side, prefix: str) -> str:
    """What a carrier is applied to."""
    return ", ".join(f"{prefix}{index}" for index in line.inputs.get(source, ()))


@lru_cache(maxsize=4096)
def cell_function(carrier: Carrier, width: int = 1) -> Callable[..., Cell]:
    """One cell, carried by itself; ``width`` is how many cells it is made of.

    Kept, because it is made anew for each record that cannot be carried otherwise.
    """
    text = Text()
    given = ", ".join(f"v{number}" for number in range(width))
    return text.function(given, [f"return {text.cell(carrier, given)}"])


@dataclass(frozen=True, slots=True)
class Made:
    """A generated function over a row, and the same over many rows at once."""

    one: Callable[[Row], Row]
    many: Callable[[Sequence[Row]], list[Row]]


def _made(text: Text, cells: Sequence[str], used: set[int], width: int) -> Made:
    made = _tuple(cells)
    one = text.function("row", [_unpack("row", "v", used, width), f"return {made}"])
    many = text.function("rows", [f"return [{made} {_each('v', used, width)}]"])
    return Made(one, many)


def row_function(lines: Sequence[Line], source: Side, width: int, target_width: int) -> Made:
    """The function from a source row to a row of the other side's view.  Raises CastError."""
    text = Text()
    cells = ["ABSENT"] * target_width
    used = set()
    for line in lines:
        if source in line.carriers:
            cells[line.indexes[source.other]] = text.cell(line.carriers[source], _given(line, source, "v"))
            used |= set(line.inputs.get(source, ()))
    return _made(text, cells, used, width)


def target_key_function(key: Sequence[Line], source: Side, width: int) -> Callable[[Row], Row]:
    """The function from a source row to the other side's key, in that side's natural form.  Raises CastError."""
    text = Text()
    cells = [text.cell(line.could[source], _given(line, source, "v")) for line in key]
    used = {line.indexes[source] for line in key}
    return text.function("row", [_unpack("row", "v", used, width), f"return {_tuple(cells)}"])


def key_function(key: Sequence[Line], side: Side, width: int) -> Made:
    """The function from a row to its key in common form, which both sides share.  Raises CastError."""
    text = Text()
    cells = []
    for line in key:
        own = f"v{line.indexes[side]}"
        at_meeting = own if line.meeting is side else text.cell(line.could[side], own)
        cells.append(text.common(line.common[line.meeting], at_meeting))
    return _made(text, cells, {line.indexes[side] for line in key}, width)


@dataclass(frozen=True, slots=True)
class Alike:
    """Does a left row surely agree with a right one?  False may also mean: look closer.  Both raise CastError."""

    one: Callable[[Row, Row], bool]
    many: Callable[[Sequence[Row], Sequence[Row]], list[bool]]


def alike_function(lines: Sequence[Line], widths: Mapping[Side, int]) -> Alike:
    """The comparison of two rows, and the same of many pairs at once."""
    text = Text()
    tests = []
    used: dict[Side, set[int]] = {Side.LEFT: set(), Side.RIGHT: set()}
    prefixes = {Side.LEFT: "l", Side.RIGHT: "r"}
    for line in lines:
        source = Side.LEFT if Side.LEFT in line.carriers else Side.RIGHT
        cell = text.cell(line.carriers[source], _given(line, source, prefixes[source]))
        tests.append(f"{cell} == {prefixes[source.other]}{line.indexes[source.other]}")
        used[source].update(line.inputs.get(source, ()))
        used[source.other].add(line.indexes[source.other])
    test = " and ".join(tests) or "True"
    unpacked = [_unpack(str(side), prefixes[side], used[side], widths[side]) for side in Side]
    one = text.function("left, right", [*unpacked, f"return {test}"])
    names = ", ".join(f"({_names(prefixes[side], used[side], widths[side])},)" for side in Side)
    many = text.function("lefts, rights", [f"return [{test} for {names} in zip(lefts, rights)]"])
    return Alike(one, many)


def problem(line: Line, source: Side, values: Sequence[Cell], error: CastError) -> RowProblem:
    """What is said about a cell that cannot be carried, or cannot be computed."""
    target = show_path(line.paths[source.other])
    shown = [_shown(value) for value in values]
    if line.formula:
        column, cells = target, (f"{show_path(path)} = {value}" for path, value in zip(line.names, shown, strict=True))
        given = f"expr: {line.formula}, with {', '.join(cells)}," if shown else f"expr: {line.formula}"
    else:
        column = show_path(line.paths[source]) if source in line.paths else "none"
        given = f"{column} = {shown[0] if shown else 'nothing'}"
    message = f"{source} {given} cannot become {source.other} {target}: {error.message}"
    return RowProblem(error.code, column, message, REMEDIES.get(error.code, ""))


def _shown(value: Cell) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}…"
    return "nothing"


def find_problem(lines: Sequence[Line], source: Side, row: Row, error: CastError, *, keys: bool = False) -> RowProblem:
    """Which cell of a row it was that raised."""
    for line in lines:
        carrier = (line.could if keys else line.carriers).get(source)
        if carrier is None:
            continue
        values = [row[index] for index in line.inputs.get(source, ())]
        try:
            cell_function(carrier, len(values))(*values)
        except CastError as found:
            return problem(line, source, values, found)
    return RowProblem(error.code, "", error.message)


def settled_key(cells: Row, key: Sequence[Line], side: Side) -> Key:
    """A key without ABSENT; raises RowProblem for one that says nothing."""
    if any(cells) and ABSENT not in cells:
        return cells  # type: ignore[return-value]  # narrowed by the test
    known: list[Value] = []
    for cell, line in zip(cells, key, strict=True):
        if cell is ABSENT:
            column = show_path(line.paths[side])
            message = f"the key column {side} {column} refers to a record that cannot be found"
            remedy = "it goes through once that record is there"
            raise RowProblem("unresolved_key", column, message, remedy)
        known.append(cell)
    if not any(known):
        columns = ", ".join(show_path(line.paths[side]) for line in key)
        message = f"every key column ({side} {columns}) is empty"
        raise RowProblem("empty_key", columns, message, "give the record a key")
    return tuple(known)
