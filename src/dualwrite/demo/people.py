"""The vendors, customers and parties of the demo, made up from the names in ``names.toml``.

The same seed makes up the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from random import Random

from dualwrite.demo.reference import Record, Value, currencies, named_customers, read_toml

COMPANIES = ("usmf", "demf")
VENDORS = 150  # per company
PROSPECTS = 15  # accounts that are no customers yet
UNASSIGNED = 2  # customers that nobody has given to a company
ACQUAINTANCES = 30  # contacts that buy nothing

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


class Author:
    """Makes up records that refer to those which it is given, and to earlier ones of its own."""

    def __init__(self, seed: int, written: Iterable[Record]) -> None:
        self._random = Random(seed)
        self._names = read_toml("names.toml")
        self._codes = [currency["code"] for currency in currencies() if currency["minor_units"]]
        self._known: dict[tuple[str, Value], list[tuple[str, str]]] = {}
        for record in written:
            first, second, *_ = record.values.values()
            if "DATAAREAID" in record.values:
                self._remember(record.left, first, str(second), record.sides)
        self._party_numbers = {"left": count(1), "right": count(1)}
        self._right_numbers = count(10001)

    # -- choosing

    def _remember(self, table: str, company: Value, name: str, sides: str) -> None:
        self._known.setdefault((table, company), []).append((name, sides))

    def _pick(self, table: str, company: str, sides: str) -> str:
        """One that exists wherever a record of these sides does; empty where there is none."""
        names = [name for name, where in self._known.get((table, company), ()) if where in ("both", sides)]
        return self._random.choice(names) if names else ""

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def _digits(self, number: int) -> str:
        return "".join(self._random.choices("0123456789", k=number))

    def _sides(self) -> str:
        return self._random.choices(("left", "both", "right"), (86, 7, 7))[0]

    def _amount(self) -> str:
        cents = self._random.randrange(100) if self._chance(5) else 0
        return f"{self._random.randrange(1000, 100001, 500)}.{cents:02d}"

    def _city(self, company: str) -> tuple[str, str, str]:
        city, state, country = self._random.choice(self._names["cities"][company])
        return city, state, country

    def _currency(self, country: str, sides: str) -> str:
        """The country's; now and then any other, where only the left side has to know it."""
        home: str = self._names["countries"][country]["currency"]
        return self._random.choice(self._codes) if sides == "left" and self._chance(3) else home

    # -- parties

    def _party(self, sides: str, country: str, values: Mapping[str, Value]) -> Record:
        own = sides == "right"
        number = f"CRM-{next(self._party_numbers['right']):06d}" if own else f"{next(self._party_numbers['left']):09d}"
        language = self._names["countries"][country]["language"]
        instead: dict[str, Value] = {}
        if sides == "both" and self._chance(15):
            instead = {"msdyn_nickname": self._random.choice(("Boss", "Nachbar", "VIP ⭐"))}
        return Record(
            "CDS Parties",
            "msdyn_parties",
            sides,
            {"PARTYNUMBER": number, "LANGUAGEID": language, **values},
            instead,
        )

    def _organization(self, company: str, sides: str, city: str, country: str, name: str = "") -> Record:
        choose, names = self._random.choice, self._names
        name = name or choose(names["patterns"][company]).format(
            surname=choose(names["surnames"][company]),
            second=choose(names["surnames"][company]),
            trade=choose(names["trades"][company]),
            city=city,
        )
        values: dict[str, Value] = {
            "PARTYTYPE": "organization",
            "ORGANIZATIONNAME": name,
            "NAMEALIAS": name[:20].strip(),
            "ORGANIZATIONNUMOFEMPLOYEES": self._random.randrange(1, 500),
            "ORGANIZATIONNUMBER": self._digits(9),
            "ORGANIZATIONABCCODE": choose(("a", "b", "c", "none")),
        }
        return self._party(sides, country, values)

    def _person(self, company: str, sides: str, country: str) -> Record:
        choose = self._random.choice
        gender = choose(("female", "male"))
        given, surname = choose(self._names["given_names"][company][gender]), choose(self._names["surnames"][company])
        month = choose(_MONTHS)
        values: dict[str, Value] = {
            "PARTYTYPE": "person",
            "PERSONFIRSTNAME": given,
            "PERSONLASTNAME": surname,
            "PERSONINITIALS": f"{given[0]}. {surname[0]}.",
            "PERSONGENDER": gender,
            "KNOWNAS": given,
            "NAMEALIAS": f"{given} {surname}"[:20].strip(),
            "PERSONPROFESSIONALTITLE": choose(("Dr.", "", "", "", "")),
            "PERSONBIRTHDAY": self._random.randrange(1, 29),
            "PERSONBIRTHMONTH": month,
            "PERSONBIRTHYEAR": self._random.randrange(1940, 2005),
        }
        return self._party(sides, country, values)

    def _any_party(self, company: str, sides: str, city: str, country: str, *, person: bool) -> Record:
        if person:
            return self._person(company, sides, country)
        return self._organization(company, sides, city, country)

    # -- vendors

    def vendors(self, company: str) -> Iterator[Record]:
        """Vendors of a company, each behind its party; one in a hundred is of a kind that the map leaves out."""
        for number in range(101, 101 + VENDORS):
            sides = self._sides()
            account = f"SUP-{number}" if sides == "right" else f"{company[:2].upper()}-{number}"
            city, _, country = self._city(company)
            person = self._chance(10)
            party = self._any_party(company, sides, city, country, person=person)
            kind = "none" if number % 100 == 42 and sides == "left" else "person" if person else "organization"
            yield party
            yield self._vendor(company, sides, account, country, kind, party)
            if kind != "none":
                self._remember("VendorsV2", company, account, sides)

    def _vendor(self, company: str, sides: str, account: str, country: str, kind: str, party: Record) -> Record:
        held = self._chance(3)
        home = "USA" if company == "usmf" else "DEU"
        values: dict[str, Value] = {
            "DATAAREAID": company,
            "VENDORACCOUNTNUMBER": account,
            "VENDORPARTYTYPE": kind,
            "VENDORPARTYNUMBER": party.values["PARTYNUMBER"],
            "VENDORGROUPID": self._pick("VendVendorGroup", company, sides),
            "CREDITLIMIT": self._amount(),
            "CREDITRATING": self._random.choice(("Excellent", "Good", "Fair")),
            "DUNSNUMBER": self._digits(9),
            "OURACCOUNTNUMBER": f"K-{self._digits(6)}" if self._chance(30) else "",
            "PRIMARYURL": f"https://{account.lower()}.example/" if self._chance(40) else "",
            "DEFAULTPAYMENTTERMSNAME": self._pick("TermsofPayment", company, sides),
            "DEFAULTVENDORPAYMENTMETHODNAME": self._pick("VendorPaymentMethod", company, sides),
            "CURRENCYCODE": self._currency(country, sides),
            "SALESTAXGROUPCODE": self._pick("TaxGroupEntity", company, sides),
            "ORGANIZATIONEMPLOYEEAMOUNT": self._random.randrange(1, 500),
            "ONHOLDSTATUS": "payment" if held else "no",
            "VENDORHOLDRELEASEDATE": f"2027-{self._random.randrange(1, 13):02d}-01 00:00:00" if held else None,
            "ISFOREIGNENTITY": "no" if country == home else "yes",
            "ISWOMANOWNER": "yes" if self._chance(25) else "no",
            "INVOICEVENDORACCOUNTNUMBER": self._pick("VendorsV2", company, sides) if self._chance(3) else "",
        }
        differs = sides == "both" and self._chance(40)
        return Record(
            "VendorsV2", "msdyn_vendors", sides, values, {"msdyn_vendorcreditlimit": self._amount()} if differs else {}
        )

    # -- customers

    def named_customers(self) -> Iterator[Record]:
        """The customers that ``reference.toml`` names, each behind its party."""
        for sides, given, instead in named_customers():
            company = str(given["DATAAREAID"])
            values = {name: value for name, value in given.items() if name != "ORGANIZATIONNAME"}
            cities = self._names["cities"][company]
            city = next(city for city in cities if city[0] == given["ADDRESSCITY"])
            party = self._organization(company, sides, city[0], city[2], str(given["ORGANIZATIONNAME"]))
            values |= {
                "PARTYTYPE": "Organization",
                "PARTYNUMBER": party.values["PARTYNUMBER"],
                "PARTYSTATE": city[1],
                "PARTYCOUNTRY": city[2],
                "SALESCURRENCYCODE": self._names["countries"][city[2]]["currency"],
                "CUSTOMERGROUPID": "30",
            }
            yield party
            yield Record("CustomersV3", "accounts", sides, values, instead)

    def customers(self, total: int) -> Iterator[Record]:
        """Customers of both companies up to a total, each behind its party: four organizations to one person.

        Two in a hundred have the same number in both companies.
        """
        named = sum(given["DATAAREAID"] in COMPANIES for _, given, _ in named_customers())
        for number in range(max(0, total - named)):
            twin = number % 100 < 2
            company = COMPANIES[number % 2] if twin else "usmf" if self._chance(60) else "demf"
            sides = self._sides()
            account = f"{company.upper()}{number + 100:03d}"
            if twin:
                account = f"{100 + number // 100:06d}"
            elif sides == "right":
                account = f"ACC-{next(self._right_numbers)}"
            yield from self._customer(company, sides, account, person=self._chance(20) and not twin)

    def _customer(self, company: str, sides: str, account: str, *, person: bool) -> Iterator[Record]:
        city, state, country = self._city(company)
        party = self._any_party(company, sides, city, country, person=person)
        values: dict[str, Value] = {
            "DATAAREAID": company,
            "CUSTOMERACCOUNT": account,
            "PARTYNUMBER": party.values["PARTYNUMBER"],
            "PARTYTYPE": "Person" if person else "Organization",
            "PARTYCOUNTRY": country,
            "PARTYSTATE": state,
            "ADDRESSCITY": city,
            "SALESCURRENCYCODE": self._currency(country, sides),
            "CUSTOMERGROUPID": self._pick("CustCustomerGroup", company, sides),
            "IDENTIFICATIONNUMBER": self._digits(8) if self._chance(20) else "",
            "SALESMEMO": self._memo(company) if self._chance(15) else "",
            "PAYMENTTERMS": self._pick("TermsofPayment", company, sides),
            "PAYMENTMETHOD": self._pick("CustomerPaymentMethod", company, sides),
            "PAYMENTDAY": self._pick("PaymentDaysCds", company, sides) if self._chance(10) else "",
            "PAYMENTSCHEDULE": self._pick("PaymentSchedules", company, sides) if self._chance(5) else "",
            "SALESTAXGROUP": self._pick("TaxGroupEntity", company, sides),
        }
        yield party
        if person:
            instead = self._otherwise(company, sides, "msdyn_paymentterms")
            yield Record("CustomersV3", "contacts", sides, values, instead)
        else:
            values |= self._business(company, sides, country)
            instead = self._otherwise(company, sides, "msdyn_paymentterm")
            yield Record("CustomersV3", "accounts", sides, values, instead)
            self._remember("CustomersV3", company, account, sides)

    def _business(self, company: str, sides: str, country: str) -> dict[str, Value]:
        """What only organizations have."""
        return {
            "CREDITLIMIT": self._amount(),
            "CREDITLIMITISMANDATORY": "yes" if self._chance(20) else "no",
            "CREDITRATING": self._random.choice(("Excellent", "Good", "Fair", "")),
            "INVOICEACCOUNT": self._pick("CustomersV3", company, sides) if self._chance(3) else "",
            "ISONETIMECUSTOMER": "yes" if self._chance(2) else "no",
            "ONHOLDSTATUS": self._random.choice(("invoice", "all", "payment", "never")) if self._chance(4) else "no",
            "PAYMENTTERMSBASEDAYS": self._random.choice((0, 0, 0, 10, 30)),
            "TAXEXEMPTNUMBER": f"{country[:2]}{self._digits(9)}" if self._chance(30) else "",
            "VENDORACCOUNT": self._pick("VendorsV2", company, sides) if self._chance(2) else "",
        }

    def _otherwise(self, company: str, sides: str, terms: str) -> dict[str, Value]:
        """What the right side says of four in ten customers that both sides have."""
        if sides != "both" or not self._chance(40):
            return {}
        said: dict[str, Value] = {terms: self._pick("TermsofPayment", company, "right")}
        if self._chance(50):
            said["description"] = self._memo(company)
        if terms == "msdyn_paymentterm":
            said["creditlimit"] = self._amount()
        return said

    def _memo(self, company: str) -> str:
        memo: str = self._random.choice(self._names["memos"][company])
        return memo

    def strangers(self) -> Iterator[Record]:
        """What only the right side holds and the link leaves alone, each behind its party."""
        for _ in range(PROSPECTS):
            yield from self._stranger("accounts", {"customertypecode": 8}, self._random.choice(COMPANIES))
        for _ in range(ACQUAINTANCES):
            yield from self._stranger("contacts", {"msdyn_sellable": 0}, self._random.choice(COMPANIES))
        for _ in range(UNASSIGNED):
            account = f"ACC-{next(self._right_numbers)}"
            yield from self._stranger("accounts", {"accountnumber": account}, None)

    def _stranger(self, table: str, instead: Mapping[str, Value], company: str | None) -> Iterator[Record]:
        origin = company or COMPANIES[0]
        city, _, country = self._city(origin)
        party = self._any_party(origin, "right", city, country, person=table == "contacts")
        values: dict[str, Value] = {"PARTYNUMBER": party.values["PARTYNUMBER"], "ADDRESSCITY": city}
        if company:
            values["DATAAREAID"] = company
        yield party
        yield Record("CustomersV3", table, "right", values, instead)
