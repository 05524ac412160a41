"""What a transaction of ours has met and written, for those who decide whether it may be committed, and who read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field

from dualwrite.model import Key, Value
from dualwrite.schema import View


@dataclass(frozen=True, slots=True)
class Written:
    """A record of a loud table as we have left it: what tells it apart before and after, and the columns that we set.

    ``before`` is None for an insert, ``after`` for a delete.
    """

    table: str
    before: tuple[Value, ...] | None
    after: tuple[Value, ...] | None
    values: Mapping[str, Value]


@dataclass
class Ledger:
    """What a transaction has met and written.

    ``touched`` are, per view, the keys of records met that users may have changed in a transaction which is not surely
    older than ``horizon``, the ``pg_snapshot_xmin`` of an earlier moment; without one all of them.  Those that one of
    ``ours``, earlier transactions of this session, wrote last do not count: nobody has changed them since.  What was
    not there has no version to tell, so it always counts; what we wrote before in this transaction does not.
    ``written`` tells of the records of ``loud`` tables.
    """

    horizon: int | None = None
    loud: frozenset[str] = frozenset()
    ours: MutableSequence[str] = field(default_factory=list)
    touched: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    written: list[Written] = field(default_factory=list)
    _ours: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _met: set[str] = field(default_factory=set)

    def notice(self, view: View, keys: Sequence[Key]) -> None:
        """We have met records whose last versions are not surely old ones."""
        ours = self._ours[view.table]
        self.touched[view.name].update(keys if not ours else [key for key in keys if key not in ours])

    def wrote(self, view: View, keys: Iterable[Key]) -> None:
        """The last versions of these records are ours."""
        if self.horizon is not None:
            self._ours[view.table].update(keys)

    @property
    def has_doubts(self) -> bool:
        """May users just have changed a record that we have met?"""
        return any(self.touched.values())

    def may_go_straight(self, view: View) -> bool:
        """Has no record of this view been there already when it was to be new?"""
        return view.name not in self._met and view.table not in self.loud

    def has_met(self, view: View) -> None:
        """Some record was there already."""
        self._met.add(view.name)
