"""The text of a map file, made of a ``TableMap``: the inverse of ``notation``, apart from lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from dualwrite.document import (
    Quoted,
    Verbatim,
    block,
    quote,
)
from dualwrite.mapping.languages import Filter
from dualwrite.mapping.lines import NO_COLUMN, SYMBOLS, is_converting, is_made_of_words
from dualwrite.mapping.odata_text import print_odata
from dualwrite.mapping.tablemap import (
    Case,
    ColumnMapping,
    Company,
    Default,
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
from dualwrite.model import Path, Side, Value, read_path


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
    return path is None or (path != (NO_COLUMN,) and is_made_of_words(path) and len(".".join(path)) < 200)


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
    meaning = (mapping.direction, is_converting(mapping.transforms))
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
