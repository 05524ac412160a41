"""``dualwrite status``, once; with ``--watch`` again and again, until somebody has seen enough."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, finish, interrupted_by_signals, is_halted, unbroken
from dualwrite.engine.clocks import apart, difference
from dualwrite.engine.retention import retained_by
from dualwrite.engine.status import status_of, stuck, warnings
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import DualwriteError, Problem


def status(
    folder: Folder = HERE,
    as_json: Json = False,
    again: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.", metavar="N", min=0.1)] = 2.0,
) -> None:
    """Show the state of every map."""
    with unbroken(folder, patient=True) as work:
        if again:
            watch(work, every, as_json)
            return
        report, owner = status_of(work), work.lease.owner()
        hindered, retained = stuck(work, owner), retained_by(work.answering)
        problems = [*hindered, *warnings(work, owner, retained)]
        problems += [] if work.absent else apart(difference(work.connectors))
        if as_json:
            printing.json_out(printing.states.status_json(report, owner, retained, problems))
        else:
            printing.states.statuses(report)
            printing.states.engine(owner)
            printing.states.retained(retained)
            printing.problems.told(problems)
        finish(not hindered and not is_halted(report))


def watch(work: Workspace, every: float, as_json: bool) -> None:
    """Look every so many seconds until interrupted; a system that does not answer is told, and asked again."""
    stop = threading.Event()
    with interrupted_by_signals(stop), printing.live.shown(as_json) as show:
        while not stop.is_set():
            _look(work, show)
            stop.wait(every)


def _look(work: Workspace, show: printing.live.Show) -> None:
    owner = work.lease.owner()
    try:
        work.look_again()
        report, retained = status_of(work), retained_by(work.answering)
        problems = [*stuck(work, owner), *warnings(work, owner, retained)]
    except DualwriteError as trouble:
        show([], owner, {}, [Problem("connection", trouble.message, trouble.remedy)])
    else:
        show(report, owner, retained, problems)
