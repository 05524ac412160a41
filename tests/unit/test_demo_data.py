"""The demo's databases, and its maps and declared schemas held against them."""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dualwrite.connectors.sqlite import open_sqlite
from dualwrite.demo.data import LEFT, RIGHT, build, records
from dualwrite.demo.people import ACQUAINTANCES, COMPANIES, PROSPECTS, UNASSIGNED
from dualwrite.demo.reference import HERE, currencies
from dualwrite.mapping.check import check_maps
from dualwrite.mapping.compile import compile_map
from dualwrite.model import Side
from dualwrite.project import Project, load

CUSTOMERS = 600
MAPS = sorted((HERE / "project" / "maps").glob("*.yaml"))
_LINE = re.compile(r"(\S+) (=|>|<|><|>>|<<) (\S+)")
_LENGTH = re.compile(r"VARCHAR\((\d+)\)")


@dataclass(frozen=True)
class Line:
    """One line of a map, as written."""

    left: str
    symbol: str
    right: str
    values: dict[str, str]
    default: str | None


@dataclass(frozen=True)
class Map:
    """As much of a map file as these tests need."""

    left: str
    right: str
    key: list[str]
    company: str | None
    lines: list[Line]


class System:
    """One of the two databases."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path)

    def rows(self, sql: str, *values: object) -> list[tuple]:
        """What a query answers."""
        return self.database.execute(sql, values).fetchall()

    def count(self, sql: str) -> int:
        """How many rows there are of what stands behind FROM."""
        return self.rows(f"SELECT count(*) FROM {sql}")[0][0]

    def tables(self) -> list[str]:
        """The names of all tables."""
        return [name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def columns(self, table: str) -> dict[str, str]:
        """The columns of a table with their declared types."""
        return {row[1]: row[2] for row in self.rows(f'PRAGMA table_info("{table}")')}

    def lookups(self, table: str) -> dict[str, tuple[str, str]]:
        """The foreign keys of a table: column → table and column."""
        return {row[3]: (row[2], row[4]) for row in self.rows(f'PRAGMA foreign_key_list("{table}")')}

    def leads_somewhere(self, table: str, path: str) -> bool:
        """Does a path end in a column?"""
        *steps, last = path.split(".")
        for step in steps:
            if step not in self.lookups(table):
                return False
            table = self.lookups(table)[step][0]
        return last in self.columns(table)

    def select(self, table: str, path: str) -> str:
        """SQL for what a path shows in a row of the table."""
        if "." not in path:
            return f'"{table}"."{path}"'
        step, last = path.split(".")
        parent, id = self.lookups(table)[step]
        return f'(SELECT p."{last}" FROM "{parent}" p WHERE p."{id}" = "{table}"."{step}")'


def _yaml(path: Path) -> dict:
    """A YAML file in which every scalar is text."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def _line(item: str | dict) -> Line:
    text, options = (item, {}) if isinstance(item, str) else next(iter(item.items()))
    left, symbol, right = _LINE.fullmatch(text).groups()
    return Line(left, symbol, right, options.get("values", {}), options.get("default"))


def _map(path: Path) -> Map:
    read = _yaml(path)
    return Map(read["left"], read["right"], read["key"], read.get("company"), [_line(item) for item in read["columns"]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small demo."""
    place = tmp_path_factory.mktemp("demo")
    build(place, customers=CUSTOMERS)
    return place


@pytest.fixture(scope="module")
def left(folder):
    """Finance & Operations."""
    system = System(folder / LEFT)
    yield system
    system.database.close()


@pytest.fixture(scope="module")
def right(folder):
    """Dataverse."""
    system = System(folder / RIGHT)
    yield system
    system.database.close()


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def _customers(left: System, right: System) -> tuple[set, set]:
    """The customers of both companies on each side: company, number, table."""
    ours = {
        (company, number, "accounts" if kind == "Organization" else "contacts")
        for company, number, kind in left.rows("SELECT DATAAREAID, CUSTOMERACCOUNT, PARTYTYPE FROM CustomersV3")
        if company in COMPANIES
    }
    theirs = set()
    for table, number, which in (
        ("accounts", "accountnumber", "accountnumber IS NOT NULL"),
        ("contacts", "msdyn_contactpersonid", "msdyn_sellable"),
    ):
        company = right.select(table, "msdyn_company.cdm_companycode")
        theirs |= {
            (*row, table)
            for row in right.rows(f"SELECT {company}, {number} FROM {table} WHERE {which}")
            if row[0] is not None
        }
    return ours, theirs


# -- the databases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LEFT, RIGHT])
def test_databases_are_sound(folder, name):
    """Both databases are consistent, every foreign key leads to a record, and both are in WAL mode."""
    with closing(sqlite3.connect(folder / name)) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_number_of_customers(left, right):
    """Both sides together hold as many customers as asked for, each side has some of its own, and they share some."""
    ours, theirs = _customers(left, right)
    assert len(ours | theirs) == CUSTOMERS
    assert min(len(ours - theirs), len(theirs - ours), len(ours & theirs)) >= 20
    assert {kind for *_, kind in ours & theirs} == {"accounts", "contacts"}
    assert {company for company, *_ in ours - theirs} == {company for company, *_ in theirs - ours} == set(COMPANIES)


def test_default_size(tmp_path):
    """Without being told otherwise the demo has 5,000 customers, most of them on the left and hundreds on the right."""
    build(tmp_path)
    systems = System(tmp_path / LEFT), System(tmp_path / RIGHT)
    ours, theirs = _customers(*systems)
    assert len(ours | theirs) == 5000
    assert len(ours) > 4000
    assert 200 < len(theirs - ours) < 1000
    for system in systems:
        system.database.close()


@pytest.mark.parametrize("customers", [0, 1, 12])
def test_smallest(tmp_path, customers):
    """However few customers are asked for, the named ones are there."""
    build(tmp_path, customers=customers)
    with closing(sqlite3.connect(tmp_path / LEFT)) as database:
        assert database.execute("SELECT count(*) FROM CustomersV3 WHERE CUSTOMERACCOUNT = 'DEMF001'").fetchone() == (1,)


def test_building_twice_gives_the_same(tmp_path, folder):
    """The same arguments give the same content, ids too; another seed gives other records."""
    build(tmp_path, customers=CUSTOMERS)
    for name in (LEFT, RIGHT):
        assert _dump(tmp_path / name) == _dump(folder / name)
    build(tmp_path, customers=CUSTOMERS, seed=2)
    for name in (LEFT, RIGHT):
        assert _dump(tmp_path / name) != _dump(folder / name)


def test_building_over_an_older_demo(tmp_path):
    """A demo that is already there is replaced whole, with what its write-ahead log still holds."""
    build(tmp_path, customers=30)
    fresh = _dump(tmp_path / LEFT)
    user = sqlite3.connect(tmp_path / LEFT)
    user.execute("DELETE FROM CustomersV3")
    user.commit()
    assert (tmp_path / f"{LEFT}-wal").stat().st_size > 0
    build(tmp_path, customers=30)
    user.close()
    assert _dump(tmp_path / LEFT) == fresh


def test_project_is_copied(folder):
    """The project files stand beside the databases."""
    for path in (HERE / "project").rglob("*.yaml"):
        copy = folder / path.relative_to(HERE / "project")
        assert copy.read_bytes() == path.read_bytes()


# -- what is in them --------------------------------------------------------------------------------------------------


def test_currencies(left):
    """All active currencies of ISO 4217 are there with their minor units, and a placeholder that the map leaves out."""
    known = {currency["code"]: currency for currency in currencies()}
    assert len(known) == len(currencies()) == 178
    assert all(re.fullmatch("[A-Z]{3}", code) for code in known)
    assert len({currency["number"] for currency in known.values()}) == 178
    assert {known[code]["minor_units"] for code in ("EUR", "USD", "CHF", "GBP", "ZWG", "XCG")} == {"2"}
    assert [known[code]["minor_units"] for code in ("JPY", "KWD", "CLF", "XAU")] == ["0", "3", "4", ""]
    assert known["EUR"]["name"] == "Euro"
    assert known["EUR"]["symbol"] == "€"
    assert not {"DEM", "HRK", "SLL", "ZWL", "ANG", "BGN"} & known.keys()
    stored = dict(left.rows("SELECT CURRENCYCODE, NAME FROM Currencies"))
    assert stored == {code: currency["name"] for code, currency in known.items()} | {"999": "Placeholder"}
    assert left.rows("SELECT GENERALROUNDINGRULE FROM Currencies WHERE CURRENCYCODE = 'KWD'") == [(0.001,)]


@pytest.mark.parametrize(
    ("table", "per_company", "least"),
    [
        ("TermsofPayment", True, 12),
        ("CustCustomerGroup", True, 4),
        ("CustomerPaymentMethod", True, 4),
        ("VendorPaymentMethod", True, 2),
        ("VendVendorGroup", True, 3),
        ("TaxGroupEntity", True, 4),
        ("PaymentDaysCds", True, 3),
        ("PaymentSchedules", True, 2),
        ("VendorsV2", True, 100),
        ("UnitOfMeasureEntity", False, 40),
        ("LegalEntities", False, 3),
        ('"CDS Parties"', False, CUSTOMERS // 2),
    ],
)
def test_number_of_records(left, table, per_company, least):
    """Each table of the left side has enough to look at, in both companies."""
    for condition in [f"WHERE DATAAREAID = '{company}'" for company in COMPANIES] if per_company else [""]:
        assert left.count(f"{table} {condition}") >= least


def test_reference_data_on_one_side(left, right):
    """Some terms of payment are only on the left, some only on the right, some on both."""
    company = right.select("msdyn_paymentterms", "msdyn_company.cdm_companycode")
    ours = set(left.rows("SELECT DATAAREAID, NAME FROM TermsofPayment"))
    theirs = set(right.rows(f"SELECT {company}, msdyn_name FROM msdyn_paymentterms"))
    assert min(len(ours - theirs), len(ours & theirs)) >= 8
    assert {company for company, _ in theirs - ours} == set(COMPANIES)


def test_known_customer_is_the_same_on_both_sides(left, right):
    """DEMF001 is on both sides with the same values, so that one can watch edits of it."""
    ours = left.rows("SELECT CREDITLIMIT, PAYMENTTERMS, PARTYNUMBER FROM CustomersV3 WHERE CUSTOMERACCOUNT = 'DEMF001'")
    term, party = (
        right.select("accounts", path) for path in ("msdyn_paymentterm.msdyn_name", "msdyn_partyid.msdyn_partynumber")
    )
    assert ours == right.rows(f"SELECT creditlimit, {term}, {party} FROM accounts WHERE accountnumber = 'DEMF001'")
    assert ours[0][:2] == (50000, "Net30")


def test_invoice_accounts(left):
    """Invoices go along a chain of customers, and once around in a circle of two."""
    goes_to = dict(left.rows("SELECT CUSTOMERACCOUNT, INVOICEACCOUNT FROM CustomersV3 WHERE DATAAREAID = 'demf'"))
    assert [goes_to[number] for number in ("DEMF003", "DEMF002", "DEMF001")] == ["DEMF002", "DEMF001", ""]
    assert [goes_to[number] for number in ("DEMF004", "DEMF005")] == ["DEMF005", "DEMF004"]


def test_same_number_in_both_companies(left, right):
    """Some numbers are taken by different customers of both companies."""
    ours, theirs = _customers(left, right)
    numbers = [{number for company, number, _ in ours | theirs if company == ours_of} for ours_of in COMPANIES]
    assert {"000042", "000100", "000101", "000105"} <= numbers[0] & numbers[1]


@pytest.mark.parametrize("letters", ["ä", "ß", "Ö", "'", '"', "\\", "☕", "🚀", "„"])
def test_names_have_everything(left, letters):
    """Names of organizations hold umlauts, quotes, backslashes and emoji."""
    assert left.rows('SELECT 1 FROM "CDS Parties" WHERE instr(ORGANIZATIONNAME, ?) LIMIT 1', letters)


def test_records_outside_of_the_link(left, right):
    """Each side holds records that the maps leave alone: another company, prospects, acquaintances, no company."""
    assert left.count("CustomersV3 WHERE DATAAREAID = 'frrt'") == 3
    assert left.count("VendorsV2 WHERE VENDORPARTYTYPE = 'none'") >= 1
    assert right.count("accounts WHERE customertypecode = 8 AND accountnumber IS NULL") == PROSPECTS
    assert right.count("accounts WHERE customertypecode <> 3 AND accountnumber IN ('DEMF006', 'USMF004')") == 2
    assert right.count("accounts WHERE customertypecode = 3 AND msdyn_company IS NULL") == UNASSIGNED
    assert right.count("contacts WHERE NOT msdyn_sellable") == ACQUAINTANCES


@pytest.mark.parametrize("name", [LEFT, RIGHT])
def test_texts_fit_their_columns(folder, name):
    """SQLite does not mind lengths, but the demo keeps to those that it declares."""
    system = System(folder / name)
    for table in system.tables():
        for column, declared in system.columns(table).items():
            length = _LENGTH.fullmatch(declared)
            if length:
                assert system.rows(f'SELECT "{column}" FROM "{table}" WHERE length("{column}") > {length[1]}') == []
    system.database.close()


# -- maps and declarations --------------------------------------------------------------------------------------------


def test_project_loads(folder):
    """The project is read without a finding: settings, all maps, both schemas."""
    project = load(folder)
    assert project.companies == COMPANIES
    assert len(project.maps) == len(MAPS) == 16
    assert [len(declared.tables) for declared in project.declared.values()] == [15, 16]


@contextmanager
def _connected(project: Project):
    """The project's connectors."""
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(
                closing(open_sqlite(there.url, link=project.link, side=side, declared=project.declared[side]))
            )
            for side, there in project.environments.items()
        }


def test_check_finds_nothing_wrong(folder):
    """The maps are checked without an error; the one warning is that two of them share the customers by filters."""
    project = load(folder)
    with _connected(project) as systems:
        found = check_maps(project.maps, systems[Side.LEFT].schema(), systems[Side.RIGHT].schema())
    assert {(problem.level, problem.code) for problem in found} <= {("warning", "filters_overlap")}


def test_every_row_can_be_carried(folder):
    """No row that a map carries is stopped by its values, and no key comes twice on a side."""
    project = load(folder)
    with _connected(project) as systems:
        schemas = [systems[side].schema() for side in Side]
        for table_map in project.maps:
            compiled = compile_map(table_map, *schemas, companies=project.companies)
            for side, system in systems.items():
                with system.snapshot(compiled.views[side]) as snapshot:
                    rows = [row for block in snapshot.blocks() for row in block]
                assert len({compiled.key(side, row) for row in rows}) == len(rows) > 0
                assert all(len(compiled.map_row(side, row)) for row in rows)


def test_every_table_is_mapped(left, right):
    """There is a map for every table of the demo, and no other."""
    maps = [_map(path) for path in MAPS]
    assert {table_map.left for table_map in maps} == set(left.tables())
    assert {table_map.right for table_map in maps} == set(right.tables())


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_mapped_columns_exist(left, right, path):
    """Every column, lookup, key and company that a map names is there, and keys are mapped."""
    table_map = _map(path)
    for line in table_map.lines:
        assert line.left == "none" or line.left in left.columns(table_map.left), line.left
        assert line.right == "none" or right.leads_somewhere(table_map.right, line.right), line.right
    assert set(table_map.key) <= {line.right for line in table_map.lines}
    specific = "DATAAREAID" in left.columns(table_map.left)
    assert table_map.company == ("DATAAREAID = msdyn_company.cdm_companycode" if specific else None)
    assert specific == right.leads_somewhere(table_map.right, "msdyn_company.cdm_companycode")


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_value_maps_can_be_reversed(path):
    """A value map that goes both ways leads each value to a value of its own."""
    for line in _map(path).lines:
        if line.symbol == "><":
            assert len(set(line.values.values())) == len(line.values), line.left


def _shown(line: Line, value: object) -> object:
    """What a left value becomes on the right, by the map's line."""
    if line.values:
        number = line.values[str(value)]
        return {"true": 1, "false": 0}[number] if number in ("true", "false") else int(number)
    return None if value == "" else value


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_sides_agree_in_what_they_share(left, right, path):
    """What both sides have, they say alike under the map, except where the demo lets the right side say otherwise."""
    table_map = _map(path)
    lines = [line for line in table_map.lines if "none" not in (line.left, line.right)]
    keys = [line.left for key in table_map.key for line in lines if line.right == key][: len(table_map.key)]
    keys += ["DATAAREAID"] if table_map.company else []
    said = ", ".join(f'"{column}"' for column in (*keys, *(line.left for line in lines)))
    ours = {row[: len(keys)]: row[len(keys) :] for row in left.rows(f'SELECT {said} FROM "{table_map.left}"')}
    paths = [*table_map.key, *(["msdyn_company.cdm_companycode"] if table_map.company else [])]
    shown = ", ".join(right.select(table_map.right, path) for path in (*paths, *(line.right for line in lines)))
    theirs = {row[: len(keys)]: row[len(keys) :] for row in right.rows(f"SELECT {shown} FROM {table_map.right}")}
    otherwise = {
        tuple(record.values[key] for key in keys): record.instead
        for record in records(CUSTOMERS, 1)
        if record.right == table_map.right and record.sides == "both"
    }
    assert otherwise.keys() <= ours.keys() & theirs.keys()
    assert len(otherwise) >= 1
    for key, instead in otherwise.items():
        for line, value, shown_value in zip(lines, ours[key], theirs[key], strict=True):
            column = line.right.split(".")[0]
            if column not in instead:
                assert shown_value == _shown(line, value), (key, line.right)


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.stem)
def test_left_lookups_find_their_records(left, right, path):
    """What a left record names is there on the left, in its company, although no foreign key says so."""
    table_map = _map(path)
    maps = {other.right: other for other in map(_map, MAPS)}
    for line in table_map.lines:
        if "." not in line.right or line.left in ("none", "DATAAREAID"):
            continue
        step, last = line.right.split(".")
        parent = maps[right.lookups(table_map.right)[step][0]]
        named = next(other.left for other in parent.lines if other.right == last)
        match = f'p."{named}" = c."{line.left}"' + (" AND p.DATAAREAID = c.DATAAREAID" if parent.company else "")
        lost = left.rows(
            f'SELECT * FROM "{table_map.left}" c WHERE c."{line.left}" <> \'\' '
            f'AND NOT EXISTS (SELECT 1 FROM "{parent.left}" p WHERE {match})'
        )
        assert lost == [], line.left


@pytest.mark.parametrize(("side", "name"), [("left", LEFT), ("right", RIGHT)])
def test_declared_schemas_fit(folder, side, name):
    """Each table is declared with a key that holds once per record, its company, and choices that cover its data."""
    system = System(folder / name)
    tables = _yaml(HERE / "project" / "schema" / f"{side}.yaml")["tables"]
    assert set(tables) == set(system.tables())
    for table, declared in tables.items():
        shown = ", ".join(system.select(table, path) for path in declared["key"])
        null = " OR ".join(f"{system.select(table, path)} IS NULL" for path in declared["key"])
        keys = system.rows(f'SELECT {shown} FROM "{table}" WHERE NOT ({null})')
        assert len(set(keys)) == len(keys) > 0
        assert all(system.leads_somewhere(table, path) for path in declared["key"])
        specific = {"DATAAREAID", "msdyn_company.cdm_companycode"} & set(declared["key"])
        assert declared.get("company") == next(iter(specific), None)
        for column, said in declared.get("columns", {}).items():
            held = {str(value) for (value,) in system.rows(f'SELECT DISTINCT "{column}" FROM "{table}"')} - {"None"}
            if choices := said.get("choices"):
                assert held <= set(choices if side == "left" else choices.values()), column
            else:
                assert "" not in held
    system.database.close()
