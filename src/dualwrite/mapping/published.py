"""Table maps as their publisher's documentation lists them, collected as JSON: one object for each map.

Tables, columns with their directions, value maps, defaults and filters are facts of the map.  Integration keys are not
published with it; a company-specific map has its company in the columns that every such table has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dualwrite.mapping.d365_columns import Unreadable, path_of
from dualwrite.mapping.jsontext import Json, encode
from dualwrite.mapping.languages import Filter, read_filter
from dualwrite.mapping.tablemap import ColumnMapping, Company, Default, Direction, TableMap, Transform, Unread, ValueMap
from dualwrite.model import Side, Value

PUBLISHER: Final = "Microsoft"
COMPANY: Final = Company(("DATAAREAID",), ("msdyn_company", "cdm_companycode"))
"""Where company-specific tables have their company, on either side."""
_DIRECTIONS: Final = {"<->": Direction.BOTH, "->": Direction.TO_RIGHT, "<-": Direction.TO_LEFT}
_SIDES: Final = {"fno": (Side.LEFT, "xpp"), "dataverse": (Side.RIGHT, "odata")}


def is_published(value: Mapping[str, Json]) -> bool:
    """Is it one of these maps?"""
    return "fno_entity" in value and "dataverse_table" in value


def read_published(value: Mapping[str, Json]) -> TableMap:
    """The table map; raises Unreadable where it is not of that shape."""
    left, right = (_text(value, name) for name in ("fno_entity", "dataverse_table"))
    fields = value.get("fields")
    if not isinstance(fields, list) or not fields:
        raise Unreadable("fields must be a list that is not empty")
    filters, others = _filters(value.get("filters") or {})
    columns = tuple(_column(entry, f"fields[{number}]") for number, entry in enumerate(fields))
    return TableMap(
        name=_text(value, "name"),
        left=left,
        right=right,
        columns=columns,
        publisher=PUBLISHER,
        company=COMPANY if value.get("company_specific") is True else None,
        filters={side: found for side, found in filters.items() if not isinstance(found, Unread)},
        unread={side: found for side, found in filters.items() if isinstance(found, Unread)},
        extra={"x-filters": encode(others)} if others else {},
    )


def _text(value: Mapping[str, Json], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Unreadable(f"{name} must be a text")
    return text


def _filters(found: Json) -> tuple[dict[Side, Filter], dict[str, Json]]:
    """The filter of each side, and those of other versions of the map: the first version's counts."""
    if not isinstance(found, dict):
        raise Unreadable("filters must be an object")
    filters: dict[Side, Filter] = {}
    others: dict[str, Json] = {}
    for name, (side, language) in _SIDES.items():
        versions = found.get(f"{name}_versions")
        texts = list(versions.values()) if isinstance(versions, dict) else []
        text = found.get(name, texts[0] if texts else None)
        if isinstance(text, str) and text.strip():
            filters[side] = read_filter(language, text)
        if len(texts) > 1:
            others[side.value] = versions
    return filters, others


def _column(entry: Json, place: str) -> ColumnMapping:
    if not isinstance(entry, dict):
        raise Unreadable(f"{place} must be an object")
    left, right = path_of(entry.get("fno")), path_of(entry.get("dataverse"))
    direction = entry.get("direction")
    if not isinstance(direction, str) or direction not in _DIRECTIONS:
        raise Unreadable(f"{place}: direction {direction!r} is none of {' '.join(_DIRECTIONS)}")
    transforms = _transforms(entry, place)
    if None in (left, right) and not any(isinstance(each, Default) for each in transforms):
        raise Unreadable(f"{place} names one column, and no default")
    if left is None and right is None:
        raise Unreadable(f"{place} names no column")
    return ColumnMapping(left, _DIRECTIONS[direction], right, transforms)


def _transforms(entry: Mapping[str, Json], place: str) -> tuple[Transform, ...]:
    transforms: list[Transform] = []
    transform = entry.get("transform")
    if transform is not None:
        if not isinstance(transform, dict) or not isinstance(transform.get("pairs"), list):
            raise Unreadable(f"{place}: a transform must be an object with pairs")
        transforms.append(ValueMap(tuple(_pair(pair, place) for pair in transform["pairs"])))
    if "default" in entry:
        transforms.append(Default(_value(entry["default"], place)))
    return tuple(transforms)


def _pair(pair: Json, place: str) -> tuple[Value, Value]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise Unreadable(f"{place}: a value map holds pairs of a left and a right value")
    return _value(pair[0], place), _value(pair[1], place)


def _value(value: Json, place: str) -> Value:
    if value is None or isinstance(value, str):
        return value
    raise Unreadable(f"{place}: {value!r} must be a text or null")
