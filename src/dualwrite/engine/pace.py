"""How many changes one of our transactions should have, learnt from how long the last ones held their locks."""

from __future__ import annotations

LARGEST = 10_000
"""Changes per transaction."""


class Pace:
    """``limit`` is for the next transaction, at most ``LARGEST``.

    A transaction that held its locks for too long makes the next ones smaller, at once; others let the limit grow,
    twofold at most, as far as their rate allows.  They need not have been as large as the limit for that: what is
    read together holds echoes and filtered rows besides what is carried, and users may be slower than we are.
    """

    def __init__(self, limit: int, smallest: int) -> None:
        """``limit`` is for the first one; there are never fewer changes than ``smallest``."""
        self.limit = limit
        self._smallest = smallest

    def took(self, seconds: float, changes: int, target: float) -> None:
        """A transaction with so many changes held its locks for so long, and should have for ``target`` seconds."""
        fitting = int(changes * target / max(seconds, 0.001))
        if seconds > 1.5 * target:
            self.limit = max(self._smallest, min(fitting, LARGEST))
        else:
            self.limit = min(LARGEST, 2 * self.limit, max(self.limit, fitting))
