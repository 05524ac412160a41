"""The column lines of a map file, read: two paths, a symbol between them, and what happens to values on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dualwrite.document import (
    Entries,
    Findings,
    Items,
    Node,
    Text,
    entries,
    flag,
    list_of,
    one_of,
    plain,
    text_of,
)
from dualwrite.mapping.formula import FormulaError
from dualwrite.mapping.formula import parse as parse_formula
from dualwrite.mapping.tablemap import (
    POLICIES,
    Case,
    ColumnMapping,
    Default,
    Direction,
    Formula,
    Round,
    Transform,
    Trim,
    Truncate,
    ValueMap,
)
from dualwrite.model import Path, Value, read_path, targets_of

NO_COLUMN: Final = "none"
SYMBOLS: Final[Mapping[str, tuple[Direction, bool]]] = {
    "=": (Direction.BOTH, False),
    ">": (Direction.TO_RIGHT, False),
    "<": (Direction.TO_LEFT, False),
    "><": (Direction.BOTH, True),
    ">>": (Direction.TO_RIGHT, True),
    "<<": (Direction.TO_LEFT, True),
}
"""The symbols of a column line: which way, and whether a value map or default stands behind it."""

_SLIPS = {"<>": "><", "==": "=", "<->": "=", "<=>": "=", "->": ">", "=>": ">", "<-": "<", "<=": "<", "→": ">", "←": "<"}
_OPTIONS = ("expr", "values", "reverse", "else", "default", "upper", "lower", "trim", "truncate", "round", "conflict")
_BESIDE_VALUES = ("else", "reverse")
_LONG = ("left", "direction", "right")
_WORD = re.compile(r"\w[\w$-]*")
_SYMBOL_LIKE = re.compile(r"[=<>→←-]+")
_LONG_FORM = "use the long form {left: …, direction: both|right|left, right: …}"


def columns_of(node: Node, what: str, findings: Findings) -> tuple[ColumnMapping, ...]:
    """The column mappings of a map, of the lines that can be read."""
    return list_of(node, what, lambda item, _, found: _column(item, found), findings)


def _column(node: Node, findings: Findings) -> ColumnMapping | None:
    if isinstance(node, Text):
        return _short(node, None, findings)
    if isinstance(node, Entries) and any(key.value in _LONG for key, _ in node.pairs):
        return _long(node, findings)
    if isinstance(node, Entries) and len(node.pairs) == 1:
        return _short(node.pairs[0][0], node.pairs[0][1], findings)
    if isinstance(node, Entries) and any(key.value in _OPTIONS for key, _ in node.pairs):
        remedy = "indent the options deeper than the line, or write them as {…} behind its colon"
        findings.add("bad_line", node.line, "options stand beside their column line", remedy)
    else:
        findings.add("bad_line", node.line, "this is not a column line", "write it as LEFT = right")
    return None


def _short(line: Text, options: Node | None, findings: Findings) -> ColumnMapping | None:
    ends = split_line(line, findings)
    noted = len(findings.problems)
    transforms, conflict, extra = _transforms(options, findings)
    if ends is None:
        return None
    left, symbol, right = ends
    direction, doubled = SYMBOLS[symbol]
    converting = is_converting(transforms)
    if converting and not doubled:
        right_one = next(sign for sign, meaning in SYMBOLS.items() if meaning == (direction, True))
        message = f"{symbol} carries values as they are, but this line changes them"
        findings.add("bad_symbol", line.line, message, f"write {right_one}")
    elif doubled and not transforms and noted == len(findings.problems):
        right_one = next(sign for sign, meaning in SYMBOLS.items() if meaning == (direction, False))
        message = f"{symbol} announces a transform, but none is given"
        findings.add("bad_symbol", line.line, message, f"write {right_one}, or add values:, default: or another")
    mapping = ColumnMapping(left or None, direction, right or None, transforms, conflict, line.line, extra)
    return _checked(mapping, findings)


def is_converting(transforms: tuple[Transform, ...]) -> bool:
    """Do the transforms make other values, so that the line's symbol says so?"""
    return any(not isinstance(transform, Truncate | Round) for transform in transforms)


def split_line(line: Text, findings: Findings) -> tuple[Path, str, Path] | None:
    """The three words of ``LEFT = right``, checked; ``none`` becomes the empty path."""
    words = (line.value or "").split()
    if len(words) != 3 or not _SYMBOL_LIKE.fullmatch(words[1]):
        spaced = any(word in SYMBOLS for word in words) and len(words) > 3
        remedy = (
            f"for names with blanks {_LONG_FORM}" if spaced else "write LEFT = right, with blanks around the symbol"
        )
        findings.add("bad_line", line.line, f"{line.value or ''!r} is not LEFT SYMBOL RIGHT", remedy)
        return None
    left, right = (_plain_path(word, line.line, findings) for word in words[::2])
    if words[1] not in SYMBOLS:
        slip = _SLIPS.get(words[1])
        remedy = f"did you mean {slip}?" if slip else f"known are: {' '.join(SYMBOLS)}"
        findings.add("bad_symbol", line.line, f"{words[1]} is not a symbol", remedy)
        return None
    return None if left is None or right is None else (left, words[1], right)


def _plain_path(word: str, line: int, findings: Findings) -> Path | None:
    if word == NO_COLUMN:
        return ()
    steps = read_path(word)
    if is_made_of_words(steps):
        return steps
    findings.add("bad_path", line, f"{word!r} is not made of plain names", f"for names with other signs {_LONG_FORM}")
    return None


def is_made_of_words(path: Path) -> bool:
    """Can the path stand in a column line, all its names being plain words?"""
    targets = targets_of(path)
    plain = path[:-1] if targets else path
    return all(map(_WORD.fullmatch, plain)) and all(
        _WORD.fullmatch(word) and is_made_of_words(inner) for word, inner in targets
    )


def _long(node: Entries, findings: Findings) -> ColumnMapping | None:
    found = entries(node, "a column line", (*_LONG, *_OPTIONS, "transforms", *own_words(node)), findings)
    for name in _LONG:
        if name not in found:
            remedy = f"add {name}: none where there is no column" if name != "direction" else "add direction: both"
            findings.add("missing_key", node.line, f"the long form needs {name}:", remedy)
    left, right = (_end(found[name][1], name, findings) if name in found else None for name in ("left", "right"))
    words = tuple(direction.value for direction in Direction)
    direction = one_of(found["direction"][1], "direction", words, findings) if "direction" in found else None
    taken = (*_LONG, "transforms")
    inline = Entries(tuple((key, value) for name, (key, value) in found.items() if name not in taken), node.line)
    steps = found["transforms"][1] if "transforms" in found else None
    first, conflict, extra = _transforms(inline, findings)
    others, other_conflict, other_extra = _transforms(steps, findings)
    if left is None or right is None or direction is None:
        return None
    transforms, policy = first + others, conflict or other_conflict
    kept = {**other_extra, **extra}
    mapping = ColumnMapping(left or None, Direction(direction), right or None, transforms, policy, node.line, kept)
    return _checked(mapping, findings)


def _end(node: Node, what: str, findings: Findings) -> Path | None:
    return (
        () if isinstance(node, Text) and node.value == NO_COLUMN and not node.quoted else path_of(node, what, findings)
    )


def _checked(mapping: ColumnMapping, findings: Findings) -> ColumnMapping:
    """Note what makes no sense beside ``none``, in a line that is well otherwise."""
    if any(problem.line == mapping.line for problem in findings.problems):
        return mapping
    if mapping.left is None and mapping.right is None:
        remedy = "name the column that receives the constant"
        findings.add("bad_line", mapping.line, "there is no column on either side", remedy)
    elif mapping.left is None or mapping.right is None:
        receives, symbol = (Direction.TO_RIGHT, ">>") if mapping.left is None else (Direction.TO_LEFT, "<<")
        if mapping.direction is not receives:
            message = "none can neither give nor receive values"
            findings.add("bad_symbol", mapping.line, message, f"a constant is written with {symbol} and a default")
        elif not any(isinstance(transform, Default | Formula) for transform in mapping.transforms):
            findings.add("bad_line", mapping.line, "a constant needs its value", "add {default: VALUE}, or {expr: …}")
    formulas = sum(isinstance(transform, Formula) for transform in mapping.transforms)
    if formulas and mapping.left is not None and mapping.right is not None:
        remedy = "write none for the column that it is computed from, as in none >> NAME: {expr: …}"
        findings.add("bad_line", mapping.line, "an expr: names its columns itself", remedy)
    elif formulas > 1:
        findings.add("bad_line", mapping.line, "a column is computed by one expr:", "put both into one")
    return mapping


# ------------------------------------------------------------------------------------------------- transforms


def _transforms(
    node: Node | None, findings: Findings
) -> tuple[tuple[Transform, ...], str | None, Mapping[str, object]]:
    """Transforms in order, and among them the conflict policy and what is kept.

    A list of mappings stands where one transform comes twice.
    """
    transforms: list[Transform] = []
    conflict: str | None = None
    extra: dict[str, object] = {}
    steps = node.nodes if isinstance(node, Items) else (node,) if node is not None else ()
    for step in steps:
        own = own_words(step)
        options = entries(step, "a column line", (*_OPTIONS, *own), findings)
        for name, (key, value) in options.items():
            if name == "conflict":
                conflict = policy_of(value, name, findings)
            elif name in own:
                extra[name] = plain(value, findings)
            elif name in _BESIDE_VALUES and "values" not in options:
                findings.add("bad_line", key.line, f"{name}: belongs to a value map", "add values: {LEFT: RIGHT}")
            elif name not in _BESIDE_VALUES and (transform := _transform(name, value, options, findings)) is not None:
                transforms.append(transform)
    return tuple(transforms), conflict, extra


def _transform(name: str, node: Node, options: Mapping[str, tuple[Text, Node]], findings: Findings) -> Transform | None:
    match name:
        case "default":
            constant = _scalar(node, name, findings)
            return Default(constant.value) if constant else None
        case "values":
            otherwise = _otherwise(options["else"][1], findings) if "else" in options else None
            reverse = _pairs(options["reverse"][1], findings, "reverse") if "reverse" in options else None
            return ValueMap(_pairs(node, findings), otherwise, reverse)
        case "expr":
            return _formula(node, findings)
        case _:
            return _FLAGS[name] if flag(node, name, findings) else None


_FLAGS: Final[Mapping[str, Transform]] = {
    "upper": Case("upper"),
    "lower": Case("lower"),
    "trim": Trim(),
    "truncate": Truncate(),
    "round": Round(),
}


def _formula(node: Node, findings: Findings) -> Formula | None:
    text = text_of(node, "expr", findings)
    if text is None:
        return None
    try:
        parse_formula(text)
    except FormulaError as error:
        remedy = "an expr looks like: FIRST & ' ' & LAST, or if(QTY = 0, 0, AMOUNT / QTY)"
        findings.add("bad_expr", node.line, f"expr: {error}", remedy)
        return None
    return Formula(text)


def _scalar(node: Node, what: str, findings: Findings) -> Text | None:
    if isinstance(node, Text):
        return node
    findings.add(
        "bad_entry", node.line, f"{what} must be one value or null", "write the value itself; quote {, [ and #"
    )
    return None


def _pairs(node: Node, findings: Findings, what: str = "values") -> tuple[tuple[Value, Value], ...]:
    """``{left: right}``, or a list of ``[left, right]`` where a left value comes twice."""
    if isinstance(node, Entries):
        found = [(key, _scalar(value, f"a value in {what}", findings)) for key, value in node.pairs]
        return tuple((left.value, right.value) for left, right in found if right is not None)
    if isinstance(node, Items):
        return list_of(node, what, _pair, findings)
    shape = "{LEFT: RIGHT, …}" if what == "values" else "{RIGHT: LEFT, …}"
    findings.add("bad_entry", node.line, f"{what} must be a mapping", f"write {shape}")
    return ()


def _pair(node: Node, what: str, findings: Findings) -> tuple[Value, Value] | None:
    if isinstance(node, Items) and len(node.nodes) == 2:
        left, right = (_scalar(item, "a value in values", findings) for item in node.nodes)
        return (left.value, right.value) if left and right else None
    findings.add("bad_entry", node.line, f"{what} must be pairs", "write {LEFT: RIGHT, …} or [[LEFT, RIGHT], …]")
    return None


def _otherwise(node: Node, findings: Findings) -> str | None:
    text = _scalar(node, "else", findings)
    if text is None:
        return None
    if text.value is None:
        findings.add("bad_entry", node.line, "else cannot be null", "write park, keep or a value")
        return None
    return text.value if text.value in ("park", "keep") and not text.quoted else f"={text.value}"


def own_words(node: Node) -> list[str]:
    """The entries of a mapping that are the writer's own: ``x-…``."""
    pairs = node.pairs if isinstance(node, Entries) else ()
    return [key.value for key, _ in pairs if key.value and key.value.startswith("x-")]


def path_of(node: Node, what: str, findings: Findings) -> Path | None:
    """A path: a text with dots, or a list of its steps where names hold dots."""
    if isinstance(node, Items):
        return list_of(node, what, text_of, findings) or None
    text = text_of(node, what, findings)
    if text is None:
        return None
    steps = read_path(text)
    if not all(step.strip() for step in steps):
        findings.add(
            "bad_path", node.line, f"{what}: {text!r} has an empty step", f"for a dot in a name write [{text}]"
        )
        return None
    return steps


def policy_of(node: Node, what: str, findings: Findings) -> str | None:
    """A policy for conflicts."""
    return one_of(node, what, POLICIES, findings)
