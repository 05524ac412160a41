"""What ``status --watch`` prints: a picture that changes on a terminal, else a line for what has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.text import Text

from dualwrite.engine.status import MapStatus
from dualwrite.errors import Problem
from dualwrite.model import Side
from dualwrite.printing import terminal
from dualwrite.printing.states import coming, states_table, status_json
from dualwrite.printing.terminal import said, stamp, tidied

Show = Callable[[Sequence[MapStatus], str | None, Mapping[Side, int], Sequence[Problem]], None]
"""Shows what was found: as ``status`` does."""


@contextmanager
def shown(as_json: bool) -> Iterator[Show]:
    """How what is found, again and again, is shown."""
    if as_json:
        yield lambda *found: print(json.dumps(status_json(*found), ensure_ascii=False, default=str), flush=True)
    elif terminal.console.is_terminal:
        with Live(console=terminal.console, auto_refresh=False, screen=False) as live:
            yield lambda report, owner, _, problems: live.update(_picture(report, owner, problems), refresh=True)
    else:
        yield _lines()


def _picture(report: Sequence[MapStatus], owner: str | None, problems: Iterable[Problem]) -> Group:
    engine = f"engine: {owner}" if owner else "no engine is running: dualwrite run starts one"
    told = [Text(str(problem), style="yellow") for problem in problems]
    return Group(tidied(states_table(report)), Text(f"{engine} · {terminal.when(time.time())} · Ctrl-C leaves"), *told)


def _lines() -> Show:
    """A line for each map, and again whenever something of it is new; the same with the engine and with problems."""
    before: dict[str, str] = {}

    def tell(name: str, line: str) -> None:
        if before.get(name) != line:
            before[name] = line
            said(f"{stamp(time.time())} {line}")

    def show(
        report: Sequence[MapStatus], owner: str | None, _: Mapping[Side, int], problems: Sequence[Problem]
    ) -> None:
        tell("engine", f"engine: {owner}" if owner else "no engine is running")
        for row in report:
            tell(f"map {row['map']}", _line(row))
        for problem in problems:
            tell(f"problem {problem.code} {problem.side}", str(problem))

    return show


def _line(row: MapStatus) -> str:
    counts = f"parked={row['parked']} conflicts={row['conflicts']} queued={row['queued']} lag={row['lag_seconds']:.1f}"
    reason = f" — {row['reason']}" if row["reason"] else ""
    return f"{row['map']}: {row['state']}{coming(row)} {counts}{reason}"
