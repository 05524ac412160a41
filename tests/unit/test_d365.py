"""What a stored Dual-write map says, as a table map; and what is said of exports that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dualwrite.errors import Invalid, Problem
from dualwrite.expression import Column, Compare, Literal
from dualwrite.mapping.d365 import CODES, Imported, newest, read_export, write_rows
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import Default, Direction, TableMap, Unread, ValueMap
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side

GROUPS = {
    "name": "[Customer groups] - [msdyn_customergroups]",
    "leftEnvironmentType": "AX",
    "centerEnvironmentType": "CRM",
    "rightEnvironmentType": "UNDEFINED",
    "legs": [
        {
            "id": "001",
            "sourceSchema": "Customer groups",
            "sourceSchemaDistinctName": "CustCustomerGroupEntity",
            "sourceEnvironmentType": "AX",
            "destinationSchema": "msdyn_customergroups",
            "destinationEnvironmentType": "CRM",
            "sourceFilter": '(CUSTOMERGROUPID != "")',
            "reversedSourceFilter": "statecode eq 0",
            "isSourceFilterEditable": True,
            "fieldMappings": [
                {
                    "syncDirection": "3",
                    "sourceField": "CUSTOMERGROUPID",
                    "destinationField": "msdyn_groupid",
                    "isSystemGenerated": False,
                },
                {
                    "syncDirection": "3",
                    "sourceField": "PAYMENTTERMID",
                    "destinationField": "msdyn_paymentterm.msdyn_name",
                    "destinationLookupFieldRelatedEntity": "msdyn_paymentterms",
                    "isSystemGenerated": True,
                },
                {
                    "syncDirection": 1,
                    "sourceField": "STATUS",
                    "destinationField": "msdyn_status",
                    "isSystemGenerated": False,
                    "valueTransforms": [
                        {
                            "$type": "Microsoft.Dynamics.Integrator.ValueMap",
                            "transformType": "ValueMap",
                            "valueMap": {"open": "192350000", "0": None},
                            "defaultValue": None,
                            "createValuesOnDestination": False,
                        },
                        {"transformType": "Default", "defaultValue": "192350001"},
                    ],
                },
                {
                    "syncDirection": "1",
                    "sourceField": None,
                    "destinationField": "msdyn_kind",
                    "valueTransforms": [{"transformType": "Default", "defaultValue": "3"}],
                },
            ],
        }
    ],
}


def row(document: object, **fields: object) -> dict[str, object]:
    """A row of ``msdyn_dualwriteentitymap``."""
    stored = document if isinstance(document, str) else json.dumps(document)
    return {"@odata.etag": 'W/"1"', "msdyn_name": "a", **fields, "msdyn_mapping": stored}


def imported(value: object) -> Imported:
    """What is read from JSON."""
    return read_export(json.dumps(value), "export.json")


def problems(text: str) -> tuple[Problem, ...]:
    """Why nothing is read from a text."""
    with pytest.raises(Invalid) as caught:
        read_export(text, "export.json")
    return caught.value.problems


def leg(*entries: object, **fields: object) -> dict[str, object]:
    """A stored map with one leg."""
    return {"legs": [{"sourceSchema": "A", "destinationSchema": "b", "fieldMappings": list(entries), **fields}]}


ENTRY = {"syncDirection": 3, "sourceField": "X", "destinationField": "y"}


def test_a_stored_map_becomes_a_table_map():
    """Tables, directions, lookups, constants, transforms in order and both filters are read."""
    (found,) = imported(GROUPS).maps
    assert (found.name, found.left, found.right) == (
        "Customer groups (msdyn_customergroups)",
        "Customer groups",
        "msdyn_customergroups",
    )
    assert [(each.left, each.direction, each.right, each.transforms) for each in found.columns] == [
        (("CUSTOMERGROUPID",), Direction.BOTH, ("msdyn_groupid",), ()),
        (("PAYMENTTERMID",), Direction.BOTH, ("msdyn_paymentterm", "msdyn_name"), ()),
        (
            ("STATUS",),
            Direction.TO_RIGHT,
            ("msdyn_status",),
            (ValueMap((("open", "192350000"), ("0", None))), Default("192350001")),
        ),
        (None, Direction.TO_RIGHT, ("msdyn_kind",), (Default("3"),)),
    ]
    assert found.filters[Side.RIGHT] == Compare("eq", Column(("statecode",)), Literal("0"))


def test_what_a_line_cannot_say_stands_beside_it():
    """The map file shows it as ``x-d365``; what is as usual is not repeated."""
    (found,) = imported(GROUPS).maps
    text = write_map(found)
    assert "- CUSTOMERGROUPID =  msdyn_groupid\n" in text
    assert "x-d365: {destinationLookupFieldRelatedEntity: {msdyn_paymentterm: msdyn_paymentterms}}" in text
    assert "sourceSchemaDistinctName: CustCustomerGroupEntity" in text
    assert "createValuesOnDestination: false" in text
    assert read_map(text, "").columns[2].extra == found.columns[2].extra


@pytest.mark.parametrize(
    "wrap",
    [
        lambda document: document,
        lambda document: [document],
        lambda document: row(document),
        lambda document: [row(document)],
        lambda document: {"@odata.context": "x", "value": [row(document)]},
        lambda document: {"name": "DWM-1", "environments": [], "entityMappingTasks": [{"order": 1, **document}]},
    ],
    ids=["map", "maps", "row", "rows", "page", "project"],
)
def test_every_wrapping_is_understood(wrap):
    """A stored map, rows with it, a page of rows, and the service's copy of a project."""
    (found,) = imported(wrap(GROUPS)).maps
    assert found.columns == imported(GROUPS).maps[0].columns


def test_rows_come_back_as_they_were():
    """What the Web API returned is written back, annotations included."""
    rows = [row(GROUPS, msdyn_version="2.0.0.1", solutionid=None, statecode=0)]
    found = imported({"value": rows})
    assert found.maps[0].version == "2.0.0.1"
    (written,) = write_rows(found.maps).rows
    assert json.loads(written.pop("msdyn_mapping")) == GROUPS
    assert written == {name: value for name, value in rows[0].items() if name != "msdyn_mapping"}


def test_the_publisher_travels_in_the_properties_of_the_row():
    """Whose map it is goes out beside what the row's properties say, comes back, and follows an edit."""
    (found,) = imported([row(GROUPS, msdyn_properties='{"sealed": true}')]).maps
    assert found.publisher == ""
    (written,) = write_rows([replace(found, publisher="Contoso")]).rows
    assert json.loads(written["msdyn_properties"]) == {"sealed": True, "author": "Contoso"}
    (again,) = imported([written]).maps
    assert again.publisher == "Contoso"
    assert write_rows([again]).rows == [written]
    (anonymous,) = write_rows([replace(again, publisher="")]).rows
    assert json.loads(anonymous["msdyn_properties"]) == {"sealed": True}


def test_a_publisher_without_a_place_is_told():
    """Properties that are no object of JSON stay as they are, and the publisher is told to be lost."""
    (found,) = imported([row(GROUPS, msdyn_properties="[1]")]).maps
    exported = write_rows([replace(found, publisher="Contoso")])
    assert exported.rows[0]["msdyn_properties"] == "[1]"
    assert [each.message for each in exported.problems] == ["the publisher 'Contoso' has no place in msdyn_properties"]


def test_a_leg_from_right_to_left_is_turned():
    """Where the source is the right-hand system, directions and value maps are read the other way round."""
    document = leg(
        {"syncDirection": 1, "sourceField": "state", "destinationField": "STATE",
         "valueTransforms": [{"transformType": "ValueMap", "valueMap": {"0": "open"}}]},
        sourceSchema="accounts", destinationSchema="CustomersV3",
        sourceEnvironmentType="CRM", destinationEnvironmentType="AX", sourceFilter="state eq 0",
    )  # fmt: skip
    (found,) = imported(document).maps
    assert (found.left, found.right) == ("CustomersV3", "accounts")
    assert [(each.left, each.direction, each.right) for each in found.columns] == [
        (("STATE",), Direction.TO_LEFT, ("state",))
    ]
    assert found.columns[0].transforms == (ValueMap((("open", "0"),)),)
    assert set(found.filters) == {Side.RIGHT}


def test_several_legs_are_maps_of_one_stored_map():
    """Each leg is a map of its own; written, they are together again, even when a leg in between is unreadable."""
    one, two = leg(ENTRY)["legs"][0], {**leg(ENTRY)["legs"][0], "id": "002", "destinationSchema": "c"}
    document = {"name": "both", "legs": [one, {"sourceSchema": 3}, two]}
    found = imported([row(document)])
    assert [each.name for each in found.maps] == ["A (b)", "A (c) leg 2"]
    assert [each.code for each in found.problems] == ["bad_export"]
    (written,) = write_rows(found.maps).rows
    assert json.loads(written["msdyn_mapping"]) == document


def test_a_renamed_head_leaves_its_legs_to_themselves():
    """A leg whose stored map is not among those that are written becomes one of its own."""
    one, two = leg(ENTRY)["legs"][0], {**leg(ENTRY)["legs"][0], "destinationSchema": "c"}
    found = imported([row({"legs": [one, two]})])
    assert len(write_rows(found.maps).rows) == 1
    assert len(write_rows(found.maps[1:]).rows) == 1


def test_the_newest_version_of_a_map_is_taken():
    """By its four numbers, with all its legs; the others are told."""
    two_legs = {"legs": [leg(ENTRY)["legs"][0], {**leg(ENTRY)["legs"][0], "destinationSchema": "c"}]}
    rows = [
        row(two_legs, msdyn_version="1.0.0.9"),
        row(leg(ENTRY), msdyn_version="1.0.0.10"),
        row(leg(ENTRY, destinationSchema="d"), msdyn_version="1.0.0.1"),
        row(leg(ENTRY), msdyn_version="1.0.0.10"),
    ]
    chosen, others = newest(imported(rows).maps)
    assert [(each.name, each.version) for each in chosen] == [("A (b)", "1.0.0.10"), ("A (d)", "1.0.0.1")]
    assert len(others) == 3


def test_a_filter_that_cannot_be_read_is_kept():
    """Word for word, in the map file too; the export has it unchanged."""
    text = "length(name) eq 3"
    (found,) = imported(leg(ENTRY, reversedSourceFilter=text)).maps
    assert found.unread == {Side.RIGHT: Unread("odata", text)}
    again = read_map(write_map(found), "")
    (written,) = write_rows([again]).rows
    assert json.loads(written["msdyn_mapping"])["legs"][0]["reversedSourceFilter"] == text


def test_what_dual_write_cannot_say_is_told():
    """Options and policies of ours have no place in an export, and are named with their line."""
    text = (
        "map: m\nleft: A\nright: b\ndeletes: false\ncolumns:\n  - X = y: {truncate: true, conflict: max}\n"
        "  - Z >< w: {values: {a: 1, null: 2}, else: keep}\n"
    )
    exported = write_rows([read_map(text, "m.yaml")])
    assert [(each.code, each.line) for each in exported.problems] == [
        ("not_in_dual_write", 6),
        ("not_in_dual_write", 6),
        ("not_in_dual_write", 7),
        ("not_in_dual_write", 7),
        ("not_in_dual_write", 0),
    ]
    assert "truncate has no counterpart there" in exported.problems[0].message


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("X >> y: {upper: true}", "upper"),
        ("X >> y: {trim: true}", "trim"),
        ("none >> y: {expr: X}", "expr"),
        ("X >< y: {values: {a: b}, reverse: {b: a}}", "reverse:"),
    ],
)
def test_transforms_that_dual_write_does_not_have_are_told(line: str, option: str):
    """Each is named by the option that people write."""
    exported = write_rows([read_map(f"map: m\nleft: A\nright: b\ncolumns:\n  - {line}\n", "m.yaml")])
    assert [each.message for each in exported.problems if f"{option} has no counterpart there" in each.message]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "json", "this is not JSON"),
        ('{"legs": [', "json", "this is not JSON"),
        ("\ufeff{}", "json", "this is not JSON"),
        ('{"a": 1, "a": 2}', "json", "'a' stands twice in one object"),
        ('{"a": NaN}', "json", "NaN is not a number"),
        ('{"a": 1e999}', "json", "is too large"),
        ('{"a": ' + "9" * 5000 + "}", "json", "too many digits"),
        ('{"a": "\\u0000"}', "json", "no system can store"),
        ('{"a": "\\ud800"}', "json", "no system can store"),
        ("[" * 50 + "]" * 50, "json", "nested deeper"),
        ("[" * 100_000, "json", ""),
        ("[]", "no_maps_in_export", "there is no Dual-write map in it"),
        ('{"value": []}', "no_maps_in_export", "there is no Dual-write map in it"),
        ("3", "bad_export", "an object was expected, not 3"),
        ('["legs"]', "bad_export", '[0]: an object was expected, not "legs"'),
        ('{"error": {"code": "x"}}', "no_maps_in_export", "an object with error is no Dual-write map"),
        ('{"legs": {}}', "bad_export", "legs: a list of legs was expected"),
        ('{"legs": [3]}', "bad_export", "legs[0]: an object was expected, not 3"),
        (json.dumps(leg()), "bad_export", "legs[0]: fieldMappings must be a list that is not empty"),
        (json.dumps(leg(ENTRY, sourceSchema="")), "bad_export", "legs[0]: it has no sourceSchema"),
        (json.dumps(leg(ENTRY, sourceFilter=[1])), "bad_export", "sourceFilter is [1], which is no text"),
        (json.dumps([row("")]), "bad_export", "select msdyn_mapping in the query"),
        (json.dumps({"value": [row("{")]}), "bad_export", "value[0].msdyn_mapping: the row 'a': this is not JSON"),
        (json.dumps([row([])]), "bad_export", "the row 'a' holds no legs"),
        ('{"fno_entity": "A", "dataverse_table": "b", "fields": []}', "bad_export", "fields must be a list"),
        ('{"fno_entity": 1, "dataverse_table": "b", "fields": [1]}', "bad_export", "fno_entity must be a text"),
    ],
)
def test_what_is_no_export(text: str, code: str, message: str):
    """Each is told with its place and what to do."""
    found = problems(text)
    assert found[0].code == code
    assert message in found[0].message
    assert found[0].remedy
    assert found[0].file == "export.json"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("x", "it is not an object"),
        ({**ENTRY, "syncDirection": 4}, "syncDirection 4 is none of 1, 2 and 3"),
        ({"sourceField": "X", "destinationField": "y"}, "it has no syncDirection"),
        ({"syncDirection": 3}, "neither a sourceField nor a destinationField"),
        ({"syncDirection": 2, "destinationField": "y"}, "leads to a side where it has no field"),
        ({"syncDirection": 1, "destinationField": "y"}, "no Default transform"),
        ({**ENTRY, "sourceField": 3}, "a field is called 3"),
        ({**ENTRY, "destinationField": "a..b"}, "'a..b' is not a path"),
        ({**ENTRY, "valueTransforms": {"a": 1}}, "valueTransforms is not a list"),
    ],
)
def test_a_field_mapping_that_cannot_be_read(entry: object, message: str):
    """It is told with its place, kept in the map, and written back where it stood."""
    document = leg(ENTRY, entry, {**ENTRY, "sourceField": "Z", "destinationField": "z"})
    found = imported(document)
    assert [each.code for each in found.problems] == ["bad_field_mapping"]
    assert message in found.problems[0].message
    assert found.problems[0].message.startswith("legs[0].fieldMappings[1]: ")
    again = read_map(write_map(found.maps[0]), "")
    assert json.loads(write_rows([again]).rows[0]["msdyn_mapping"])["legs"][0]["fieldMappings"][1] == entry


def test_what_is_kept_and_not_done_is_told():
    """Transforms of unknown kinds are errors; flags without a meaning here, and further pages, are warnings."""
    entry = {**ENTRY, "valueTransforms": [{"transformType": "Truncate"},
             {"transformType": "ValueMap", "valueMap": {"a": "b"}, "createValuesOnDestination": True}]}  # fmt: skip
    page = {"value": [row(leg(entry, deleteNonMatchingData=True))], "@odata.nextLink": "https://…"}
    found = imported(page)
    assert [(each.code, each.level) for each in found.problems] == [
        ("more_pages", "warning"),
        ("unread_transform", "error"),
        ("not_done", "warning"),
        ("not_done", "warning"),
    ]
    assert json.loads(write_rows(found.maps).rows[0]["msdyn_mapping"]) == leg(entry, deleteNonMatchingData=True)


def test_many_problems_are_counted():
    """The first hundred are told one by one."""
    found = imported(leg(ENTRY, *[{}] * 300))
    assert len(found.problems) == 101
    assert "200 more" in found.problems[-1].message


def test_every_code_has_its_meaning_and_remedy():
    """And each is one that can be given."""
    assert all(meaning and remedy for meaning, remedy in CODES.values())


def test_a_map_of_ours_can_be_exported():
    """One that never came from Dual-write is written in the shape that Dual-write has."""
    table_map = TableMap("m", "A", "b", imported(leg(ENTRY)).maps[0].columns)
    (written,) = write_rows([table_map]).rows
    assert read_export(json.dumps(written), "").maps[0].columns == table_map.columns
