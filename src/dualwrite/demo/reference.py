"""The records of the demo that are written down: companies, currencies, units, terms … (``reference.toml``).

Everything is said in the left side's words; ``counterparts`` knows how the right side says it.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Value: TypeAlias = str | int | None

HERE = Path(__file__).parent

REFERENCE = {
    "LegalEntities": "cdm_companies",
    "UnitOfMeasureEntity": "uoms",
    "TaxGroupEntity": "msdyn_taxgroups",
    "PaymentDaysCds": "msdyn_paymentdays",
    "PaymentDayLinesCdsV2": "msdyn_paymentdaylines",
    "PaymentSchedules": "msdyn_paymentschedules",
    "TermsofPayment": "msdyn_paymentterms",
    "CustomerPaymentMethod": "msdyn_customerpaymentmethods",
    "VendorPaymentMethod": "msdyn_vendorpaymentmethods",
    "CustCustomerGroup": "msdyn_customergroups",
    "VendVendorGroup": "msdyn_vendorgroups",
}
"""The tables of ``reference.toml`` that are simple lists, and their right-hand tables; parents first."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a left and a right table, in left-hand columns; what is not named keeps the database's default.

    ``sides``: where it is at the beginning (``left``, ``right`` or ``both``).  ``instead``: what the right side says
    otherwise, by right-hand column.
    """

    left: str
    right: str
    sides: str
    values: Mapping[str, Value]
    instead: Mapping[str, Value] = field(default_factory=dict)


def currencies() -> list[dict[str, str]]:
    """The active currencies of ISO 4217: code, number, name, minor_units (empty where there are none) and symbol."""
    with (HERE / "currencies.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_toml(name: str) -> dict[str, Any]:
    """One of the demo's own data files."""
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


def written_down() -> list[Record]:
    """All reference records, parents before those that refer to them."""
    reference = read_toml("reference.toml")
    return [
        *_currencies(reference["Currencies"]["right"]),
        *(
            Record(left, right, sides, values, instead)
            for left, right in REFERENCE.items()
            for sides, values, instead in _rows(reference[left])
        ),
    ]


def named_customers() -> Iterator[tuple[str, dict[str, Value], dict[str, Value]]]:
    """The customers that every demo has: the sides, the values, and what the right side says instead."""
    return _rows(read_toml("reference.toml")["Customers"])


def _rows(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Value], dict[str, Value]]]:
    for sides, *cells in table["rows"]:
        instead = cells.pop() if isinstance(cells[-1], dict) else {}
        yield sides, dict(zip(table["columns"], cells, strict=True)), instead


def _currencies(right: Mapping[str, Mapping[str, Value]]) -> list[Record]:
    made = [Record("Currencies", "transactioncurrencies", "left", {"CURRENCYCODE": "999", "NAME": "Placeholder"})]
    for currency in currencies():
        code, units = currency["code"], currency["minor_units"]
        values: dict[str, Value] = {"CURRENCYCODE": code, "NAME": currency["name"], "SYMBOL": currency["symbol"]}
        if units:
            values["GENERALROUNDINGRULE"] = f"{10 ** -int(units):f}"
        instead = {"currencyprecision": int(units or 0), **right.get(code, {})}
        made.append(Record("Currencies", "transactioncurrencies", "both" if code in right else "left", values, instead))
    return made
