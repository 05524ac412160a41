"""The demo: two databases that have grown apart are brought together and kept together, before one's eyes."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape

from dualwrite import printing
from dualwrite.demo.data import LEFT, RIGHT, build
from dualwrite.engine import commands
from dualwrite.engine.initial_syncs import DEFAULT_MASTER
from dualwrite.engine.plan import Planner
from dualwrite.engine.runner import Runner
from dualwrite.engine.verify import verify
from dualwrite.engine.workspace import Workspace, examine, opened
from dualwrite.model import Side
from dualwrite.project import load

WAIT = 30.0
"""Seconds that the demo waits for a change to arrive before it gives up."""


@dataclass
class Story:
    """What the demo has seen, for its summary."""

    latencies: list[float] = field(default_factory=list)
    synced: int = 0
    seconds: float = 0.0


def show(folder: Path, *, keep: bool = False, customers: int = 5_000) -> bool:
    """Run the demo in a folder (databases and state that an earlier demo left there are replaced).

    Returns whether both sides agree at the end.  With ``keep``, live sync goes on until interrupted.
    """
    title("Two databases that have grown apart")
    shutil.rmtree(folder / ".dualwrite", ignore_errors=True)
    build(folder, customers=customers)
    printing.said(f"{folder / LEFT} (Finance & Operations) and {folder / RIGHT} (Dataverse), {customers} customers")
    project = load(folder)
    title("Health check", f"dualwrite check -C {folder}")
    problems = examine(project)
    printing.problems.checked(problems)
    if any(problem.level == "error" for problem in problems):
        return False
    with opened(project) as work:
        title("Dry run: what would an initial sync do?", f"dualwrite plan -C {folder}")
        maps = work.chosen(())
        plans = Planner(work.connectors, work.schemas).plan(maps, {one.name: DEFAULT_MASTER for one in maps})
        printing.plans.planned(plans, 2)
        return Demo(folder, work).run(keep)


def title(text: str, command: str = "") -> None:
    """A heading, with the command that does the same."""
    shown = f"  [dim]{escape(command)}[/dim]" if command else ""
    printing.terminal.console.print(f"\n[bold cyan]── {escape(text)}[/bold cyan]{shown}\n")


class Demo:
    """Initial sync, live sync with a person on each side, and the proof at the end."""

    def __init__(self, folder: Path, work: Workspace) -> None:
        self._files = {Side.LEFT: folder / LEFT, Side.RIGHT: folder / RIGHT}
        self._folder = folder
        self._work = work
        self._story = Story()

    def run(self, keep: bool) -> bool:
        """The rest of the demo; True if both sides agree at the end."""
        work = self._work
        work.lease.acquire()
        for name in work.maps:
            work.journal.set_state(name, desired="running")
        with printing.progress.progress() as progress:
            engine = work.engine(progress=progress)
            engine.open()
            title("Initial sync", f"dualwrite run -C {self._folder}")
            began = time.monotonic()
            outcomes = engine.reconcile()
            engine.drain()
            self._story.seconds = time.monotonic() - began
        self._story.synced = sum(sum(o.tally.read.values()) for o in outcomes)
        written = sum(sum(o.created.values()) + sum(o.changed.values()) for o in outcomes)
        printing.said(f"{self._story.synced} records read, {written} written, {self._story.seconds:.1f} s")
        runner = Runner(engine, commands.execute)
        with self._running(runner):
            self._live(runner)
            clean = self._prove(settle=lambda: self._settled(runner))
            self._summary(clean)
            if keep:
                self._keep(runner)
        engine.close()
        return clean

    @contextmanager
    def _running(self, runner: Runner) -> Iterator[None]:
        thread = threading.Thread(target=runner.run, name="engine")
        thread.start()
        try:
            yield
        finally:
            runner.stop.set()
            thread.join()

    def _settled(self, runner: Runner) -> bool:
        with runner.still():
            runner.engine.drain()
        return True

    # -- people ---------------------------------------------------------------------------------------------------

    def _sql(self, side: Side, statement: str) -> None:
        """What an application does: its own connection, plain SQL, nothing of ours."""
        with closing(sqlite3.connect(self._files[side], timeout=WAIT)) as database:
            database.execute("PRAGMA foreign_keys = ON")
            with database:
                database.execute(statement)

    def _value(self, side: Side, query: str) -> object:
        with closing(sqlite3.connect(self._files[side], timeout=WAIT)) as database:
            row = database.execute(query).fetchone()
        return None if row is None else row[0]

    def _arrives(self, side: Side, query: str, wanted: object) -> float:
        """Seconds until a query on a side answers what is wanted."""
        began = time.monotonic()
        with closing(sqlite3.connect(self._files[side], timeout=WAIT)) as database:
            while time.monotonic() - began < WAIT:
                row = database.execute(query).fetchone()
                if (None if row is None else row[0]) == wanted:
                    return time.monotonic() - began
                time.sleep(0.0005)
        raise RuntimeError(f"the change has not arrived on the {side} side within {WAIT:.0f} s: see dualwrite log")

    def _edit(self, told: str, side: Side, statement: str, query: str, wanted: object) -> None:
        self._sql(side, statement)
        seconds = self._arrives(side.other, query, wanted)
        self._story.latencies.append(seconds)
        arrow = "→" if side is Side.LEFT else "←"
        printing.terminal.console.print(
            f"  {arrow} {escape(told)}  [green]arrived after {seconds * 1000:.1f} ms[/green]"
        )

    def _live(self, runner: Runner) -> None:
        title("Live sync: applications write plain SQL on both sides")
        left, right = left_customer("DEMF001"), right_account("DEMF001")
        self._edit(
            "F&O: DEMF001's credit limit becomes 125000",
            Side.LEFT,
            f"UPDATE CustomersV3 SET CREDITLIMIT = 125000 WHERE {left}",
            f"SELECT CAST(creditlimit AS REAL) FROM accounts WHERE {right}",
            125000.0,
        )
        self._edit(
            "CRM: DEMF001 is put on hold for invoices",
            Side.RIGHT,
            f"UPDATE accounts SET msdyn_onholdstatus = 806380001 WHERE {right}",
            f"SELECT ONHOLDSTATUS FROM CustomersV3 WHERE {left}",
            "invoice",
        )
        self._edit(
            "F&O: a new payment term, Net 77",
            Side.LEFT,
            "INSERT INTO TermsofPayment (DATAAREAID, NAME, DESCRIPTION) VALUES ('demf', 'Net77', 'Net 77 days')",
            "SELECT msdyn_description FROM msdyn_paymentterms WHERE msdyn_name = 'Net77'",
            "Net 77 days",
        )
        self._edit(
            "CRM: DEMF001 pays with it (a lookup there, a name in F&O)",
            Side.RIGHT,
            "UPDATE accounts SET msdyn_paymentterm = (SELECT msdyn_paymenttermid FROM msdyn_paymentterms"
            f" WHERE msdyn_name = 'Net77') WHERE {right}",
            f"SELECT PAYMENTTERMS FROM CustomersV3 WHERE {left}",
            "Net77",
        )
        self._merge(runner)
        self._conflict(runner)

    def _merge(self, runner: Runner) -> None:
        title("Both sides edit one record at once, different columns: both edits stay")
        left, right = left_customer("DEMF001"), right_account("DEMF001")
        with runner.still():  # neither side has seen the other's edit
            self._sql(Side.LEFT, f"UPDATE CustomersV3 SET SALESMEMO = 'call before delivery' WHERE {left}")
            self._sql(Side.RIGHT, f"UPDATE accounts SET msdyn_creditrating = 'AA' WHERE {right}")
            printing.said("  F&O: memo 'call before delivery' · CRM: credit rating AA")
        self._arrives(Side.RIGHT, f"SELECT description FROM accounts WHERE {right}", "call before delivery")
        self._arrives(Side.LEFT, f"SELECT CREDITRATING FROM CustomersV3 WHERE {left}", "AA")
        for side, query in (
            (Side.LEFT, f"SELECT SALESMEMO || ' · ' || CREDITRATING FROM CustomersV3 WHERE {left}"),
            (Side.RIGHT, f"SELECT description || ' · ' || msdyn_creditrating FROM accounts WHERE {right}"),
        ):
            name = "F&O" if side is Side.LEFT else "CRM"
            printing.terminal.console.print(f"  {name} now: [green]{escape(str(self._value(side, query)))}[/green]")

    def _conflict(self, runner: Runner) -> None:
        title("The same column on both sides: the later edit wins, the other is kept", "dualwrite conflicts list")
        left, right = left_customer("DEMF001"), right_account("DEMF001")
        with runner.still():
            self._sql(Side.LEFT, f"UPDATE CustomersV3 SET CREDITLIMIT = 90000 WHERE {left}")
            time.sleep(0.02)  # the clocks of the two databases tell milliseconds
            self._sql(Side.RIGHT, f"UPDATE accounts SET creditlimit = 110000 WHERE {right}")
            printing.said("  F&O: credit limit 90000 · a moment later CRM: 110000")
        self._arrives(Side.LEFT, f"SELECT CAST(CREDITLIMIT AS REAL) FROM CustomersV3 WHERE {left}", 110000.0)
        self._settled(runner)
        printing.conflicts.conflicts(self._work.journal.conflicts(self._work.numbers()))

    # -- the end --------------------------------------------------------------------------------------------------

    def _prove(self, settle: Callable[[], bool]) -> bool:
        title("Do both sides agree?", f"dualwrite verify -C {self._folder}")
        reports = [verify(one, self._work.connectors, settle) for one in self._work.maps.values()]
        printing.reports.verified(reports, 5)
        parked = self._work.journal.parked(self._work.numbers())
        if parked:
            printing.parking.parked(parked)
        return all(report.clean for report in reports)

    def _summary(self, clean: bool) -> None:
        title("Summary")
        middle = statistics.median(self._story.latencies) * 1000
        rate = self._story.synced / max(self._story.seconds, 0.001)
        printing.said(
            f"{len(self._work.maps)} maps, {self._story.synced} records read and brought together in "
            f"{self._story.seconds:.1f} s ({rate:,.0f} records/s); live changes arrived after {middle:.1f} ms "
            f"(median); both sides {'agree' if clean else 'DIFFER'}."
        )
        printing.said(
            f"The project stays in {self._folder}/: look at its maps, try dualwrite status -C {self._folder}."
        )

    def _keep(self, runner: Runner) -> None:
        printing.said("Live sync is running: edit either database. Ctrl-C ends it.")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: runner.stop.set())
        runner.stop.wait()


def left_customer(account: str) -> str:
    """The condition for a demf customer in finops.db; the account is one of ours, not a person's input."""
    return f"DATAAREAID = 'demf' AND CUSTOMERACCOUNT = '{account}'"


def right_account(account: str) -> str:
    """The same customer in crm.db."""
    company = "(SELECT cdm_companyid FROM cdm_companies WHERE cdm_companycode = 'demf')"
    return f"accountnumber = '{account}' AND msdyn_company = {company}"
