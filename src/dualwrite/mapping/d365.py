"""The maps of Dynamics 365 Dual-write as they are stored (``msdyn_mapping``), to table maps and back.

``read_export`` takes one stored map, a row of ``msdyn_dualwriteentitymap``, a list of rows as the Web API returns them,
and the service's copy of a project.  Whatever a table map cannot say is kept in its ``x-d365``, so that ``write_rows``
gives back every field: what a person changed in the meantime, and nothing else, is different then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from dualwrite.errors import Invalid, Problem
from dualwrite.expression import FilterError
from dualwrite.mapping import check
from dualwrite.mapping.d365_columns import (
    KEPT,
    Style,
    Unreadable,
    number_of,
    read_column,
    unread_transforms,
    write_column,
)
from dualwrite.mapping.jsontext import Json, Missing, decode, difference, encode, laid_over, read_json
from dualwrite.mapping.languages import Filter, filter_in, read_filter
from dualwrite.mapping.published import is_published, read_published
from dualwrite.mapping.tablemap import ColumnMapping, TableMap, Unread
from dualwrite.model import Side

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "json": ("A file is not JSON, or holds what cannot be kept.", "export it anew, as it comes from the system"),
    "no_maps_in_export": (
        "The JSON holds no Dual-write map.",
        "give it a stored map (msdyn_mapping), or rows of msdyn_dualwriteentitymap as the Web API returns them",
    ),
    "bad_export": ("A part of an export is not of the shape that Dual-write writes.", "export it anew"),
    "not_done": (
        "An export asks for something that dualwrite keeps and writes back, but does not do.",
        "look whether the map needs it",
    ),
    "more_pages": (
        "The list of rows goes on: the file is one page of several.",
        "fetch the other pages too, by the address in @odata.nextLink",
    ),
    "older_version": (
        "A file holds several versions of a map; the newest one is taken.",
        "give the file of another one alone",
    ),
    "not_in_dual_write": (
        "A map says something that Dual-write has no place for; the export is without it.",
        "look whether the map is still right without it",
    ),
}
"""What can be said about an export, and what to do about it."""
MOST: Final = 100
"""Problems that are told one by one."""
MOST_FIELDS: Final = 10_000
"""Field mappings that a leg may have: many times what a table of either system can have."""
_LEFT, _RIGHT = "AX", "CRM"
_PROPERTIES, _AUTHOR = "msdyn_properties", "author"
_VERSION = re.compile(r"\d+(\.\d+){3}", re.ASCII)
_LANGUAGES: Final = {_LEFT: "xpp", _RIGHT: "odata"}
_SPOKEN: Final = {"xpp": "X++", "odata": "OData"}


@dataclass
class Imported:
    """The maps of an export, and what was said about it.  ``file`` is where it stands."""

    file: str
    maps: list[TableMap] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: int = 0

    def add(self, code: str, place: str, message: str, *, level: str = "error", map: str = "") -> None:
        """Note a problem at a place like ``value[2].legs[0]``; those beyond a hundred are counted."""
        if len(self.problems) >= MOST:
            self.left_out += 1
            return
        said = f"{place}: {message}" if place else message
        self.problems.append(Problem(code, said, {**check.CODES, **CODES}[code][1], level, self.file, map=map))


# ------------------------------------------------------------------------------------------------------ reading


def read_export(text: str, file: str) -> Imported:
    """The maps in a text of JSON; raises Invalid where it is none, or holds no map."""
    found = Imported(file)
    for place, document, row in _documents(read_json(text, file), "", found):
        if is_published(document):
            _published(document, place, found)
        else:
            _Reader(document, row, place, found).read()
    if found.left_out:
        found.problems.append(
            Problem("bad_export", f"and {found.left_out} more of the kind", CODES["bad_export"][1], file=file)
        )
    if not found.maps:
        if not any(problem.level == "error" for problem in found.problems):
            found.add("no_maps_in_export", "", "there is no Dual-write map in it")
        raise Invalid(found.problems)
    return found


def _published(document: Mapping[str, Json], place: str, found: Imported) -> None:
    try:
        found.maps.append(read_published(document))
    except Unreadable as error:
        found.add("bad_export", place, str(error))


_Found = tuple[str, dict[str, Json], dict[str, Json] | None]


def _documents(value: Json, place: str, found: Imported) -> Iterator[_Found]:
    """Every stored map in a value, with its place and the row that it comes from."""
    if isinstance(value, list):
        for number, inner in enumerate(value):
            if len(found.problems) >= MOST and not isinstance(inner, dict):
                found.left_out += 1
                continue
            yield from _documents(inner, f"{place}[{number}]", found)
    elif not isinstance(value, dict):
        found.add("bad_export", place, f"an object was expected, not {_shown(value)}")
    elif "msdyn_mapping" in value or "msdyn_dualwriteentitymapid" in value:
        yield from _row(value, place, found)
    elif isinstance(value.get("value"), list) and "legs" not in value:
        if "@odata.nextLink" in value:
            found.add("more_pages", place, "there is an @odata.nextLink", level="warning")
        yield from _documents(value["value"], _at(place, "value"), found)
    elif isinstance(value.get("entityMappingTasks"), list):
        yield from _documents(value["entityMappingTasks"], _at(place, "entityMappingTasks"), found)
    elif "legs" in value or is_published(value):
        yield place, value, None
    else:
        known = ", ".join(list(value)[:5])
        found.add("no_maps_in_export", place, f"an object with {known or 'nothing'} is no Dual-write map")


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shown(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _row(row: dict[str, Json], place: str, found: Imported) -> Iterator[_Found]:
    """The map in a row, where it stands as a text of JSON."""
    where, stored = _at(place, "msdyn_mapping"), row.get("msdyn_mapping")
    name = row.get("msdyn_name") or row.get("msdyn_displayname") or ""
    if not isinstance(stored, str) or not stored.strip():
        found.add("bad_export", where, f"the row {name!r} holds no map: select msdyn_mapping in the query")
        return
    try:
        document = read_json(stored, found.file)
    except Invalid as invalid:
        found.add("bad_export", where, f"the row {name!r}: {invalid.problems[0].message}")
        return
    if isinstance(document, dict) and "legs" in document:
        yield where, document, row
    else:
        found.add("bad_export", where, f"the row {name!r} holds no legs")


class _Reader:
    """Reads one stored map: a table map for each leg."""

    def __init__(self, document: dict[str, Json], row: dict[str, Json] | None, place: str, found: Imported) -> None:
        self.document, self.row, self.place, self.found = document, row, place, found

    def read(self) -> None:
        legs = self.document["legs"]
        if not isinstance(legs, list) or not legs:
            self.found.add("bad_export", _at(self.place, "legs"), f"a list of legs was expected, not {_shown(legs)}")
            return
        maps: list[TableMap] = []
        skipped: list[dict[str, Json]] = []
        for number, leg in enumerate(legs):
            try:
                maps.append(self._leg(leg, _at(self.place, f"legs[{number}]")))
            except Unreadable as error:
                self.found.add("bad_export", _at(self.place, f"legs[{number}]"), str(error))
                skipped.append({"at": number, "leg": leg})
        if maps:
            self.found.maps += self._joined(maps, skipped)

    def _joined(self, maps: list[TableMap], skipped: list[dict[str, Json]]) -> Iterator[TableMap]:
        """The maps of all legs; the first one keeps what the whole says."""
        head, *others = maps
        kept: dict[str, Json] = {}
        document = difference(self.document, _usual_document(head) | {"legs": self.document["legs"]})
        kept |= {"document": document} if document else {}
        if self.row is not None:
            row = difference(self.row, _usual_row(head) | {"msdyn_mapping": self.row["msdyn_mapping"]})
            kept |= {"row": row} if row else {}
        kept |= {"skipped": skipped} if skipped else {}
        yield _keeping(head, kept)
        for number, other in enumerate(others, 2):
            yield replace(_keeping(other, {"of": head.name}), name=f"{other.name} leg {number}")

    def _leg(self, leg: Json, place: str) -> TableMap:
        if not isinstance(leg, dict):
            raise Unreadable(f"an object was expected, not {_shown(leg)}")
        style = _style(leg)
        source, target = (_table(leg, name) for name in ("sourceSchema", "destinationSchema"))
        left, right = (target, source) if style.flipped else (source, target)
        name = f"{left} ({right})"
        columns, unread = self._columns(leg.get("fieldMappings"), style, place, name)
        filters = {side: each for side in Side if (each := _filter(leg, side, style)) is not None}
        table_map = TableMap(
            name=name,
            left=left,
            right=right,
            columns=columns,
            version=_version((self.row or {}).get("msdyn_version")),
            publisher=_publisher((self.row or {}).get(_PROPERTIES)),
            filters={side: each for side, each in filters.items() if not isinstance(each, Unread)},
            unread={side: each for side, each in filters.items() if isinstance(each, Unread)},
        )
        usual = _usual_leg(table_map, style) | {"fieldMappings": leg["fieldMappings"]}
        kept: dict[str, Json] = {"leg": more} if (more := difference(leg, usual)) else {}
        kept |= {name: True for name in ("flipped", "numbers") if getattr(style, name)}
        kept |= {"unread": unread} if unread else {}
        if leg.get("deleteNonMatchingData") is True:
            self.found.add("not_done", place, "deleteNonMatchingData is kept, and not done", level="warning", map=name)
        return _keeping(table_map, kept)

    def _columns(
        self, entries: Json, style: Style, place: str, name: str
    ) -> tuple[tuple[ColumnMapping, ...], list[Json]]:
        if not isinstance(entries, list) or not entries:
            raise Unreadable(f"fieldMappings must be a list that is not empty, not {_shown(entries)}")
        if len(entries) > MOST_FIELDS:
            raise Unreadable(f"it has {len(entries)} fieldMappings, more than any table has columns")
        columns: list[ColumnMapping] = []
        unread: list[Json] = []
        for number, entry in enumerate(entries):
            where = f"{place}.fieldMappings[{number}]"
            try:
                columns.append(read_column(entry, style))
            except Unreadable as error:
                self.found.add("bad_field_mapping", where, f"{_shown(entry)}: {error}", map=name)
                unread.append({"at": number, "entry": entry})
            else:
                self._warn(columns[-1], entry, where, name)
        if not columns:
            raise Unreadable("none of its fieldMappings can be read")
        return tuple(columns), unread

    def _warn(self, mapping: ColumnMapping, entry: Json, where: str, name: str) -> None:
        for kind in unread_transforms(mapping):
            self.found.add("unread_transform", where, f"a transform of type {kind!r} is not known", map=name)
        for item in entry.get("valueTransforms") or ():
            if isinstance(item, dict) and item.get("createValuesOnDestination") is True:
                message = "createValuesOnDestination is kept, and not done"
                self.found.add("not_done", where, message, level="warning", map=name)


def _style(leg: Mapping[str, Json]) -> Style:
    flipped = leg.get("sourceEnvironmentType") == _RIGHT and leg.get("destinationEnvironmentType") == _LEFT
    entries = leg.get("fieldMappings")
    first = entries[0] if isinstance(entries, list) and entries else None
    direction = first.get("syncDirection") if isinstance(first, dict) else None
    return Style(flipped, number_of(direction) is not None and isinstance(direction, int))


def _table(leg: Mapping[str, Json], name: str) -> str:
    schema = leg.get(name)
    if not isinstance(schema, str) or not schema.strip():
        raise Unreadable(f"it has no {name}, so it is not known which tables belong together")
    return schema


def _filter_field(side: Side, style: Style) -> str:
    return "sourceFilter" if (side is Side.LEFT) != style.flipped else "reversedSourceFilter"


def _filter(leg: Mapping[str, Json], side: Side, style: Style) -> Filter | None:
    name = _filter_field(side, style)
    text = leg.get(name)
    if text is not None and not isinstance(text, str):
        raise Unreadable(f"{name} is {_shown(text)}, which is no text")
    return _meant(side, text)


def _meant(side: Side, text: Json) -> Filter | None:
    if not isinstance(text, str) or not text.strip():
        return None
    return read_filter(_LANGUAGES[_LEFT if side is Side.LEFT else _RIGHT], text)


def _version(raw: Json) -> str:
    return raw if isinstance(raw, str) and _VERSION.fullmatch(raw) else "1.0.0.0"


def _publisher(raw: Json) -> str:
    """Whose map it is: the author that the row's properties name; nobody where they name none."""
    author = (_properties(raw) or {}).get(_AUTHOR)
    return author if isinstance(author, str) and author.strip() else ""


def _properties(raw: Json) -> dict[str, Json] | None:
    """The properties of a row, which are a text of JSON; None where they are something else."""
    if raw is None or raw == "":
        return {}
    try:
        found = read_json(raw, "") if isinstance(raw, str) else None
    except Invalid:
        return None
    return found if isinstance(found, dict) else None


def _keeping(table_map: TableMap, kept: Mapping[str, Json]) -> TableMap:
    before = table_map.extra.get(KEPT, {})
    return replace(table_map, extra={KEPT: {**encode(dict(kept)), **before}}) if kept or before else table_map


def newest(maps: Sequence[TableMap]) -> tuple[list[TableMap], list[TableMap]]:
    """The newest version of each map, with all its legs, and the others."""
    best: dict[str, TableMap] = {}
    for table_map in maps:
        other = best.setdefault(_head(table_map), table_map)
        if _numbers(table_map) > _numbers(other):
            best[_head(table_map)] = table_map
    chosen = [each for each in maps if each.version == best[_head(each)].version]
    unique = {each.name.casefold(): each for each in reversed(chosen)}
    kept = [each for each in maps if unique.get(each.name.casefold()) is each]
    return kept, [each for each in maps if unique.get(each.name.casefold()) is not each]


def _head(table_map: TableMap) -> str:
    """The name of the map that holds the stored one of which this is a leg."""
    return str(_kept(table_map).get("of") or table_map.name).casefold()


def _numbers(table_map: TableMap) -> list[int]:
    return [int(number) for number in table_map.version.split(".")]


# ------------------------------------------------------------------------------------------------------ writing


@dataclass
class Exported:
    """Rows of ``msdyn_dualwriteentitymap``, and what could not be said in them."""

    rows: list[dict[str, Json]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def write_rows(maps: Sequence[TableMap]) -> Exported:
    """The maps as rows, as the Web API returns and takes them; the legs of one stored map come together again."""
    exported = Exported()
    heads = {(each.name, each.version): each for each in maps if "of" not in _kept(each)}
    for head in maps:
        name = (_kept(head).get("of"), head.version)
        if name in heads:
            continue
        legs = [head, *(each for each in maps if (_kept(each).get("of"), each.version) == (head.name, head.version))]
        kept = _kept(head)
        stored = kept.get("row")
        row = laid_over(_usual_row(head), stored if isinstance(stored, dict) else {}, {"msdyn_version": _version})
        if _publisher(row.get(_PROPERTIES)) != head.publisher:
            _write_publisher(row, head, exported)
        row["msdyn_mapping"] = json.dumps(_document(legs, exported), ensure_ascii=False, separators=(",", ":"))
        exported.rows.append(row)
    return exported


def _write_publisher(row: dict[str, Json], head: TableMap, exported: Exported) -> None:
    """Say whose map it is beside what the row's properties say already."""
    properties = _properties(row.get(_PROPERTIES))
    if properties is None:
        exported.problems.append(_lost(head, f"the publisher {head.publisher!r} has no place in {_PROPERTIES}"))
        return
    properties = {name: value for name, value in properties.items() if name != _AUTHOR}
    properties |= {_AUTHOR: head.publisher} if head.publisher else {}
    row[_PROPERTIES] = json.dumps(properties, ensure_ascii=False, separators=(",", ":"))


def _kept(table_map: TableMap) -> dict[str, Json]:
    kept = decode(table_map.extra.get(KEPT))
    return kept if isinstance(kept, dict) else {}


def _document(legs: Sequence[TableMap], exported: Exported) -> dict[str, Json]:
    kept = _kept(legs[0])
    written = [_leg(each, number, exported) for number, each in enumerate(legs, 1)]
    _put_back(written, kept.get("skipped"), "leg")
    stored = kept.get("document")
    return laid_over(_usual_document(legs[0]), stored if isinstance(stored, dict) else {}, {}) | {"legs": written}


def _put_back(items: list[dict[str, Json]], kept: Json, name: str) -> None:
    """Put what could not be read back where it stood."""
    for each in kept if isinstance(kept, list) else ():
        if isinstance(each, dict) and name in each:
            place = each.get("at")
            items.insert(place if isinstance(place, int) else len(items), each[name])


def _leg(table_map: TableMap, number: int, exported: Exported) -> dict[str, Json]:
    kept = _kept(table_map)
    stored = kept.get("leg")
    leg: dict[str, Json | Missing] = stored if isinstance(stored, dict) else {}
    style = Style(kept.get("flipped") is True, kept.get("numbers") is True)
    usual = _usual_leg(table_map, style, number)
    meanings: dict[str, Callable[[Json], object]] = {
        name: lambda raw: raw if isinstance(raw, str) else None for name in ("sourceSchema", "destinationSchema")
    }
    meanings |= {_filter_field(side, style): partial(_meant, side) for side in Side}
    written = laid_over(usual, leg, meanings)
    entries: list[Json] = []
    for mapping in table_map.columns:
        entry, losses = write_column(mapping, style)
        entries.append(entry)
        exported.problems += [_lost(table_map, loss, mapping.line) for loss in losses]
    exported.problems += [_lost(table_map, loss) for loss in _losses(table_map)]
    _put_back(entries, kept.get("unread"), "entry")
    return written | {"fieldMappings": entries}


def _lost(table_map: TableMap, message: str, line: int = 0) -> Problem:
    remedy = CODES["not_in_dual_write"][1]
    return Problem("not_in_dual_write", message, remedy, "warning", table_map.file, line, table_map.name)


def _losses(table_map: TableMap) -> Iterator[str]:
    for side, language in ((Side.LEFT, _LEFT), (Side.RIGHT, _RIGHT)):
        try:
            _filter_text(table_map, side)
        except FilterError as error:
            yield f"the {side} filter cannot be written in {_SPOKEN[_LANGUAGES[language]]}: {error.message}"
    for name, value, usual in (
        ("conflict", table_map.conflict, None),
        ("rows", table_map.rows, "keep"),
        ("on_leave", table_map.on_leave, "detach"),
        ("deletes", table_map.deletes, True),
    ):
        if value != usual:
            yield f"{name}: {str(value).lower()} has no counterpart there"


def _usual_row(table_map: TableMap) -> dict[str, Json]:
    return {
        "msdyn_name": f"{table_map.right} - {table_map.left}",
        "msdyn_displayname": table_map.name,
        "msdyn_version": table_map.version,
    }


def _usual_document(head: TableMap) -> dict[str, Json]:
    return {
        "name": f"[{head.left}] - [{head.right}]",
        "leftEnvironmentType": _LEFT,
        "centerEnvironmentType": _RIGHT,
        "rightEnvironmentType": "UNDEFINED",
    }


def _usual_leg(table_map: TableMap, style: Style, number: int = 1) -> dict[str, Json]:
    source, target = (Side.RIGHT, Side.LEFT) if style.flipped else (Side.LEFT, Side.RIGHT)
    kinds = {Side.LEFT: _LEFT, Side.RIGHT: _RIGHT}
    return {
        "id": f"{number:03}",
        "sourceSchema": table_map.table(source),
        "sourceEnvironmentType": kinds[source],
        "destinationSchema": table_map.table(target),
        "destinationEnvironmentType": kinds[target],
        "sourceFilter": _filter_or_none(table_map, source),
        "reversedSourceFilter": _filter_or_none(table_map, target),
    }


def _filter_text(table_map: TableMap, side: Side) -> str:
    """The filter in the language of its side; raises FilterError where it cannot be said in it."""
    found = table_map.unread.get(side) or table_map.filters.get(side)
    return filter_in(_LANGUAGES[_LEFT if side is Side.LEFT else _RIGHT], found) if found is not None else ""


def _filter_or_none(table_map: TableMap, side: Side) -> str:
    """The same; nothing where it cannot be said."""
    try:
        return _filter_text(table_map, side)
    except FilterError:
        return ""
