"""Proposed maps: which tables and columns match, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

from dualwrite.mapping import propose as module
from dualwrite.mapping.check import check_maps
from dualwrite.mapping.propose import Proposal, propose
from dualwrite.mapping.tablemap import ColumnMapping, Company, Direction
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
    spelled, forms = [], module._forms
    monkeypatch.setattr(module, "_forms", lambda name: spelled.append(name) or forms(name))
    work = []
    for count in (50, 100):
        many = schema(*(table(f"orders_{number}", ["code", "name"], ("code",)) for number in range(count)))
        assert len(propose(many, many).maps) == count
        work.append(len(spelled))
        spelled.clear()
    assert work[1] <= 2.1 * work[0]
