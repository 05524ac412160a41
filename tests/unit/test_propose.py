"""Proposed maps: which tables and columns match, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualwrite.mapping import pairing as module
from dualwrite.mapping.check import check_maps
from dualwrite.mapping.propose import Proposal, propose
from dualwrite.mapping.tablemap import ColumnMapping, Company, Direction, ValueMap
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

TEXT, INTEGER, DATE = ColumnType(TypeName.TEXT), ColumnType(TypeName.INTEGER), ColumnType(TypeName.DATE)


def table(name, columns, primary_key=(), uniques=(), references=(), company=None):
    """A table of columns given as names (text) or (name, type)."""
    made = tuple(Column(each, TEXT) if isinstance(each, str) else Column(*each) for each in columns)
    return Table(name, made, primary_key, uniques or ((primary_key,) if primary_key else ()), references, (), company)


def schema(*tables):
    """A schema of these tables."""
    return Schema({each.name: each for each in tables})


def lines(proposal: Proposal, name: str) -> list[str]:
    """The columns of one proposed map, as text."""
    found = next(each for each in proposal.maps if each.name == name)
    signs = {Direction.BOTH: "=", Direction.TO_RIGHT: ">", Direction.TO_LEFT: "<"}

    def line(mapping: ColumnMapping) -> str:
        return f"{'.'.join(mapping.left or ())} {signs[mapping.direction]} {'.'.join(mapping.right or ())}"

    return [line(mapping) for mapping in found.columns]


def test_tables_and_columns_match_by_their_letters():
    """Case, underscores, plural s and a prefix do not count; the right-hand key is named."""
    left = schema(table("PaymentTerms", ["PAYMENT_TERM_CODE", "DESCRIPTION"], ("PAYMENT_TERM_CODE",)))
    right = schema(table("msdyn_paymentterm", ["msdyn_paymenttermcode", "description"], ("msdyn_paymenttermcode",)))
    proposal = propose(left, right)
    assert lines(proposal, "PaymentTerms (msdyn_paymentterm)") == [
        "PAYMENT_TERM_CODE = msdyn_paymenttermcode",
        "DESCRIPTION = description",
    ]
    assert proposal.maps[0].key == (("msdyn_paymenttermcode",),)
    assert proposal.skipped == ()


def test_the_key_is_a_unique_column_rather_than_an_id():
    """A generated id says nothing to the other side: neither the key nor a column line uses it."""
    columns = [("id", INTEGER), "code", "name"]
    side = schema(table("units", columns, ("id",), (("id",), ("code",))))
    proposal = propose(side, side)
    assert proposal.maps[0].key == (("code",),)
    assert lines(proposal, "units") == ["code = code", "name = name"]


def test_an_id_is_the_key_where_there_is_nothing_else():
    """Two systems that share their ids are matched by them, and so are references between such tables."""
    parent = table("groups", [("id", INTEGER), "name"], ("id",))
    reference = Reference("group", ("group_id",), "groups", ("id",))
    child = table("items", [("id", INTEGER), ("group_id", INTEGER)], ("id",), references=(reference,))
    proposal = propose(schema(parent, child), schema(parent, child))
    assert lines(proposal, "items") == ["id = id", "group_id = group_id"]


def test_an_id_of_another_record_is_left_out_where_that_record_has_another_key():
    """A raw id is never carried between systems that make their own ids."""
    parent = table("groups", [("id", INTEGER), "code"], ("id",), (("id",), ("code",)))
    plain = table("items", ["number", ("group_id", INTEGER)], ("number",))
    child = replace(plain, references=(Reference("group", ("group_id",), "groups", ("id",)),))
    proposal = propose(schema(parent, child), schema(parent, plain))
    assert lines(proposal, "items") == ["number = number"]


def test_a_reference_becomes_a_lookup_on_both_sides():
    """Ids of records with a natural key on both sides are carried as that key."""
    parent = table("groups", [("id", INTEGER), "code"], ("id",), (("id",), ("code",)))
    reference = Reference("group", ("group_id",), "groups", ("id",))
    child = table("items", ["number", ("group_id", INTEGER)], ("number",), references=(reference,))
    proposal = propose(schema(parent, child), schema(parent, child))
    assert lines(proposal, "items") == ["number = number", "group.code = group.code"]


def test_a_plain_code_matches_a_lookup_of_that_name():
    """A code on one side and an id on the other: the lookup's natural key carries the code."""
    term = table("terms", [("id", INTEGER), "name"], ("id",), (("id",), ("name",)))
    reference = Reference("paymentterm", ("payment_term_id",), "terms", ("id",))
    right = table("customers", ["number", ("payment_term_id", INTEGER)], ("number",), references=(reference,))
    left = table("Customer", ["NUMBER", "PAYMENTTERM"], ("NUMBER",))
    proposal = propose(schema(left), schema(term, right))
    assert lines(proposal, "Customer (customers)") == ["NUMBER = number", "PAYMENTTERM = paymentterm.name"]


def test_a_lookup_of_which_only_a_part_matches_is_left_out():
    """Half a key finds no record."""
    unit = table("sites", [("id", INTEGER), "site", "building"], ("id",), (("id",), ("site", "building")))
    reference = Reference("place", ("place_id",), "sites", ("id",))
    right = table("assets", ["number", ("place_id", INTEGER)], ("number",), references=(reference,))
    left = table("assets", ["number", "place_site"], ("number",))
    assert lines(propose(schema(left), schema(unit, right)), "assets") == ["number = number"]


def test_the_company_is_a_line_of_its_own():
    """Company paths pair by declaration and disappear from key, columns and lookups."""
    company = table("cdm_company", [("id", INTEGER), "code"], ("id",), (("id",), ("code",)))
    to_company = Reference("company", ("company_id",), "cdm_company", ("id",))
    group = table(
        "customergroups",
        [("id", INTEGER), "groupid", ("company_id", INTEGER)],
        ("id",),
        (("id",), ("groupid", "company_id")),
        (to_company,),
        ("company", "code"),
    )
    account = table(
        "customers",
        [("id", INTEGER), "account", ("company_id", INTEGER), ("customergroup_id", INTEGER)],
        ("id",),
        (("id",), ("account", "company_id")),
        (to_company, Reference("customergroup", ("customergroup_id",), "customergroups", ("id",))),
        ("company", "code"),
    )
    left = table(
        "Customers",
        ["ACCOUNT", "DATAAREAID", "CUSTOMERGROUP"],
        ("ACCOUNT", "DATAAREAID"),
        company=("DATAAREAID",),
    )
    proposal = propose(schema(left), schema(company, group, account))
    found = proposal.maps[0]
    assert found.company == Company(("DATAAREAID",), ("company", "code"))
    assert found.key == (("account",),)
    assert lines(proposal, found.name) == ["ACCOUNT = account", "CUSTOMERGROUP = customergroup.groupid"]


def test_read_only_columns_flow_one_way():
    """Nothing is written where nothing can be written."""
    left = table("items", ["number", "a", "b", "c"], ("number",))
    right = table("items", ["number", "a", "b", "c"], ("number",))
    lock = {"left": ("a", "c"), "right": ("b", "c")}
    left = replace(left, columns=tuple(replace(each, read_only=each.name in lock["left"]) for each in left.columns))
    right = replace(right, columns=tuple(replace(each, read_only=each.name in lock["right"]) for each in right.columns))
    assert lines(propose(schema(left), schema(right)), "items") == ["number = number", "a > a", "b < b"]


def test_what_is_left_out_is_said():
    """Tables without counterpart or key and columns of unlike types each get a sentence."""
    left = schema(
        table("only_left", ["a"], ("a",)),
        table("keyless", ["a"]),
        table("typed", ["a", ("b", DATE)], ("a",)),
    )
    right = schema(
        table("only_right", ["a"], ("a",)),
        table("keyless", ["a"]),
        table("typed", ["a", ("b", INTEGER)], ("a",)),
    )
    proposal = propose(left, right)
    assert [each.name for each in proposal.maps] == ["typed"]
    assert proposal.skipped == (
        "only_left on the left has no table of that name on the right.",
        "only_right on the right has no table of that name on the left.",
        "keyless and keyless have no key in common: declare one, or write the map by hand.",
        "typed and typed differ in b and b: date and integer.",
    )


def test_two_readings_are_never_guessed():
    """A name that could mean two tables is reported, one that matches exactly is not."""
    left = schema(table("crm_units", ["a"], ("a",)), table("unit", ["a"], ("a",)), table("Item", ["a"], ("a",)))
    right = schema(table("units", ["a"], ("a",)), table("items", ["a"], ("a",)), table("ITEMS", ["a"], ("a",)))
    proposal = propose(left, right)
    assert [each.name for each in proposal.maps] == ["unit (units)"]
    assert proposal.skipped == (
        "crm_units on the left could be units, and so could unit.",
        "Item on the left could be any of items, ITEMS.",
    )


def test_include_narrows_by_pattern_on_either_side():
    """Patterns speak of names on both sides; what they leave out is not reported."""
    left = schema(table("Customers", ["a"], ("a",)), table("Vendors", ["a"], ("a",)), table("Lonely", ["a"], ("a",)))
    right = schema(table("customer", ["a"], ("a",)), table("crm_vendor", ["a"], ("a",)))
    assert [each.left for each in propose(left, right, ["cust*"]).maps] == ["Customers"]
    narrowed = propose(left, right, ["crm_*"])
    assert [each.left for each in narrowed.maps] == ["Vendors"]
    assert narrowed.skipped == ()


def test_proposals_are_valid_maps():
    """A table that refers to itself and to another one: the proposed maps have no errors."""
    group = table("groups", [("id", INTEGER), "code"], ("id",), (("id",), ("code",)))
    references = (
        Reference("group", ("group_id",), "groups", ("id",)),
        Reference("boss", ("boss_id",), "people", ("id",)),
    )
    columns = [("id", INTEGER), "number", ("group_id", INTEGER), ("boss_id", INTEGER)]
    people = table("people", columns, ("id",), (("id",), ("number",)), references)
    side = schema(group, people)
    proposal = propose(side, side)
    assert lines(proposal, "people") == ["number = number", "group.code = group.code", "boss.number = boss.number"]
    assert [str(each) for each in check_maps(proposal.maps, side, side)] == []


def test_many_tables_are_matched_by_their_spellings(monkeypatch):
    """Twice the tables take twice the work: no table is compared with all others."""
    spelled, forms = [], module.forms
    monkeypatch.setattr(module, "forms", lambda name: spelled.append(name) or forms(name))
    work = []
    for count in (50, 100):
        many = schema(*(table(f"orders_{number}", ["code", "name"], ("code",)) for number in range(count)))
        assert len(propose(many, many).maps) == count
        work.append(len(spelled))
        spelled.clear()
    assert work[1] <= 2.1 * work[0]


# ------------------------------------------------------------------------------------------------------ confidence


def remarks(proposal: Proposal, name: str) -> list[str]:
    """Column, confidence and reason of each line of a proposed map."""
    found = next(each for each in proposal.maps if each.name == name)
    ends = [(".".join(line.left or ()), ".".join(line.right or ())) for line in found.columns]
    return [f"{a} {b} {remark}" for (a, b), remark in zip(ends, proposal.remarks[name], strict=True)]


def reading(**rows):
    """Rows for tables of either side: ``left_NAME`` or ``right_NAME``."""
    return lambda side, table: rows.get(f"{side}_{table.name}", [])


def test_names_that_share_their_letters_match():
    """The nearest name is taken, with how sure that is; one with a rival that is as near is not."""
    left = table("items", ["number", "SALESCURRENCYCODE", "Deliverymode", "ADDRESS"], ("number",))
    right = table("items", ["number", "currencycode", "msdyn_deliverymodeid", "address1", "address2"], ("number",))
    proposal = propose(schema(left), schema(right))
    assert lines(proposal, "items") == [
        "number = number",
        "SALESCURRENCYCODE = currencycode",
        "Deliverymode = msdyn_deliverymodeid",
    ]
    assert [remark.confidence for remark in proposal.remarks["items"]] == ["sure", "unsure", "likely"]
    assert proposal.skipped == ("items and items could pair ADDRESS with address1 or address2: say which.",)


def test_records_on_both_sides_settle_what_names_leave_open():
    """Of columns with names as near, or of other names, those match that hold the same in the same records."""
    left = table("items", ["number", "address", "remark", "size"], ("number",))
    right = table("items", ["number", "address1", "address2", "note", "colour"], ("number",))
    mine = [(f"I{n}", f"a{n}", f"r{n}", f"s{n}") for n in range(30)]
    theirs = [(f"i{n} ", f"x{n}", f"A{n}", f"r{n}", f"c{n}") for n in range(10, 40)]
    proposal = propose(schema(left), schema(right), read=reading(left_items=mine, right_items=theirs))
    assert remarks(proposal, "items") == [
        "number number sure: same name, 67% of the values are the same",
        "address address2 sure: names alike by 66%, 20 of 20 records agree",
        "remark note likely: other name, 20 of 20 records agree",
    ]
    assert proposal.skipped == ()


def test_names_alike_are_doubted_where_the_records_differ():
    """A column that holds something else in the same records is no counterpart, however alike the names are."""
    side = table("items", ["number", "sales_price", "salesprices"], ("number",))
    other = table("items", ["number", "salesprice_x"], ("number",))
    mine = [(f"{n}", f"{n}.50", f"{n * 7}") for n in range(20)]
    theirs = [(f"{n}", f"{n * 3}") for n in range(20)]
    proposal = propose(schema(side), schema(other), read=reading(left_items=mine, right_items=theirs))
    assert lines(proposal, "items") == ["number = number"]


@pytest.mark.parametrize(
    ("theirs", "lefts", "rights", "pairs", "why"),
    [
        (Column("state", INTEGER), ["open", "held"], ["0", "1"], [("held", "1"), ("open", "0")], "20 of 20 records"),
        (
            Column("state", ColumnType(TypeName.BOOLEAN)),
            ["no", "yes"],
            ["f", "t"],
            [("no", "false"), ("yes", "true")],
            "",
        ),
    ],
)
def test_codes_get_a_value_map_from_the_same_records(theirs, lefts, rights, pairs, why):
    """Each code has the counterpart that stands beside it in the same records."""
    left = schema(table("items", ["number", "status"], ("number",)))
    right = schema(Table("items", (Column("number", TEXT), theirs), ("number",), (("number",),)))
    mine = [(str(n), lefts[n % 2]) for n in range(20)]
    others = [(str(n), rights[n % 2]) for n in range(20)]
    proposal = propose(left, right, read=reading(left_items=mine, right_items=others))
    (line,) = (each for each in proposal.maps[0].columns if each.left == ("status",))
    assert line.transforms == (ValueMap(tuple(pairs)),)
    assert why in str(proposal.remarks["items"][1])
    assert check_maps(proposal.maps, left, right) == []


def test_codes_get_a_value_map_without_common_records():
    """Words for yes and no mean each other, and codes that are the labels of a choice mean its numbers."""
    choice = Column("hold", ColumnType(TypeName.CHOICE), choices=(("On Hold", "1"), ("Free", "0"), ("Gone", "2")))
    left = schema(table("items", ["number", "hold", "active"], ("number",)))
    right = schema(
        Table("items", (Column("number", TEXT), choice, Column("active", TEXT)), ("number",), (("number",),))
    )
    mine = [(str(n), ["on_hold", "free"][n % 2], ["yes", "no"][n % 2]) for n in range(20)]
    theirs = [(str(100 + n), str(n % 3), ["Y", "N"][n % 2]) for n in range(20)]
    proposal = propose(left, right, read=reading(left_items=mine, right_items=theirs))
    transforms = [each.transforms for each in proposal.maps[0].columns]
    assert transforms == [
        (),
        (ValueMap((("free", "0"), ("on_hold", "1"))),),
        (ValueMap((("no", "N"), ("yes", "Y"))),),
    ]
    assert check_maps(proposal.maps, left, right) == []


def test_codes_without_a_counterpart_are_left_out():
    """Where codes differ and nothing tells what they mean, no line is written, and it is said."""
    left = schema(table("items", ["number", "kind"], ("number",)))
    right = schema(table("items", ["number", "kind"], ("number",)))
    mine = [(str(n), "abc"[n % 3]) for n in range(30)]
    theirs = [(str(100 + n), "xyz"[n % 3]) for n in range(30)]
    proposal = propose(left, right, read=reading(left_items=mine, right_items=theirs))
    assert lines(proposal, "items") == ["number = number"]
    assert proposal.skipped == (
        "items and items kind and kind hold different codes (a, b, c and x, y, z): write a value map.",
    )


def test_a_lookup_is_recognised_by_its_records():
    """A code and a reference of another name, whose records have the same codes."""
    group = table("grp", [("id", INTEGER), "code"], ("id",), (("id",), ("code",)))
    reference = Reference("parent", ("parent_id",), "grp", ("id",))
    right = table("items", ["number", ("parent_id", INTEGER)], ("number",), references=(reference,))
    left = table("items", ["number", "family"], ("number",))
    read = reading(
        left_items=[(str(n), f"G{n % 6}") for n in range(30)],
        right_items=[(str(n), str(n % 6)) for n in range(30)],
        right_grp=[(str(n), f"G{n}") for n in range(6)],
    )
    assert lines(propose(schema(left), schema(group, right), read=read), "items") == [
        "number = number",
        "family = parent.code",
    ]


# ------------------------------------------------------------------------------------------------------------ keys


def test_the_keys_of_both_sides_belong_together():
    """One key on each side, of other names: they are paired, unless their values have nothing in common."""
    left = schema(table("items", ["account", "name"], ("account",)))
    right = schema(table("items", ["number", "name"], ("number",)))
    assert remarks(propose(left, right), "items")[0] == "account number unsure: both tell the records apart"
    mine, theirs = ([(f"{letter}{n}", "x") for n in range(9)] for letter in "AB")
    alike = propose(left, right, read=reading(left_items=mine, right_items=mine))
    assert remarks(alike, "items")[0] == (
        "account number likely: both tell the records apart, and 100% of the values are the same"
    )
    unlike = propose(left, right, read=reading(left_items=mine, right_items=theirs))
    assert unlike.maps == ()


def test_a_key_of_one_side_will_do():
    """Where the other side has but an id of its own, or no key at all, the one that is declared is taken."""
    left = schema(table("items", ["number", "name"], ("number",)))
    for right in (table("items", [("id", INTEGER), "number", "name"], ("id",)), table("items", ["number", "name"])):
        assert propose(left, schema(right)).maps[0].key == (("number",),)
        assert propose(schema(right), left).maps[0].key == (("number",),)


def test_a_key_is_recognised_by_its_values():
    """Where no side declares one, the only column that tells the records apart is it; of several none is taken."""
    side = schema(table("items", ["number", "name"]))
    rows = [(str(n), "same") for n in range(20)]
    assert propose(side, side, read=reading(left_items=rows, right_items=rows)).maps[0].key == (("number",),)
    rows = [(str(n), f"name {n}") for n in range(20)]
    assert propose(side, side, read=reading(left_items=rows, right_items=rows)).maps == ()


# ---------------------------------------------------------------------------------------------------------- tables


def test_tables_of_other_names_are_paired_by_columns_or_keys():
    """What they have in common is said; a table with two such counterparts gets none."""
    columns = ["code", "street", "city", "country", "zip", "phone"]
    left = schema(table("customers", columns, ("code",)), table("terms", ["term"], ("term",)))
    right = schema(table("accounts", columns, ("code",)), table("conditions", ["code_x"], ("code_x",)))
    rows = [(f"N{n}",) for n in range(9)]
    read = reading(left_terms=rows, right_conditions=rows)
    proposal = propose(left, right, read=read)
    assert [(each.left, each.right) for each in proposal.maps] == [("customers", "accounts"), ("terms", "conditions")]
    assert proposal.skipped == (
        "customers and accounts have other names, but 6 of 6 columns have the same names.",
        "terms and conditions have other names, but 100% of their keys' values are the same.",
    )
    rival = schema(*right.tables.values(), table("clients", columns, ("code",)))
    assert [each.left for each in propose(left, rival, read=read).maps] == ["terms"]


def test_tables_of_other_names_are_paired_by_their_looks_where_there_are_no_records():
    """By the names and types of their columns alone; that is said, and no line counts as sure."""
    left = schema(table("Kunden", ["CUSTOMERACCOUNT", "CREDITLIMIT", "OPENEDON", "BLOCKED"], ("CUSTOMERACCOUNT",)))
    right = schema(
        table("accounts", ["accountnumber", "credit_limit", "opened_on", "is_blocked", "phone"], ("accountnumber",)),
        table("logs", ["moment", "words", "severity"], ("moment",)),
    )
    proposal = propose(left, right)
    (found,) = proposal.maps
    assert (found.left, found.right) == ("Kunden", "accounts")
    assert any("3 of 4 columns are alike by name and type, which is all that is known" in s for s in proposal.skipped)
    assert {remark.confidence for remark in proposal.remarks[found.name]} == {"likely", "unsure"}
    twins = schema(*right.tables.values(), replace(right.tables["accounts"], name="clients"))
    assert propose(left, twins).maps == ()


def test_tables_of_small_names_alike_are_paired():
    """Two names of which nearly all letters agree, where too few columns tell anything; that is said."""
    left = schema(table("MyLoyaltyLevels", ["LEVELID", "WORDS"], ("LEVELID",)))
    right = schema(
        table("msdyn_loyaltylevels", ["msdyn_levelid", "msdyn_text"], ("msdyn_levelid",)),
        table("msdyn_salutations", ["msdyn_salutation"], ("msdyn_salutation",)),
    )
    proposal = propose(left, right)
    assert [(each.left, each.right) for each in proposal.maps] == [("MyLoyaltyLevels", "msdyn_loyaltylevels")]
    assert any("their names are alike by" in sentence for sentence in proposal.skipped)


def test_two_tables_that_alone_are_included_are_a_pair():
    """Whoever names one table of each side means these two, whatever they are called."""
    left = schema(table("CustCustomerV3Entity", ["CUSTOMERACCOUNT", "LIMIT"], ("CUSTOMERACCOUNT",)), table("x", ["y"]))
    right = schema(table("account", ["accountnumber", "name"], ("accountnumber",)), table("z", ["w"]))
    assert propose(left, right).maps == ()
    (found,) = propose(left, right, include=["cust*", "account"]).maps
    assert [(line.left, line.right) for line in found.columns] == [(("CUSTOMERACCOUNT",), ("accountnumber",))]
    proposal = propose(left, right, include=["cust*", "account", "z"])
    assert proposal.maps == ()


def test_the_only_keys_of_two_tables_belong_together():
    """Even if another column's name is more alike; the line is not sure."""
    left = schema(table("customers", ["CustomerAccount", "SalesAccountNumber", "Limit"], ("CustomerAccount",)))
    right = schema(table("customer", ["accountnumber", "limit"], ("accountnumber",)))
    proposal = propose(left, right)
    (found,) = proposal.maps
    assert [line.left for line in found.columns] == [("CustomerAccount",), ("Limit",)]
    assert found.key == (("accountnumber",),)
    assert proposal.remarks[found.name][0].confidence == "unsure"
