"""Declared schemas: reading them, and laying them over what a system says."""

from __future__ import annotations

import pytest

from dualwrite.declared import Declared, column_type, complete, read_declared
from dualwrite.errors import Invalid
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

TEXT, INTEGER = ColumnType(TypeName.TEXT, length=20), ColumnType(TypeName.INTEGER, bits=64)
REFLECTED = Schema(
    {
        "CustomersV3": Table(
            "CustomersV3",
            (
                *(Column(name, TEXT) for name in ("CUSTOMERACCOUNT", "DATAAREAID", "PAYMENTTERM", "CREDITLIMIT")),
                Column("ONHOLDSTATUS", INTEGER),
            ),
        ),
        "PaymentTerms": Table("PaymentTerms", (Column("NAME", TEXT), Column("ID", INTEGER)), ("ID",)),
    }
)
FILE = """\
tables:
  customersv3:
    key: [CUSTOMERACCOUNT, dataareaid]
    company: DATAAREAID
    columns:
      ONHOLDSTATUS: {choices: {No: 0, Invoice: 1}}
      creditlimit:
        {type: "numeric(18,2)", nullable: no, read_only: yes,
         empty_is_null: no, ignore_case: yes, ignore_trailing_blanks: yes}
    references:
      TERM: {table: paymentterms, columns: [PAYMENTTERM], to: [NAME]}
  PaymentTerms:
    label: Terms of payment
    key: [NAME]
    empty_is_null: no
empty_is_null: yes
"""


def completed(text: str) -> tuple[Schema, list[str]]:
    """The schema with a file laid over it, and what did not fit as ``line: message — remedy``."""
    schema, problems = complete(REFLECTED, read_declared(text, "schema/left.yaml"))
    assert all(problem.file == "schema/left.yaml" for problem in problems)
    return schema, [f"{each.line}: {each.message} — {each.remedy}" for each in problems]


def test_everything_that_can_be_declared():
    """Declarations win over what was reflected; names are those of the system, however they were written."""
    schema, problems = completed(FILE)
    assert problems == []
    table = schema.tables["CustomersV3"]
    assert table.key == (("CUSTOMERACCOUNT",), ("DATAAREAID",))
    assert table.company == ("DATAAREAID",)
    assert table.references == (Reference("TERM", ("PAYMENTTERM",), "PaymentTerms", ("NAME",)),)
    assert table.column("ONHOLDSTATUS") == Column(
        "ONHOLDSTATUS", ColumnType(TypeName.CHOICE, bits=64), choices=(("No", "0"), ("Invoice", "1"))
    )
    assert table.column("CREDITLIMIT") == Column(
        "CREDITLIMIT",
        ColumnType(TypeName.NUMERIC, precision=18, scale=2),
        nullable=False,
        read_only=True,
        ignore_case=True,
        ignore_trailing_blanks=True,
    )
    assert table.column("CUSTOMERACCOUNT") == Column("CUSTOMERACCOUNT", TEXT, empty_is_null=True)
    assert schema.tables["PaymentTerms"].column("NAME") == Column("NAME", TEXT)
    assert (schema.tables["PaymentTerms"].label, table.label) == ("Terms of payment", "")


def test_nothing_declared_changes_nothing():
    """An empty file, or none, leaves the schema as it is."""
    assert complete(REFLECTED, Declared()) == (REFLECTED, [])
    assert complete(REFLECTED, read_declared("", "x")) == (REFLECTED, [])


def test_paths_of_keys_follow_declared_references():
    """A key may go through a reference of the same file."""
    schema, problems = completed(
        "tables:\n  CustomersV3:\n    key: [customeraccount, term.name]\n    company: [term, name]\n"
        "    references: {TERM: {table: PaymentTerms, columns: [PAYMENTTERM], to: [ID]}}\n"
    )
    assert problems == []
    assert schema.tables["CustomersV3"].key == (("CUSTOMERACCOUNT",), ("TERM", "NAME"))
    assert schema.tables["CustomersV3"].company == ("TERM", "NAME")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tables: {Customers: {}}", "1: table 'Customers' does not exist — did you mean 'CustomersV3'?"),
        (
            "tables:\n  CustomersV3:\n    columns: {CREDITLIMT: {nullable: no}}",
            "3: table CustomersV3 has no column 'CREDITLIMT' — did you mean 'CREDITLIMIT'?",
        ),
        (
            "tables:\n  CustomersV3:\n    company: x\n    key: [CUSTOMERACOUNT]",
            "4: table CustomersV3 has no column 'CUSTOMERACOUNT' — did you mean 'CUSTOMERACCOUNT'?",
        ),
        (
            "tables:\n  CustomersV3:\n    key: [term.name]",
            "3: term.name: table CustomersV3 has no reference 'term' — declare it under references:",
        ),
        (
            "tables:\n  CustomersV3:\n    references:\n"
            "      t: {table: PaymentTerm, columns: [PAYMENTTERM], to: [NAME]}",
            "4: reference t leads to table 'PaymentTerm', which does not exist — did you mean 'PaymentTerms'?",
        ),
        (
            "tables:\n  CustomersV3:\n    references:\n"
            "      t: {table: PaymentTerms, columns: [PAYMENTTERM], to: [NAM]}",
            "4: table PaymentTerms has no column 'NAM' — did you mean 'NAME'?",
        ),
    ],
)
def test_what_does_not_fit_the_schema(text: str, problem: str):
    """Unknown names are reported with the nearest known one, and left out."""
    schema, problems = completed(text)
    assert problem in problems
    assert schema == REFLECTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "a schema file must be a mapping"),
        ("table: {}", "a schema file has no entry 'table'"),
        ("tables: {T: {keys: [a]}}", "table T has no entry 'keys'"),
        ("tables: {T: {key: a}}", "key must be a list"),
        ("tables: {T: {columns: {a: {nullable: maybe}}}}", "nullable must be true or false"),
        ("tables: {T: {columns: {a: {type: number}}}}", "'number' is not a type"),
        ("tables: {T: {columns: {a: {type: date(3)}}}}", "date has no such limits"),
        ("tables: {T: {columns: {a: {type: 'numeric(2,3)'}}}}", "numeric has no such limits"),
        ("tables: {T: {columns: {a: {choices: {No: x}}}}}", "choice No has the number 'x'"),
        ("tables: {T: {columns: {a: {choices: {No: 0, Yes: 0}}}}}", "choices No and Yes have the same number 0"),
        ("tables: {T: {references: {r: {table: T}}}}", "reference r needs columns:"),
        ("tables: {T: {references: {r: {table: T, columns: [a], to: [a, b]}}}}", "pairs 1 columns with 2"),
    ],
)
def test_a_wrong_file(text: str, message: str):
    """Mistakes are told with file and line."""
    with pytest.raises(Invalid) as caught:
        read_declared(text, "schema/left.yaml")
    assert any(message in each.message and each.line == 1 for each in caught.value.problems), caught.value


@pytest.mark.parametrize(
    "type",
    [
        *(ColumnType(name) for name in TypeName),
        ColumnType(TypeName.TEXT, length=20),
        ColumnType(TypeName.NUMERIC, precision=10, scale=0),
        ColumnType(TypeName.NUMERIC, precision=10, scale=4),
    ],
)
def test_types_read_as_they_print(type: ColumnType):
    """What messages call a type can be declared as one."""
    assert column_type(str(type)) == type
