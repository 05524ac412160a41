"""The notation of map files: YAML to a ``TableMap``, and back.

Reading never stops at the first mistake: ``Invalid`` carries them all, each with its line and a remedy.  Writing is the
inverse of reading: ``read_map(write_map(m))`` is ``m``, apart from lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Final, TypeAlias, TypeVar

from dualwrite.document import (
    Entries,
    Findings,
    Items,
    Node,
    Quoted,
    Text,
    Verbatim,
    block,
    entries,
    flag,
    flow,
    list_of,
    one_of,
    plain,
    quote,
    read,
    swallowed,
    text_of,
)
from dualwrite.errors import Invalid
from dualwrite.expression import Expression, FilterError
from dualwrite.mapping import xpp
from dualwrite.mapping.formula import FormulaError
from dualwrite.mapping.formula import parse as parse_formula
from dualwrite.mapping.odata import parse, print_odata
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
    Transform,
    Trim,
    Truncate,
    Unread,
    ValueMap,
    Written,
)
from dualwrite.model import Path, Side, Value, read_path, targets_of

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
ON_LEAVE: Final = ("detach", "delete")
LANGUAGES: Final = ("odata", "xpp")
"""The languages of filters that name theirs."""

_SLIPS = {"<>": "><", "==": "=", "<->": "=", "<=>": "=", "->": ">", "=>": ">", "<-": "<", "<=": "<", "→": ">", "←": "<"}
_HEAD = ("map", "version", "publisher", "left", "right", "company", "key", "filter", "columns")
_ENTRIES = (*_HEAD, "conflict", "rows", "deletes", "on_leave")
_OPTIONS = ("expr", "values", "reverse", "else", "default", "upper", "lower", "trim", "truncate", "round", "conflict")
_BESIDE_VALUES = ("else", "reverse")
_LONG = ("left", "direction", "right")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){3}", re.ASCII)
_WORD = re.compile(r"\w[\w$-]*")
_SYMBOL_LIKE = re.compile(r"[=<>→←-]+")
_LONG_FORM = "use the long form {left: …, direction: both|right|left, right: …}"

_Read = TypeVar("_Read")
Filter: TypeAlias = Expression | Written | Unread


def read_map(text: str, file: str) -> TableMap:
    """The map in a file's text; raises Invalid with everything that is wrong."""
    findings = Findings(file)
    node = read(text, findings)
    if isinstance(node, Entries):
        table_map = _table_map(node, findings)
        findings.raise_if_any()
        return table_map
    if not findings.problems:
        line = node.line if node else 1
        findings.add("bad_entry", line, "this is not a map", "a map file starts with map:, left:, right: and columns:")
    raise Invalid(findings.sorted())


def _table_map(node: Entries, findings: Findings) -> TableMap:
    extra = _own_words(node)
    top = entries(node, "a map", (*_ENTRIES, *extra), findings)
    if "map" in top and isinstance(top["map"][1], Text):
        findings.map = top["map"][1].value or ""
    for name in _HEAD:
        if name in top and name != "version":
            swallowed(top[name][1], findings)

    def get(name: str, read_entry: Callable[[Node, str, Findings], _Read | None], default: _Read) -> _Read:
        value = read_entry(top[name][1], name, findings) if name in top else None
        return default if value is None else value

    for name in ("map", "left", "right", "columns"):
        if name not in top:
            findings.add("missing_key", node.line, f"a map needs {name}:", f"add a line {name}: …")
    filters: dict[Side, Filter] = get("filter", _filters, {})
    return TableMap(
        name=get("map", text_of, ""),
        left=get("left", text_of, ""),
        right=get("right", text_of, ""),
        columns=get("columns", _columns, ()),
        version=get("version", _version, "1.0.0.0"),
        publisher=get("publisher", _publisher, ""),
        company=get("company", _company, None),
        key=get("key", _key, None),
        filters={side: found for side, found in filters.items() if not isinstance(found, Unread)},
        unread={side: found for side, found in filters.items() if isinstance(found, Unread)},
        conflict=get("conflict", _policy, None),
        rows=get("rows", _rows, "keep"),
        deletes=get("deletes", flag, True),
        on_leave=get("on_leave", _on_leave, "detach"),
        extra={name: plain(top[name][1], findings) for name in extra if name in top},
        file=findings.file,
        lines={name: key.line for name, (key, _) in top.items()},
    )


def _version(node: Node, what: str, findings: Findings) -> str | None:
    version = text_of(node, what, findings)
    if version is not None and not _VERSION.fullmatch(version):
        findings.add("bad_entry", node.line, f"version {version!r} is not four numbers", "write it like 1.0.0.0")
        return None
    return version


def _publisher(node: Node, what: str, findings: Findings) -> str | None:
    return "" if isinstance(node, Text) and not node.value else text_of(node, what, findings)


def _policy(node: Node, what: str, findings: Findings) -> str | None:
    return one_of(node, what, POLICIES, findings)


def _rows(node: Node, what: str, findings: Findings) -> str | None:
    return one_of(node, what, ROW_POLICIES, findings)


def _on_leave(node: Node, what: str, findings: Findings) -> str | None:
    return one_of(node, what, ON_LEAVE, findings)


def _key(node: Node, what: str, findings: Findings) -> tuple[Path, ...] | None:
    return list_of(node, what, _path, findings) or None


def _path(node: Node, what: str, findings: Findings) -> Path | None:
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


def _company(node: Node, what: str, findings: Findings) -> Company | None:
    if isinstance(node, Entries):
        found = entries(node, what, ("left", "right"), findings)
        left, right = (
            _path(found[end][1], f"{what} {end}", findings) if end in found else None for end in ("left", "right")
        )
        if len(found) < 2:
            findings.add("bad_line", node.line, "company needs left and right", "write company: LEFT = right")
        return Company(left, right, node.line) if left and right else None
    text = text_of(node, what, findings)
    line = _split(Text(text, node.line), findings) if text is not None else None
    if line is None:
        return None
    left, symbol, right = line
    if symbol != "=" or not left or not right:
        remedy = "write company: LEFT = right"
        findings.add("bad_line", node.line, "the company is the same column on both sides, carried both ways", remedy)
        return None
    return Company(left, right, node.line)


def _filters(node: Node, what: str, findings: Findings) -> dict[Side, Filter] | None:
    filters: dict[Side, Filter] = {}
    for name, (_, value) in entries(node, what, ("left", "right"), findings).items():
        expression = _filter(value, f"filter {name}", findings)
        if expression is not None:
            filters[Side(name)] = expression
    return filters


def _filter(node: Node, what: str, findings: Findings) -> Filter | None:
    if isinstance(node, Entries):
        return _kept_filter(node, what, findings)
    text = text_of(node, what, findings)
    if text is None:
        return None
    try:
        return parse(text)
    except FilterError as error:
        findings.add("bad_filter", node.line, f"{what}: {error}", _filter_remedy(text))
        return None


def _filter_remedy(text: str) -> str:
    try:
        xpp.parse(text)
    except FilterError:
        return "a filter looks like: COUNTRY eq 'DE' and STATE ne null"
    return f"this is X++, so say so: {flow({'xpp': Verbatim(text)})}"


def _kept_filter(node: Entries, what: str, findings: Findings) -> Filter | None:
    """A filter that names its language: one that cannot be read is kept as it stands."""
    found = entries(node, what, LANGUAGES, findings)
    if len(node.pairs) != 1:
        findings.add("bad_filter", node.line, f"{what} must be one filter", "write it in OData, or as {xpp: '…'}")
    if len(node.pairs) != 1 or not found:
        return None
    language, (_, value) = next(iter(found.items()))
    text = text_of(value, what, findings)
    return read_filter(language, text) if text is not None else None


def read_filter(language: str, text: str) -> Filter:
    """A filter in one of the languages; kept as it stands in X++, and where it cannot be read."""
    try:
        return parse(text) if language == "odata" else Written(language, text, xpp.parse(text))
    except FilterError as error:
        return Unread(language, text, str(error))


def filter_in(language: str, found: Filter) -> str:
    """A filter in one of the languages, as it was written if it was in that one; raises FilterError."""
    if isinstance(found, Written | Unread) and found.language == language:
        return found.text
    if isinstance(found, Unread):
        raise FilterError(f"{found.text} cannot be read: {found.reason}")
    expression = found.expression if isinstance(found, Written) else found
    return print_odata(expression) if language == "odata" else xpp.show(expression)


# ------------------------------------------------------------------------------------------------ column lines


def _columns(node: Node, what: str, findings: Findings) -> tuple[ColumnMapping, ...]:
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
    ends = _split(line, findings)
    noted = len(findings.problems)
    transforms, conflict, extra = _transforms(options, findings)
    if ends is None:
        return None
    left, symbol, right = ends
    direction, doubled = SYMBOLS[symbol]
    converting = _converting(transforms)
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


def _converting(transforms: tuple[Transform, ...]) -> bool:
    return any(not isinstance(transform, Truncate | Round) for transform in transforms)


def _split(line: Text, findings: Findings) -> tuple[Path, str, Path] | None:
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
    if _is_made_of_words(steps):
        return steps
    findings.add("bad_path", line, f"{word!r} is not made of plain names", f"for names with other signs {_LONG_FORM}")
    return None


def _is_made_of_words(path: Path) -> bool:
    targets = targets_of(path)
    plain = path[:-1] if targets else path
    return all(map(_WORD.fullmatch, plain)) and all(
        _WORD.fullmatch(word) and _is_made_of_words(inner) for word, inner in targets
    )


def _long(node: Entries, findings: Findings) -> ColumnMapping | None:
    found = entries(node, "a column line", (*_LONG, *_OPTIONS, "transforms", *_own_words(node)), findings)
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
    return () if isinstance(node, Text) and node.value == NO_COLUMN and not node.quoted else _path(node, what, findings)


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


def _own_words(node: Node) -> list[str]:
    """The entries of a mapping that are the writer's own: ``x-…``."""
    pairs = node.pairs if isinstance(node, Entries) else ()
    return [key.value for key, _ in pairs if key.value and key.value.startswith("x-")]


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
        own = _own_words(step)
        options = entries(step, "a column line", (*_OPTIONS, *own), findings)
        for name, (key, value) in options.items():
            if name == "conflict":
                conflict = _policy(value, name, findings)
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


# ---------------------------------------------------------------------------------------------------- writing


def write_map(table_map: TableMap, remarks: Sequence[str] = ()) -> str:
    """The map as the text of a map file; what has its usual value is left out.

    ``remarks`` are comments, one for each column.
    """
    lines = [_top("map", table_map.name), _top("version", table_map.version)]
    if table_map.publisher:
        lines.append(_top("publisher", table_map.publisher))
    lines += [_top("left", table_map.left), _top("right", table_map.right)]
    if table_map.company:
        lines.append(_company_line(table_map.company))
    if table_map.key is not None:
        lines.append(_top("key", [_path_value(path) for path in table_map.key]))
    lines += _filter_lines(table_map)
    lines += _setting_lines(table_map)
    columns = _column_lines(table_map.columns)
    lines += ["columns:", *(map(_remarked, columns, remarks) if remarks else columns)]
    lines += [_top(name, value) for name, value in table_map.extra.items()]
    return "\n".join(lines) + "\n"


def _remarked(entry: str, remark: str) -> str:
    """An entry with a comment at the end of its first line."""
    first, mark, rest = entry.partition("\n")
    return f"{first}  # {remark}{mark}{rest}" if remark else entry


def _top(name: str, value: object) -> str:
    key = quote(name)
    return f"{key}:{block(value, 2, len(key) + 1)}"


def _filter_lines(table_map: TableMap) -> list[str]:
    written = {side: _filter_value(found) for side, found in (*table_map.filters.items(), *table_map.unread.items())}
    lines = [f"  {side}:{block(written[side], 4, len(side.value) + 3)}" for side in Side if side in written]
    return ["filter:", *lines] if lines else []


def _filter_value(found: Filter) -> object:
    if isinstance(found, Written | Unread):
        return {found.language: Verbatim(found.text)}
    return print_odata(found)


def _setting_lines(table_map: TableMap) -> list[str]:
    values = {"conflict": table_map.conflict, "rows": table_map.rows, "on_leave": table_map.on_leave}
    usual = {"conflict": None, "rows": "keep", "on_leave": "detach"}
    lines = [_top(name, value) for name, value in values.items() if value != usual[name]]
    return lines if table_map.deletes else [*lines, "deletes: false"]


def _is_plain(path: Path | None) -> bool:
    """Can the path stand in a column line?"""
    return path is None or (path != (NO_COLUMN,) and _is_made_of_words(path) and len(".".join(path)) < 200)


def _show(path: Path | None) -> str:
    return ".".join(path) if path else NO_COLUMN


def _path_value(path: Path | None) -> str | list[str]:
    """A path where a text with dots or a list may stand."""
    if path is None:
        return NO_COLUMN
    return ".".join(path) if path != (NO_COLUMN,) and read_path(".".join(path)) == path else list(path)


def _company_line(company: Company) -> str:
    if _is_plain(company.left) and _is_plain(company.right):
        return f"company: {_show(company.left)} = {_show(company.right)}"
    return _top("company", {"left": _path_value(company.left), "right": _path_value(company.right)})


def _column_lines(columns: tuple[ColumnMapping, ...]) -> list[str]:
    are_short = [_is_plain(mapping.left) and _is_plain(mapping.right) for mapping in columns]
    short = list(compress(columns, are_short))
    left = min(40, max((len(_show(mapping.left)) for mapping in short), default=0))
    symbol = max((len(_symbol(mapping)) for mapping in short), default=0)
    return [
        _short_line(mapping, left, symbol) if is_short else _long_line(mapping)
        for mapping, is_short in zip(columns, are_short, strict=True)
    ]


def _symbol(mapping: ColumnMapping) -> str:
    meaning = (mapping.direction, _converting(mapping.transforms))
    return next(symbol for symbol, known in SYMBOLS.items() if known == meaning)


def _short_line(mapping: ColumnMapping, left: int, symbol: int) -> str:
    line = f"  - {_show(mapping.left):{left}} {_symbol(mapping):{symbol}} {_show(mapping.right)}"
    steps = _option_steps(mapping)
    if not steps:
        return line
    return f"{line}:{block(steps[0] if len(steps) == 1 else steps, 6, len(line) + 1)}"


def _long_line(mapping: ColumnMapping) -> str:
    value: dict[str, object] = {
        "left": _path_value(mapping.left),
        "direction": mapping.direction.value,
        "right": _path_value(mapping.right),
    }
    steps = _option_steps(mapping)
    value |= steps[0] if len(steps) == 1 else {"transforms": steps} if steps else {}
    return f"  - {block(value, 4, 4).lstrip()}"


def _option_steps(mapping: ColumnMapping) -> list[dict[str, object]]:
    """The options as mappings; a new one wherever a transform comes a second time."""
    steps: list[dict[str, object]] = []
    for transform in mapping.transforms:
        options = _option(transform)
        if not steps or steps[-1].keys() & options.keys():
            steps.append({})
        steps[-1] |= options
    more = {"conflict": mapping.conflict} if mapping.conflict is not None else {}
    more |= mapping.extra
    return [*steps[:-1], {**(steps[-1] if steps else {}), **more}] if more else steps


def _option(transform: Transform) -> dict[str, object]:
    match transform:
        case Default(value=value):
            return {"default": value}
        case Truncate():
            return {"truncate": "true"}
        case Round():
            return {"round": "true"}
        case Case(to=to):
            return {to: "true"}
        case Trim():
            return {"trim": "true"}
        case Formula(text=text):
            return {"expr": Verbatim(text)}
        case ValueMap(pairs=pairs, otherwise=otherwise, reverse=reverse):
            option: dict[str, object] = {"values": _pairs_value(pairs)}
            option |= {} if reverse is None else {"reverse": _pairs_value(reverse)}
            return option if otherwise is None else option | {"else": _otherwise_value(otherwise)}


def _pairs_value(pairs: tuple[tuple[Value, Value], ...]) -> object:
    members = [pair[0] for pair in pairs]
    return dict(pairs) if len(set(members)) == len(members) else [list(pair) for pair in pairs]


def _otherwise_value(otherwise: str) -> str:
    value = otherwise.removeprefix("=")
    return Quoted(value) if otherwise in ("=park", "=keep") else value
