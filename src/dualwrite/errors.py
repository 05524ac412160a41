"""The exception tree, sorted by what is done about each.

    DualwriteError
    ├── Usage            the person asked for something impossible: say what is possible (exit code 2)
    ├── Invalid          a file a person wrote is wrong: carries Problems with file, line and remedy
    ├── Unavailable      a system does not answer for now: retry with backoff, nothing is parked
    │   └── Busy         others hold what a transaction needs: it gives way, and is done again
    ├── Denied           a system refuses us: stop and tell
    ├── PositionLost     a feed no longer holds what we have not read (restored, trimmed, dropped): stop and tell
    ├── Halted           one map must not go on without a person: stop that map and tell
    │   └── Braked       it would change more than the limits allow unasked: a person lets it, or not
    ├── Superseded       another engine has taken over this stream: stop at once
    └── RowProblem       one row cannot be mapped: park it, alone; never escapes the engine

Trouble with single rows in a target is not an exception but an ``Outcome`` (see ``model``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualwrite.dipv import NUMBERS


class DualwriteError(Exception):
    """Base of all our errors.  ``message`` says what happened and where, ``remedy`` what to do next."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} — {self.remedy}" if self.remedy else self.message


class Usage(DualwriteError):
    """The command cannot be done as asked."""


class Unavailable(DualwriteError):
    """A system does not answer for now (locked, unreachable, full)."""


class Busy(Unavailable):
    """Others hold what our transaction needs: it was given up, and the same again goes through once they have ended."""


class GivenUp(Busy):
    """The same about what only a person has asked for: it is not tried again by itself."""


class Denied(DualwriteError):
    """A system refuses us for good (privileges, read-only, not a database)."""


class PositionLost(DualwriteError):
    """The feed does not hold what follows the position any more, or is another feed."""


class Superseded(DualwriteError):
    """The position in the target is not the one this engine wrote: another engine runs this link."""


class Halted(DualwriteError):
    """One map must not go on without a person's word."""

    def __init__(self, map: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.map = map


class Stopped(Halted):
    """A person wants one map to be stopped in the middle of what is being done for it."""


class Drifted(Halted):
    """The tables of one map are not what they were: whether it can go on is to be found out.

    Without a message nothing speaks against it.
    """


class Braked(Halted):
    """One map would change more than the limits allow unasked: ``count`` records of one side."""

    def __init__(self, map: str, message: str, remedy: str, count: int) -> None:
        super().__init__(map, message, remedy)
        self.count = count


class Flooded(Halted):
    """One map's users have changed more than the limits allow unasked: it is paused until a person resumes it."""


class RowProblem(DualwriteError):
    """A row cannot be carried over.  ``code`` is stable and documented, ``column`` is the path at fault."""

    def __init__(self, code: str, column: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.code = code
        self.column = column


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a file, a map or a system.  ``level`` is ``error`` or ``warning``."""

    code: str
    message: str
    remedy: str = ""
    level: str = "error"
    file: str = ""
    line: int = 0
    map: str = ""
    side: str = ""

    @property
    def dipv(self) -> tuple[str, ...]:
        """The numbers under which Dual-write tells the same."""
        return NUMBERS.get(self.code, ())

    @property
    def called(self) -> str:
        """The code, with Dual-write's numbers."""
        return f"{self.code} ({', '.join(self.dipv)})" if self.dipv else self.code

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        what = f"{where}{self.level} {self.called}: {self.message}"
        return f"{what} — {self.remedy}" if self.remedy else what


class Invalid(DualwriteError):
    """Something that a person wrote is wrong; every problem at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
