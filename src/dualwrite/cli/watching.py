"""``dualwrite status --watch``: the same, again and again, until somebody has seen enough."""

from __future__ import annotations

import threading

from dualwrite import printing
from dualwrite.cli.running import interrupted_by_signals
from dualwrite.engine.retention import retained_by
from dualwrite.engine.status import status_of, stuck, warnings
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import DualwriteError, Problem
from dualwrite.printing.live import Show


def watch(work: Workspace, every: float, as_json: bool) -> None:
    """Look every so many seconds until interrupted; a system that does not answer is told, and asked again."""
    stop = threading.Event()
    with interrupted_by_signals(stop), printing.live.shown(as_json) as show:
        while not stop.is_set():
            _look(work, show)
            stop.wait(every)


def _look(work: Workspace, show: Show) -> None:
    owner = work.lease.owner()
    try:
        work.look_again()
        report, retained = status_of(work), retained_by(work.answering)
        problems = [*stuck(work, owner), *warnings(work, owner, retained)]
    except DualwriteError as trouble:
        show([], owner, {}, [Problem("connection", trouble.message, trouble.remedy)])
    else:
        show(report, owner, retained, problems)
