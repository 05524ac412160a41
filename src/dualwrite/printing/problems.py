"""What ``check`` prints, and problems of files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape

from dualwrite.errors import Problem
from dualwrite.printing import terminal
from dualwrite.printing.terminal import COLOURS, said


def problems(found: Iterable[Problem]) -> None:
    """Problems of files, on the error stream."""
    for problem in found:
        print(problem, file=sys.stderr)


def problems_json(found: Iterable[Problem]) -> Mapping[str, object]:
    """Problems with all their fields."""
    names = (*Problem.__slots__, "dipv")
    return {"problems": [{name: getattr(problem, name) for name in names} for problem in found]}


def checked(found: Sequence[Problem]) -> None:
    """The result of ``check``."""
    told(sorted(found, key=lambda p: (p.level != "error", p.file, p.line)))
    errors = sum(problem.level == "error" for problem in found)
    warnings = len(found) - errors
    said(f"{errors} error(s), {warnings} warning(s)" if found else "all checks passed")


def told(found: Iterable[Problem]) -> None:
    """Problems with their remedies."""
    for problem in found:
        where = f"{problem.file}:{problem.line} " if problem.line else f"{problem.file} " if problem.file else ""
        side = f"{problem.side}: "
        of = side if problem.side and not where and not problem.message.startswith(side) else ""
        colour, code = COLOURS[problem.level], escape(f"[{problem.called}]")
        message = escape(f"{where}{of}{problem.message}")
        terminal.console.print(f"[{colour}]{problem.level}[/{colour}] {message} [dim]{code}[/dim]", soft_wrap=True)
        if problem.remedy:
            said(f"    → {problem.remedy}")
