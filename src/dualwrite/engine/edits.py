"""What people write into ``dualwrite.yaml`` while an engine runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final, Generic, TypeVar

from dualwrite.errors import Invalid
from dualwrite.project import FILE, Project, load_readable

SETTLED: Final = 0.5
"""Seconds for which a file must stay as it is: an editor may write it in pieces, and half of it may have a meaning."""

_Part = TypeVar("_Part")


class Edits(Generic[_Part]):
    """One part of a project's settings, as it is written by now.  Not thread-safe."""

    def __init__(self, project: Project, part: Callable[[Project], _Part], settled: float = SETTLED) -> None:
        self.now = part(project)
        self._part = part
        self._file = project.folder / FILE
        self._settled = settled
        self._taken = self._seen = _stamp(self._file)
        self._since = monotonic()

    def changed(self) -> _Part | None:
        """What the part says where that is something new; raises Invalid for a file that cannot be read, once."""
        stamp = _stamp(self._file)
        if stamp != self._seen:
            self._seen, self._since = stamp, monotonic()
        if stamp is None or stamp == self._taken or monotonic() - self._since < self._settled:
            return None
        self._taken = stamp
        project, problems = load_readable(self._file.parent)
        wrong = [problem for problem in problems if problem.file == str(self._file)]
        if project is None or wrong:
            raise Invalid(wrong or problems)
        before, self.now = self.now, self._part(project)
        return None if self.now == before else self.now


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Tells one state of a file from another; None while it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
