"""One field mapping of a Dual-write map, to a column line and back.

What a line cannot say (``isSystemGenerated``, ``$type``, the spelling of a number) is kept beside it as ``x-d365``, as
far as it differs from the usual, and laid over what the line says when it is written back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from dualwrite.mapping.jsontext import MISSING, Json, decode, difference, encode, laid_over
from dualwrite.mapping.tablemap import ColumnMapping, Default, Direction, TableMap, Transform, ValueMap, called
from dualwrite.model import Path, Side, Value, read_path, show_path

KEPT: Final = "x-d365"
_DIRECTIONS: Final = {"1": 1, "2": 2, "3": 3, "forward": 1, "backward": 2, "reverse": 2, "bidirectional": 3, "both": 3}
_NO_COLUMN = "none"
_RELATED = "destinationLookupFieldRelatedEntity"


class Unreadable(Exception):
    """A field mapping, or a transform of one, that says what a line cannot."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a leg writes: ``flipped`` from the right-hand system to the left, ``numbers`` for directions as numbers."""

    flipped: bool = False
    numbers: bool = False


# ------------------------------------------------------------------------------------------------------ reading


def read_column(entry: Json, style: Style) -> ColumnMapping:
    """The line for a field mapping; raises Unreadable where it cannot be said in one."""
    if not isinstance(entry, dict):
        raise Unreadable("it is not an object")
    source, target = (path_of(entry.get(name)) for name in ("sourceField", "destinationField"))
    direction = _direction(entry.get("syncDirection", MISSING), source, target)
    transforms, kept = _transforms(entry.get("valueTransforms", MISSING), style)
    if None in (source, target) and not any(isinstance(each, Default) for each in transforms):
        name = "sourceField" if source is None else "destinationField"
        raise Unreadable(f"it has no {name}, and no Default transform with the value to write")
    left, right = (target, source) if style.flipped else (source, target)
    mapping = ColumnMapping(left, _turned(direction, style), right, transforms)
    more = difference(entry, _usual(mapping, style))
    more.pop("valueTransforms", None)
    more |= {_RELATED: {_column(mapping): more[_RELATED]}} if _RELATED in more else {}
    more |= {"valueTransforms": kept} if kept is not MISSING else {}
    extra = {KEPT: encode(more)} if more else {}
    return ColumnMapping(left, mapping.direction, right, transforms, extra=extra)


def path_of(raw: Json) -> Path | None:
    """The path that a field's name means, None for no column; raises Unreadable."""
    if raw is None or (isinstance(raw, str) and raw.strip().casefold() in ("", _NO_COLUMN)):
        return None
    if not isinstance(raw, str):
        raise Unreadable(f"a field is called {raw!r}, which is no text")
    steps = read_path(raw)
    if not all(step.strip() for step in steps):
        raise Unreadable(f"{raw!r} is not a path")
    return steps


def number_of(raw: Json) -> int | None:
    """1 from source to destination, 2 back, 3 both ways; None for what is none of these."""
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        return None
    return _DIRECTIONS.get(str(raw).strip().casefold())


def _direction(raw: Json, source: Path | None, target: Path | None) -> Direction:
    number = number_of(raw)
    if number is None:
        told = "it has no syncDirection" if raw is MISSING else f"syncDirection {raw!r} is none of 1, 2 and 3"
        raise Unreadable(told)
    if source is None and target is None:
        raise Unreadable("it has neither a sourceField nor a destinationField")
    if (source is None and number == 2) or (target is None and number == 1):
        raise Unreadable(f"syncDirection {raw!r} leads to a side where it has no field")
    number = 1 if source is None else 2 if target is None else number
    return (Direction.TO_RIGHT, Direction.TO_LEFT, Direction.BOTH)[number - 1]


def _turned(direction: Direction, style: Style) -> Direction:
    opposite = {Direction.TO_RIGHT: Direction.TO_LEFT, Direction.TO_LEFT: Direction.TO_RIGHT}
    return opposite.get(direction, direction) if style.flipped else direction


def _transforms(raw: Json, style: Style) -> tuple[tuple[Transform, ...], Json]:
    """The transforms, and what is kept of them: an object for each, or ``{"unread": …}``; MISSING for nothing."""
    if raw is MISSING:
        return (), MISSING
    if raw is None or raw == []:
        return (), raw
    if not isinstance(raw, list):
        raise Unreadable("valueTransforms is not a list")
    transforms: list[Transform] = []
    kept: list[Json] = []
    for item in raw:
        try:
            transform = _transform(item, style)
        except Unreadable:
            kept.append({"unread": item})
        else:
            transforms.append(transform)
            kept.append(difference(item, _usual_transform(transform, style)))
    return tuple(transforms), kept if any(kept) else MISSING


def _transform(item: Json, style: Style) -> Transform:
    if not isinstance(item, dict):
        raise Unreadable("it is not an object")
    match _kind(item.get("transformType")):
        case "default":
            return Default(_value(item.get("defaultValue")))
        case "valuemap":
            otherwise = _otherwise(item.get("defaultValue"))
            return ValueMap(_pairs(item.get("valueMap"), style), otherwise)
    raise Unreadable(f"its transformType is {item.get('transformType')!r}")


def _kind(raw: Json) -> str:
    return raw.casefold() if isinstance(raw, str) else ""


def _pairs(raw: Json, style: Style) -> tuple[tuple[Value, Value], ...]:
    if not isinstance(raw, dict) or not raw:
        raise Unreadable("its valueMap is not an object with values")
    pairs = [(source, _value(target)) for source, target in raw.items()]
    return tuple((target, source) for source, target in pairs) if style.flipped else tuple(pairs)


def _otherwise(raw: Json) -> str | None:
    """What becomes of a value that the map does not list; no default says nothing about it."""
    value = None if raw is MISSING else _value(raw)
    return f"={value}" if value else None


def _value(raw: Json) -> Value:
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, int | float):
        return str(raw)
    raise Unreadable("a value is an object or a list")


def unread_transforms(mapping: ColumnMapping) -> Iterator[str]:
    """The kinds of the transforms that are kept without being done."""
    kept = mapping.extra.get(KEPT)
    items = kept.get("valueTransforms") if isinstance(kept, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "unread" in item:
            raw = item["unread"]
            yield str(raw.get("transformType", "")) if isinstance(raw, dict) else ""


def related_table(mapping: ColumnMapping) -> str | None:
    """The table behind the lookup of a line, where an export has named it."""
    kept = mapping.extra.get(KEPT)
    related = kept.get(_RELATED) if isinstance(kept, dict) else None
    table = related.get(_column(mapping)) if isinstance(related, dict) else None
    return table if isinstance(table, str) and table else None


def distinct_name(table_map: TableMap, side: Side) -> str:
    """The name of a side's table in its system, where an export has given it beside the label.

    It belongs to the label: a map whose tables a person has renamed since has none.
    """
    named = f"{table_map.left} ({table_map.right})"
    if table_map.name != named and not table_map.name.startswith(f"{named} leg "):
        return ""
    kept = table_map.extra.get(KEPT)
    leg = kept.get("leg") if isinstance(kept, dict) else None
    flipped = isinstance(kept, dict) and kept.get("flipped") == "true"
    field = "sourceSchemaDistinctName" if (side is Side.LEFT) != flipped else "destinationSchemaDistinctName"
    found = leg.get(field) if isinstance(leg, dict) else None
    return found if isinstance(found, str) else ""


def unread_entries(table_map: TableMap) -> Iterator[str]:
    """The field mappings that are kept although no line can say them, shortened."""
    kept = table_map.extra.get(KEPT)
    items = kept.get("unread") if isinstance(kept, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield json.dumps(decode(item.get("entry")), ensure_ascii=False)[:80]


# ------------------------------------------------------------------------------------------------------ writing


def write_column(mapping: ColumnMapping, style: Style) -> tuple[dict[str, Json], list[str]]:
    """The field mapping for a line, and what of the line cannot be said there."""
    losses = list(_losses(mapping))
    stored = decode(mapping.extra.get(KEPT))
    kept = dict(stored) if isinstance(stored, dict) else {}
    usual = _usual(mapping, style)
    transforms = kept.pop("valueTransforms", MISSING)
    related = kept.pop(_RELATED, None)
    if isinstance(related, dict) and _column(mapping) in related:
        kept[_RELATED] = related[_column(mapping)]
    entry = laid_over(usual, kept, _meanings(mapping, style))
    items = _laid_transforms(mapping, transforms, style)
    if items is not MISSING:
        entry["valueTransforms"] = items
    return entry, losses


def _column(mapping: ColumnMapping) -> str:
    """The right-hand column of a line: what is kept of the table behind it is true of this column alone."""
    return mapping.right[0] if mapping.right else ""


def _usual(mapping: ColumnMapping, style: Style) -> dict[str, Json]:
    source, target = (mapping.right, mapping.left) if style.flipped else (mapping.left, mapping.right)
    number = {Direction.TO_RIGHT: 1, Direction.TO_LEFT: 2, Direction.BOTH: 3}[_turned(mapping.direction, style)]
    return {
        "syncDirection": number if style.numbers else str(number),
        "sourceField": show_path(source) if source else None,
        "destinationField": show_path(target) if target else None,
        "isSystemGenerated": len(mapping.right or ()) > 1,
    }


def _meanings(mapping: ColumnMapping, style: Style) -> Mapping[str, Callable[[Json], object]]:
    ends = (mapping.right, mapping.left) if style.flipped else (mapping.left, mapping.right)
    path = partial(_or_none, path_of)
    return {
        "syncDirection": partial(_or_none, lambda raw: _direction(raw, *ends)),
        "sourceField": lambda raw: path(None if raw is MISSING else raw),
        "destinationField": lambda raw: path(None if raw is MISSING else raw),
    }


def _or_none(read: Callable[[Json], object], raw: Json) -> object:
    """What it means; a value of its own where it means nothing."""
    try:
        return read(raw)
    except Unreadable:
        return Unreadable


def _laid_transforms(mapping: ColumnMapping, kept: Json, style: Style) -> Json:
    todo = [each for each in mapping.transforms if isinstance(each, Default | ValueMap)]
    if not isinstance(kept, list) or not kept:
        return kept if not todo else [_usual_transform(each, style) for each in todo]
    items: list[Json] = []
    for item in kept:
        if isinstance(item, dict) and "unread" in item:
            items.append(item["unread"])
        elif todo:
            items.append(_laid_transform(todo.pop(0), item if isinstance(item, dict) else {}, style))
    items += [_usual_transform(each, style) for each in todo]
    return items or MISSING


def _laid_transform(transform: Default | ValueMap, kept: Mapping[str, Json], style: Style) -> dict[str, Json]:
    usual = _usual_transform(transform, style)
    if "transformType" in kept and _kind(kept["transformType"]) != _kind(usual["transformType"]):
        return usual
    default = _otherwise if isinstance(transform, ValueMap) else lambda raw: _value(None if raw is MISSING else raw)
    meanings: dict[str, Callable[[Json], object]] = {
        "transformType": _kind,
        "valueMap": partial(_or_none, lambda raw: _pairs(raw, style)),
        "defaultValue": partial(_or_none, default),
    }
    return laid_over(usual, kept, meanings)


def _usual_transform(transform: Transform, style: Style) -> dict[str, Json]:
    if isinstance(transform, Default):
        return {"transformType": "Default", "defaultValue": transform.value}
    assert isinstance(transform, ValueMap)
    pairs = [(other, one) if style.flipped else (one, other) for one, other in transform.pairs]
    value_map: dict[str, Json] = {}
    for source, target in pairs:
        if source is not None:
            value_map.setdefault(source, target)
    usual: dict[str, Json] = {"transformType": "ValueMap", "valueMap": value_map}
    default = transform.otherwise or ""
    return usual | ({"defaultValue": default[1:]} if default.startswith("=") else {})


def _losses(mapping: ColumnMapping) -> Iterator[str]:
    """What Dual-write has no place for."""
    for transform in mapping.transforms:
        if isinstance(transform, ValueMap):
            sources = [one for one, _ in transform.pairs]
            if None in sources:
                yield "a value map can name no empty left value there"
            if len(set(sources)) < len(sources):
                yield "a value map can name a left value once only there; the first one is written"
            if transform.reverse is not None:
                yield "reverse: has no counterpart there"
            if transform.otherwise in ("park", "keep"):
                yield f"else: {transform.otherwise} has no counterpart there"
        elif not isinstance(transform, Default):
            yield f"{called(transform)} has no counterpart there"
    if mapping.conflict is not None:
        yield f"conflict: {mapping.conflict} has no counterpart there"
