"""Exports of Dual-write under random input: nothing of them is lost, and nothing but what was edited changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.errors import Invalid, Problem
from dualwrite.mapping.d365 import read_export, write_rows
from dualwrite.mapping.jsontext import MISSING, decode, encode, same
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import ColumnMapping, Default, Direction, TableMap, ValueMap
from dualwrite.mapping.writing import write_map

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
ODD = st.text(st.one_of(st.sampled_from(' #:,{}[]"-.\n019eE+null trfasmig'), CHARACTERS), max_size=10)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, ODD, st.sampled_from(["true", "missing", '"', "1.0", "-0", "null"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3), max_leaves=6
)
WORDS = st.sampled_from(
    ["ACCOUNT", "name", "Item #", "msdyn_company.cdm_companycode", "a.b.c", "c.Account(n).Contact(m)"]
)
NAMES = st.one_of(WORDS, st.text(CHARACTERS, min_size=1, max_size=8).filter(str.strip))
MORE = st.dictionaries(st.sampled_from(["$type", "order", "x", "lastModified", "@odata.etag"]), JSON, max_size=2)
DIRECTIONS = st.sampled_from([1, 2, 3, "1", "2", "3", "Bidirectional", "forward", 0, 7, None, "both ways", True])
DEFAULTS = st.fixed_dictionaries({"transformType": st.sampled_from(["Default", "default"]), "defaultValue": SCALARS})
VALUE_MAPS = st.fixed_dictionaries(
    {"transformType": st.just("ValueMap"), "valueMap": st.dictionaries(ODD, SCALARS, max_size=4)},
    optional={"defaultValue": SCALARS, "createValuesOnDestination": st.booleans()},
)
UNKNOWN = st.one_of(st.fixed_dictionaries({"transformType": st.sampled_from(["Truncate", None])}), SCALARS)


def with_more(strategy):
    """Objects with some unknown fields besides."""
    return st.builds(lambda more, known: {**more, **known} if isinstance(known, dict) else known, MORE, strategy)


TRANSFORMS = st.one_of(st.none(), st.lists(with_more(st.one_of(DEFAULTS, VALUE_MAPS, UNKNOWN)), max_size=3))
ENTRIES = with_more(
    st.fixed_dictionaries(
        {"syncDirection": DIRECTIONS, "sourceField": NAMES, "destinationField": NAMES},
        optional={
            "isSystemGenerated": st.booleans(),
            "destinationLookupFieldRelatedEntity": st.one_of(st.none(), ODD),
            "valueTransforms": TRANSFORMS,
        },
    )
)
CONSTANTS = st.builds(
    lambda entry, end, nothing: {**entry, end: nothing},
    ENTRIES,
    st.sampled_from(["sourceField", "destinationField"]),
    st.sampled_from([None, "", "none"]),
)
FILTERS = st.one_of(
    st.none(),
    st.sampled_from(
        ["", " ", '(A == "x")', "a eq 1", "a  eq 'x' and (b ne null)", "length(a) eq 3", "((A == E::V) || !(B != 1))"]
    ),
)
LEGS = with_more(
    st.fixed_dictionaries(
        {
            "sourceSchema": NAMES,
            "destinationSchema": NAMES,
            "fieldMappings": st.lists(st.one_of(ENTRIES, CONSTANTS), min_size=1, max_size=5),
        },
        optional={
            "id": ODD,
            "sourceEnvironmentType": st.sampled_from(["AX", "CRM"]),
            "destinationEnvironmentType": st.sampled_from(["AX", "CRM"]),
            "sourceFilter": FILTERS,
            "reversedSourceFilter": FILTERS,
            "deleteNonMatchingData": st.booleans(),
        },
    )
)
DOCUMENTS = with_more(
    st.fixed_dictionaries(
        {"legs": st.lists(LEGS, min_size=1, max_size=3)},
        optional={"name": SCALARS, "rightEnvironmentType": SCALARS},
    )
)
ROWS = with_more(
    st.fixed_dictionaries(
        {"msdyn_name": ODD},
        optional={
            "msdyn_displayname": SCALARS,
            "msdyn_version": st.sampled_from(["1.0.0.0", "2.0.3.10", "2.0", None]),
            "msdyn_properties": ODD | SCALARS.map(lambda author: json.dumps({"a": 1.50, "author": author})),
        },
    )
)


def read(rows: list[dict]) -> list[TableMap]:
    """The maps in rows; none where nothing can be read."""
    try:
        return read_export(json.dumps({"@odata.context": "x", "value": rows}), "export.json").maps
    except Invalid:
        return []


def stored(row: dict, document: dict) -> dict:
    """A row with its map as a text."""
    return {**row, "msdyn_mapping": json.dumps(document)}


def unpacked(rows: list[dict]) -> list[dict]:
    """Rows with their maps as objects."""
    return [{**row, "msdyn_mapping": json.loads(row["msdyn_mapping"])} for row in rows]


def through_a_file(table_map: TableMap) -> TableMap:
    """The map as its file gives it back."""
    return read_map(write_map(table_map), "map.yaml")


def without_lines(table_map: TableMap) -> TableMap:
    """The map as if it had come from no file."""
    columns = tuple(replace(mapping, line=0) for mapping in table_map.columns)
    return replace(table_map, columns=columns, lines={}, file="")


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_json_survives_in_a_map_file(value):
    """Numbers, words and texts that look like them come back as what they were."""
    assert same(decode(encode(value)), value)
    assert decode(encode(MISSING)) is MISSING


@given(ROWS, DOCUMENTS)
@settings(max_examples=50, deadline=None)
def test_an_export_comes_back_whole(row: dict, document: dict):
    """Import, map files, export: every field of every map that could be read is there as it was."""
    maps = read([stored(row, document)])
    for again in (maps, [through_a_file(each) for each in maps]):
        exported = unpacked(write_rows(again).rows)
        assert same(exported, [{**row, "msdyn_mapping": document}] if maps else [])


@given(ROWS, DOCUMENTS)
@settings(max_examples=50, deadline=None)
def test_import_after_export_is_the_identity(row: dict, document: dict):
    """A map that was exported is imported as the same one, and its file says the same."""
    maps = read([stored(row, document)])
    assert [without_lines(through_a_file(each)) for each in maps] == maps
    assert read(write_rows(maps).rows) == maps


EDITS = {
    "direction": lambda mapping: replace(
        mapping, direction=next(each for each in Direction if each is not mapping.direction)
    ),
    "right": lambda mapping: replace(mapping, right=("quite_other",)),
    "left": lambda mapping: replace(mapping, left=("QUITE_OTHER",)),
    "default": lambda mapping: replace(mapping, transforms=(*mapping.transforms, Default("quite other"))),
    "values": lambda mapping: replace(mapping, transforms=(ValueMap((("quite", "other"),)),)),
    "none": lambda mapping: replace(mapping, transforms=()),
}


@given(DOCUMENTS, st.data())
@settings(max_examples=50, deadline=None)
def test_an_edit_changes_its_own_mapping_alone(document: dict, data: st.DataObject):
    """What a person changes in one line differs in the export, in that field mapping and nowhere else."""
    maps = read([stored({"msdyn_name": "m"}, document)])
    if not maps:
        return
    number = data.draw(st.integers(0, len(maps) - 1))
    place = data.draw(st.integers(0, len(maps[number].columns) - 1))
    before = maps[number].columns[place]
    if before.left is None or before.right is None:
        return
    after = EDITS[data.draw(st.sampled_from(sorted(EDITS)))](before)
    columns = tuple(after if index == place else each for index, each in enumerate(maps[number].columns))
    edited = [replace(each, columns=columns) if index == number else each for index, each in enumerate(maps)]
    old, new = (unpacked(write_rows(each).rows)[0]["msdyn_mapping"] for each in (maps, edited))
    changed = list(differences(old, new))
    assert len(changed) == (after != before)
    assert all(says(read_entry(entry), after) for _, entry in changed)


def differences(old: dict, new: dict):
    """The field mappings that differ; everything else must be the same."""
    assert same({**old, "legs": []}, {**new, "legs": []})
    for before, after in zip(old["legs"], new["legs"], strict=True):
        if not isinstance(before, dict):
            assert same(before, after)
            continue
        assert same({**before, "fieldMappings": []}, {**after, "fieldMappings": []})
        flipped = before.get("sourceEnvironmentType") == "CRM" and before.get("destinationEnvironmentType") == "AX"
        for one, other in zip(before["fieldMappings"], after["fieldMappings"], strict=True):
            if not same(one, other):
                leg = deepcopy(after) | {"fieldMappings": [other]}
                yield flipped, leg


def read_entry(leg: dict) -> ColumnMapping:
    """The line for the only field mapping of a leg."""
    (table_map,) = read([stored({"msdyn_name": "m"}, {"legs": [leg]})])
    return table_map.columns[0]


def says(found: ColumnMapping, wanted: ColumnMapping) -> bool:
    """Do the lines say the same, whatever is kept beside them?"""
    return replace(found, extra={}) == replace(wanted, extra={})


FIELDS = """
    value msdyn_mapping legs fieldMappings sourceSchema destinationSchema syncDirection fno_entity dataverse_table
    fields
    sourceField destinationField valueTransforms transformType valueMap entityMappingTasks filters name
"""
LIKELY = st.sampled_from(FIELDS.split())
ANYTHING = st.recursive(
    st.one_of(SCALARS, st.sampled_from(["ValueMap", "3", '{"legs": [1]}', "AX"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LIKELY, inner, max_size=6),
    max_leaves=20,
)


def outcome(text: str) -> tuple[list[TableMap], Sequence[Problem]]:
    """The maps in a text, or why there are none."""
    try:
        return read_export(text, "export.json").maps, ()
    except Invalid as invalid:
        return [], invalid.problems


@given(st.one_of(ANYTHING.map(json.dumps), ODD, st.text()))
@settings(max_examples=100, deadline=None)
def test_any_text_is_an_export_or_invalid(text: str):
    """Bad input never ends in anything but problems that say something, and what is read can be written."""
    maps, problems = outcome(text)
    assert bool(maps) != bool(problems)
    assert all(each.message and each.remedy and each.file == "export.json" for each in problems)
    assert bool(write_rows([through_a_file(each) for each in maps]).rows) == bool(maps)


@given(DOCUMENTS, st.data())
@settings(max_examples=50, deadline=None)
def test_a_cut_export_is_invalid(document: dict, data: st.DataObject):
    """An export that ends too early is told with its line."""
    text = json.dumps(document, indent=1)
    _, problems = outcome(text[: data.draw(st.integers(0, len(text) - 1))])
    assert [each.code for each in problems] == ["json"]
    assert problems[0].line
