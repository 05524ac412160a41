"""``dualwrite run``: the engine in the foreground, with its metrics and its log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.logs import Format, Level, log_lines
from dualwrite.cli.session import HERE, Folder, finish, interrupted_by_signals, is_halted, is_of_map, unbroken
from dualwrite.engine import commands
from dualwrite.engine.alerts import Alerts, want
from dualwrite.engine.courier import Courier
from dualwrite.engine.edits import Edits
from dualwrite.engine.lifecycle import NOT_RUNNING, RUNNING, STOPPED, is_live
from dualwrite.engine.meter import Meter
from dualwrite.engine.outage import BACKOFF
from dualwrite.engine.runner import Runner
from dualwrite.engine.status import status_of
from dualwrite.engine.watch import Gauges, Rounds
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import Invalid, Unavailable, Usage
from dualwrite.settings import listen_at
from dualwrite.urls import secrets_in


def run(
    folder: Folder = HERE,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when both feeds are drained.")] = False,
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start maps that never ran.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option(help="Serve metrics for Prometheus: PORT on this machine, or HOST:PORT.", metavar="PORT"),
    ] = None,
    log_format: Annotated[
        Format, typer.Option(help="Log lines for people, or a JSON object on each.", metavar="text|json")
    ] = Format.TEXT,
    log_level: Annotated[
        Level, typer.Option(help="The least important lines to log.", metavar="debug|info|warning|error")
    ] = Level.WARNING,
) -> None:
    """Run the link until interrupted.

    Starts maps that never ran, with an initial sync, then carries changes both ways as they are committed.  Maps with
    errors are told and left out.
    """
    listen = None if metrics is None else where_to_listen(metrics)
    with ready(folder, until_idle) as work:
        urls = [environment.url for environment in work.project.environments.values()]
        secrets = [*work.project.alerts.secrets, *(secret for url in urls for secret in secrets_in(url))]
        log_lines(log_format, log_level, secrets)
        are_whole = leave_out_broken(work)
        if not work.lease.acquire():
            raise Usage(f"another engine runs this link: {work.lease.owner()}", "stop it first, or use that one")
        if not no_start:
            states = work.states()
            for state in (states[name] for name in work.maps):
                if state.desired == STOPPED and state.state == NOT_RUNNING:
                    work.journal.set_state(state.map, desired=RUNNING)
        is_done = carry(work, until_idle, listen or work.project.metrics)
        if until_idle:
            if not is_done:
                printing.note("interrupted before everything was carried: the next run goes on")
            report = status_of(work)
            printing.states.statuses(report)
            finish(is_done and are_whole and not is_halted(report) and not any(row["parked"] for row in report))


@contextmanager
def ready(folder: Path, until_idle: bool) -> Iterator[Workspace]:
    """The project, open: also while a system does not answer that an engine knows from earlier.

    One that no engine knows is waited for, unless the engine is to end when it is idle.
    """
    attempt, stop = 0, threading.Event()
    while True:
        with ExitStack() as stack:
            try:
                work = stack.enter_context(unbroken(folder, patient=not until_idle))
            except Unavailable as trouble:
                if until_idle:
                    raise
                printing.error(trouble)
                with interrupted_by_signals(stop):
                    stop.wait(BACKOFF[min(attempt, len(BACKOFF) - 1)])
                if stop.is_set():
                    raise typer.Exit from None
                attempt += 1
            else:
                yield work
                return


def leave_out_broken(work: Workspace) -> bool:
    """Tell which maps are left out, because they have errors; True where there are none.

    Raises Invalid where nothing can run, or the error is not that of a map.
    """
    errors = [problem for problem in work.problems if problem.level == "error"]
    runs = work.maps or any(map(is_live, work.journal.states().values()))
    if errors and (not runs or not all(problem.map or is_of_map(work.project, problem) for problem in errors)):
        raise Invalid(errors)
    printing.problems.problems(errors)
    return not errors


def where_to_listen(metrics: str) -> tuple[str, int]:
    """The host and port that ``--metrics`` names; raises Usage for what is none."""
    try:
        return listen_at(metrics)
    except ValueError as wrong:
        raise Usage(f"--metrics {metrics!r}: {wrong}", "write a port like 9464, or HOST:PORT") from wrong


def carry(work: Workspace, until_idle: bool, listen: tuple[str, int] | None = None) -> bool:
    """Run the engine until it is interrupted, or idle if asked; False where it was interrupted.

    An initial sync that is cut short goes on later.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(interrupted_by_signals(stop))
        bars = stack.enter_context(printing.progress.progress())

        def progress(map_name: str, step: str, done: int, total: int) -> None:
            if stop.is_set():
                raise typer.Exit(int(until_idle))
            bars(map_name, step, done, total)

        engine = work.engine(progress=progress)
        gauges = watched(work, engine.meter, stack)
        if listen is not None:
            from dualwrite.engine.exposition import Exposition, served  # most runs need no metrics

            exposition = Exposition(work.project.link, engine.meter, lambda: gauges.standing)
            printing.said(f"metrics: {stack.enter_context(served(listen, exposition))}")
        runner = Runner(engine, commands.execute, stop)
        try:
            runner.open(until_idle)
            if not until_idle:
                printing.said(f"link {work.project.link}: {len(work.maps)} map(s); Ctrl-C ends it")
            runner.run(until_idle)
        finally:
            engine.close()
    return not stop.is_set()


def watched(work: Workspace, meter: Meter, stack: ExitStack) -> Gauges:
    """Look after the engine as long as the stack stands: gauges, rules of alerts, and what they have to say."""
    gauges, edits = Gauges(work.journal, work.connectors, meter), Edits(work.project, attrgetter("alerts"))
    budget = work.project.limits.retained
    alerts = Alerts(work.project.link, work.journal, meter, edits.now, edits.changed, want(work.journal), budget)
    courier = Courier(work.journal, lambda: edits.now)
    stack.enter_context(Rounds("alerts", alerts.look))
    stack.enter_context(Rounds("gauges", gauges.count, gauges.ask))
    stack.enter_context(Rounds("courier", courier.deliver))
    return gauges
