"""Maps that Microsoft has published, with a dozen lookups each, between two PostgreSQL databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.integration.conftest import Project

from dualwrite.connectors import _pg_feed
from dualwrite.connectors._pg_log import Log
from dualwrite.testing.demo_postgresql import build_on_postgresql
from dualwrite.testing.postgresql import Database, Server

ACCOUNT = "accountnumber = 'DEMF001'"
CUSTOMER = "\"DATAAREAID\" = 'demf' AND \"CUSTOMERACCOUNT\" = 'DEMF001'"
TERM = "(SELECT msdyn_paymenttermid FROM msdyn_paymentterms WHERE msdyn_name = '{0}' ORDER BY msdyn_company LIMIT 1)"


@dataclass
class Business:
    """The project, and what applications do on both sides."""

    project: Project
    finops: Database
    crm: Database


@pytest.fixture
def business(
    postgresql: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Business]:
    """The demo's two sides, which have grown apart."""
    with ExitStack() as stack:
        finops, crm = (stack.enter_context(postgresql.database()) for _ in range(2))
        build_on_postgresql(tmp_path, finops, crm, customers=300)
        yield Business(Project(tmp_path, capsys, monkeypatch), finops, crm)


def test_both_sides_are_brought_and_kept_together(business: Business) -> None:
    """First what there is, then what people do: to all records at once, to lookups, and to what is looked up."""
    project, finops, crm = business.project, business.finops, business.crm
    assert project.call("check").code == 0
    assert project.sync().code == 0
    assert project.agree()
    (before,) = finops.run(f'SELECT "CREDITLIMIT" FROM "CustomersV3" WHERE {CUSTOMER}')
    crm.run("UPDATE accounts SET creditlimit = creditlimit + 1")
    crm.run(f"UPDATE accounts SET msdyn_creditrating = 'AA' WHERE {ACCOUNT}")
    finops.run(f'UPDATE "CustomersV3" SET "SALESMEMO" = \'call first\' WHERE {CUSTOMER}')
    finops.run('UPDATE "CustomersV3" SET "PAYMENTTERMSBASEDAYS" = 7')
    finops.run('INSERT INTO "TermsofPayment" ("DATAAREAID", "NAME") VALUES (\'demf\', \'Net77\')')
    assert project.sync().code == 0
    crm.run(f"UPDATE accounts SET msdyn_paymentterm = {TERM.format('Net77')} WHERE {ACCOUNT}")
    crm.run("UPDATE msdyn_paymentterms SET msdyn_name = 'Net30 x' WHERE msdyn_name = 'Net30'")
    assert project.sync().code == 0
    assert project.agree()
    assert finops.run(
        f'SELECT "CREDITLIMIT", "CREDITRATING", "SALESMEMO", "PAYMENTTERMS" FROM "CustomersV3" WHERE {CUSTOMER}'
    ) == [(before[0] + 1, "AA", "call first", "Net77")]
    assert crm.run(f"SELECT description, msdyn_paymenttermsbasedays FROM accounts WHERE {ACCOUNT}") == [
        ("call first", 7)
    ]
    assert finops.run('SELECT DISTINCT "DATAAREAID" FROM "CustomersV3" WHERE "PAYMENTTERMS" = \'Net30\'') == [
        ("frrt",)  # a company that is not linked
    ]
    assert project.call("status", "--json").json()["maps"][0]["parked"] == 0


def test_an_initial_sync_of_more_than_the_log_has_room_for(business: Business, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to tables that others refer to comes back in the log, and stays there until the map is live."""
    monkeypatch.setattr(_pg_feed, "Log", partial(Log, held=100, room=10_000))
    assert business.project.sync().code == 0
    assert business.project.agree()
