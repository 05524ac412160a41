"""Maps come in from Dual-write and the library, and go out again, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ENTRY = {"syncDirection": "3", "sourceField": "CUSTOMERACCOUNT", "destinationField": "accountnumber"}
NAME = {"syncDirection": "1", "sourceField": "NAME", "destinationField": "name", "isSystemGenerated": False}


def page(*versions: str, **leg: object) -> dict:
    """A page of rows, a version of the same map each."""
    document = {
        "name": "customers",
        "legs": [
            {"sourceSchema": "Customers V3", "destinationSchema": "accounts", "fieldMappings": [ENTRY, NAME], **leg}
        ],
    }
    rows = [
        {
            "@odata.etag": "W/1",
            "msdyn_name": "x_customers",
            "msdyn_version": version,
            "msdyn_mapping": json.dumps(document),
        }
        for version in versions
    ]
    return {"@odata.context": "https://…", "value": rows}


def saved(folder: Path, value: object, name: str = "export.json") -> str:
    """A file with JSON."""
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return name


def test_rows_are_imported_shown_and_exported(shop):
    """The newest version becomes a map file; the export gives its row back."""
    value = page("1.0.0.1", "1.0.0.2")
    made = shop.call("maps", "import", saved(shop.folder, value))
    assert made.code == 0
    assert "wrote maps/customers-v3-accounts.yaml" in made.out
    assert "version 1.0.0.1 of Customers V3 (accounts) is left out" in made.err
    shown = shop.call("maps", "show", "customers v3 (accounts)")
    assert "CUSTOMERACCOUNT = accountnumber" in shown.out
    assert "x-d365" not in shown.out
    assert shop.call("maps", "show", "Customers V3 (accounts)", "--json").json()["key"] is None
    exported = shop.call("maps", "export", "Customers V3 (accounts)").json()["value"]
    assert [{**row, "msdyn_mapping": json.loads(row["msdyn_mapping"])} for row in exported] == [
        {**value["value"][1], "msdyn_mapping": json.loads(value["value"][1]["msdyn_mapping"])}
    ]
    bare = shop.call("maps", "export", "Customers V3 (accounts)", "--bare", "--output", "bare.json")
    assert "wrote bare.json" in bare.out
    assert json.loads((shop.folder / "bare.json").read_text())["legs"][0]["fieldMappings"] == [ENTRY, NAME]


def test_a_map_is_replaced_only_when_that_is_said(shop):
    """It keeps what an export does not know."""
    file = saved(shop.folder, page("1.0.0.1"))
    shop.call("maps", "import", file, "--keys", saved(shop.folder, {"account": ["accountnumber"]}, "keys.json"))
    refused = shop.call("maps", "import", file)
    assert refused.code == 2
    assert "there is a map 'Customers V3 (accounts)' already" in refused.err
    place = shop.folder / "maps" / "customers-v3-accounts.yaml"
    place.write_text(place.read_text().replace("columns:", "rows: delete\ncolumns:"))
    assert shop.call("maps", "import", saved(shop.folder, page("1.0.0.2")), "--replace").code == 0
    text = place.read_text()
    assert all(line in text for line in ("version: 1.0.0.2", "key: [accountnumber]", "rows: delete"))


def test_keys_make_a_map_company_specific(shop):
    """The connection set tells the key, and which member of it is the company."""
    key = {"isIntegrationKey": True, "fields": ["accountnumber", "msdyn_company.cdm_companycode"]}
    schema = {"name": "account", "primaryCompanyContextField": "msdyn_company.cdm_companycode", "keys": [{}, key]}
    environments = {"crm": {"targetType": "CRM", "schemas": [schema]}, "fo": {"targetType": "AX", "schemas": [schema]}}
    keys = saved(shop.folder, {"name": "set", "environments": environments}, "keys.json")
    shop.call("maps", "import", saved(shop.folder, page("1.0.0.1")), "--keys", keys)
    text = (shop.folder / "maps" / "customers-v3-accounts.yaml").read_text()
    assert "company: DATAAREAID = msdyn_company.cdm_companycode" in text
    assert "key: [accountnumber]" in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "an object was expected"),
        ({}, "there is no integration key in it"),
        ({"account": "a"}, "a key is a list of columns"),
        ({"account": [3]}, "a field is called 3"),
        ({"account": ["a"], "accounts": ["b"]}, "has two different keys"),
        (
            {"environments": {"crm": {"schemas": [{"name": "account", "keys": [{"isIntegrationKey": True}]}]}}},
            "is a list",
        ),
    ],
)
def test_keys_that_are_none(shop, keys, message):
    """They are told, and nothing is imported."""
    file = saved(shop.folder, page("1.0.0.1"))
    refused = shop.call("maps", "import", file, "--keys", saved(shop.folder, keys, "keys.json"))
    assert refused.code == 1
    assert message in refused.err
    assert not (shop.folder / "maps" / "customers-v3-accounts.yaml").exists()


def test_a_published_map_is_added_once(shop):
    """It is copied as it ships; a map that is there stays as it is."""
    listed = shop.call("maps", "library", "list", "--json").json()["maps"]
    assert len(listed) >= 100
    added = shop.call("maps", "library", "add", "customers v3 (accounts)")
    assert added.code == 0
    place = shop.folder / "maps" / "customers-v3-accounts.yaml"
    assert "# Published by Microsoft" in place.read_text()
    place.write_text(place.read_text() + "x-mine: 1\n")
    refused = shop.call("maps", "library", "add", "Customers V3 (accounts)", "Vendors V2 (msdyn_vendors)")
    assert refused.code == 2
    assert "already" in refused.err
    assert "x-mine" in place.read_text()
    assert not list(shop.folder.glob("maps/vendors*"))
    assert "did you mean 'Vendors V2 (msdyn_vendors)'?" in shop.call("maps", "library", "add", "vendors v2").err


def test_an_export_is_checked_by_itself(terminal):
    """No project, no systems: what contradicts itself is told, with Dual-write's numbers."""
    twice = [ENTRY, {**ENTRY, "destinationField": "number"}, {**NAME, "destinationField": "number"}]
    broken = {**NAME, "syncDirection": 9}
    value = page("1.0.0.1", fieldMappings=[*twice, broken], reversedSourceFilter="(name eq 'x'")
    checked = terminal.call("check", saved(terminal.folder, value))
    assert checked.code == 1
    for code in (
        "source_twice (DIPV1023)", "duplicate_target (DIPV1026, DIPV1029)", "bad_field_mapping (DIPV1021, DIPV1024)",
        "unread_filter (DIPV1012)", "key_unknown (DIPV1003)",
    ):  # fmt: skip
        assert f"[{code}]" in checked.out
    assert "line 0" not in checked.out  # an export has no lines
    assert " the line for " in checked.out
    lost = terminal.call("check", "nowhere.json")
    assert lost.code == 1
    assert "there is no such file [unreadable]" in lost.out


def test_an_export_is_checked_against_its_keys(terminal):
    """With the integration keys it is known what must be mapped, of the table and of those behind its lookups."""
    lookup = {"syncDirection": 3, "sourceField": "TERM", "destinationField": "msdyn_term.msdyn_code",
              "destinationLookupFieldRelatedEntity": "msdyn_terms"}  # fmt: skip
    file = saved(terminal.folder, page("1.0.0.1", fieldMappings=[NAME, lookup]))
    keys = {"accounts": ["accountnumber"], "msdyn_term": ["msdyn_name"]}
    checked = terminal.call("check", file, "--keys", saved(terminal.folder, keys, "keys.json"), "--json")
    assert {each["code"] for each in checked.json()["problems"]} >= {"key_unmapped", "lookup_key_unmapped"}
    clean = {"accounts": ["name"], "msdyn_term": ["msdyn_code"]}
    checked = terminal.call("check", file, "--keys", saved(terminal.folder, clean, "keys.json"), "--json")
    assert [each["code"] for each in checked.json()["problems"]] == ["key_one_way"]
    assert terminal.call("check", "--keys", "keys.json").code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "export.json:1: error json: this is not JSON"),
        ('{"a": 1}', "is no Dual-write map"),
        ('{"value": [{"msdyn_name": "m", "msdyn_mapping": "nope"}]}', "value[0].msdyn_mapping: the row 'm'"),
        ("[" + ",".join(["1"] * 4_000_000) + "]", "and 3999900 more of the kind"),
        (
            json.dumps({"legs": [{"sourceSchema": "A", "destinationSchema": "b", "fieldMappings": [{}] * 1_000_000}]}),
            "more",
        ),
        (json.dumps({"a": "x" * 8_000_000}), "is no Dual-write map"),
    ],
    ids=["cut", "other", "nested", "many numbers", "many mappings", "a long text"],
)
def test_bad_exports(shop, text, message):
    """Eight megabytes of anything, and JSON of the wrong kind: one clear message, and no map."""
    refused = shop.call("maps", "import", saved(shop.folder, text))
    assert refused.code == 1
    assert message in refused.err
    assert [file.name for file in (shop.folder / "maps").iterdir()] == ["customers.yaml"]
