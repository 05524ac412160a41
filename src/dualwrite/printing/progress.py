"""Progress bars of what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from dualwrite.printing import terminal

STEPS = {"compare": "comparing", "left": "writing left", "right": "writing right"}
"""What is shown of the steps of an initial sync."""


@contextmanager
def progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Progress bars of what takes long, one per map, on a terminal only."""
    words = (SpinnerColumn(), TextColumn("{task.description}"))
    numbers = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*words, *numbers, console=terminal.console, disable=not terminal.console.is_terminal) as bars:

        def report(map_name: str, step: str, done: int, total: int) -> None:
            doing = f"{escape(map_name)} · {STEPS.get(step, step)}"
            if map_name not in tasks:
                finish(bars)
                tasks[map_name] = bars.add_task(doing, total=None)
            bars.update(tasks[map_name], description=doing, completed=done, total=total or None)

        yield report
        finish(bars)


def finish(bars: Progress) -> None:
    """Nothing more comes for the bars so far; what only was counted has all been read."""
    for task in bars.tasks:
        bars.update(task.id, total=task.completed)
