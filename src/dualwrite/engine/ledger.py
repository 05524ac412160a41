"""What one apply transaction has to do for each record, and what it leaves behind besides the rows.

A ``Plan`` holds the changes of one record that are still to be applied.  The ``Ledger`` gathers what the journal must
hold before the commit and what the caches must learn behind it; side-table entries go into the transaction at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dualwrite.connectors.base import Transaction
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.contest import Hidden, Loss, Undecided
from dualwrite.engine.link import (
    HIDDEN,
    PARKED,
    QUEUED,
    RESTORE,
    VACANT,
    LinkSide,
    Vacancy,
    hidden_text,
    key_of,
    key_text,
    parked_text,
    restore_text,
    vacancy_text,
)
from dualwrite.engine.parents import Wanted
from dualwrite.engine.release import BEHIND, CONFLICT, Cause, cause_of
from dualwrite.journal import Conflict, Layout, ParkedKey
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Row, Side, Write, show_key


@dataclass(slots=True)
class Plan:
    """What a batch does to one record: its changes in feed order, none of them applied yet."""

    compiled: CompiledMap
    key: Key
    changes: list[Change]
    new_key: Key
    fetched: list[Row] | None = None
    first: Position | None = None  # where the other side's seeing of the record ends, once it is parked
    since: int | None = None  # from which earlier commit on it has been parked
    met: bool = False  # did own changes of the target meet it?
    losses: tuple[Loss, ...] = ()
    edited: Sequence[int] | None = None  # the cells in which the images of its one change differ, where that is known

    @property
    def renames(self) -> bool:
        """Does the record get another key?"""
        return self.key != self.new_key

    @property
    def is_plain(self) -> bool:
        """Do its changes merge into one?  A record that comes back is more than its first and last image."""
        if len(self.changes) == 1:
            return True
        later = any(change.kind is Kind.INSERT for change in self.changes[1:])
        return not later and not (self.changes[0].kind is Kind.INSERT and self.changes[-1].kind is Kind.DELETE)

    def left(self, changes: list[Change]) -> Plan:
        """The plan with only these of its changes left to do."""
        return replace(self, changes=changes, edited=None)

    def merged(self) -> Change:
        """All changes as one: first before, last after; needs ``is_plain``."""
        first, last = self.changes[0], self.changes[-1]
        if len(self.changes) == 1:
            return first
        kind = Kind.INSERT if first.kind is Kind.INSERT else Kind.DELETE if last.after is None else Kind.UPDATE
        merged = last.with_images(first.before, last.after)
        return merged._replace(kind=kind, key=first.key, weak=first.weak and last.weak)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a record could not be carried.  ``parents`` are the records of which any one would let it go."""

    code: str
    reason: str
    column: str = ""
    waits_table: str = ""
    waits_key: str = ""
    parents: tuple[Wanted, ...] = ()


class Doubt(Exception):
    """A record is not what it should be, and something that the same transaction has written before may be why.

    A trigger or a cascade of the target has perhaps changed it, which the feed tells behind the commit only.
    """


class Unread(Exception):
    """A decision depends on what the target's users did, and this transaction has not looked at that."""


class Ledger:
    """What one apply transaction leaves behind besides the rows.

    ``parked`` are plans with the reason why they were not carried, ``queued`` changes behind records that are parked
    already, ``freed`` records that are not parked any more, ``hidden`` and ``restore`` what the side table learns,
    ``tables`` those in which something was written, ``counts`` by map and outcome what became of changes.  ``touched``
    are records that earlier parts of the transaction have decided about: a trigger may have changed them since, which
    nobody can have told yet.  Each has a change that finds it.  ``has_folded``: a decision depends on what the target's
    users are known to have done.  ``loaded`` are maps of which records went in as they are, because nobody is known to
    have touched the target; ``inserts_whole``: all at once.  ``applied`` are the writes that changed something, with
    their plans, and ``freed_by`` is why parked records are free.  ``vacant`` are records that were not there and are
    left so.
    """

    def __init__(self, here: LinkSide, transaction: Transaction, *, divisible: bool = False) -> None:
        """``here`` is the target that the transaction writes to; ``divisible``: its work may be done in parts."""
        self.parked: list[tuple[Plan, Trouble]] = []
        self.queued: list[tuple[CompiledMap, Key, Change]] = []
        self.freed: list[tuple[str, Key]] = []
        self.conflicts: list[Conflict] = []
        self.hidden: dict[tuple[str, Key], Hidden | None] = {}
        self.restore: dict[tuple[str, Key], Key] = {}
        self.tables: set[str] = set()
        self.touched: dict[tuple[str, Key], Change] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.has_folded = False
        self.loaded: set[str] = set()
        self.inserts_whole = False
        self.arrived: tuple[Backlog, Position | None] | None = None
        self.applied: list[tuple[Plan, Write]] = []
        self.freed_by = "retried"
        self.vacant: dict[tuple[str, Key], None] = {}
        self._here = here
        self._divisible = divisible
        self._transaction = transaction
        self._parked: set[tuple[str, Key]] = set()
        self._freed: set[tuple[str, Key]] = set()

    @property
    def number(self) -> int:
        """The transaction's (see ``Transaction``)."""
        return self._transaction.number

    def decide(self) -> None:
        """From here on, decisions depend on what the target's users are known to have done."""
        if not self._here.is_read:
            raise Unread
        self.has_folded = True

    def arrive(self, lane: Backlog, position: Position | None) -> None:
        """The target has received a delayed map's changes up to here; None: from here on they simply flow."""
        text = None if position is None else str(position)
        self._transaction.remember(QUEUED, lane.map, "", text)
        self.arrived = (lane, position)

    # -- parked records -------------------------------------------------------------------------------------------

    def is_parked(self, map_name: str, key: Key) -> bool:
        """Is the record parked, as this transaction sees it?"""
        record = (map_name, key)
        return record in self._parked or (record not in self._freed and record in self._here.parked)

    def park(self, plan: Plan, trouble: Trouble, first: Position | None = None, since: int | None = None) -> None:
        """Park a record with the changes of its plan; ``first`` is where its parked changes begin, ``since`` the commit
        from which on it has been parked, if that was an earlier one."""
        first = first or plan.changes[0].position
        for key in dict.fromkeys((plan.key, plan.new_key)):
            mine = plan if key == plan.key else Plan(plan.compiled, key, [], key)
            mine.first, mine.since = first, since
            self.parked.append((mine, trouble if key == plan.key else behind(plan.key)))
            self._parked.add((plan.compiled.name, key))
            self._transaction.remember(PARKED, plan.compiled.name, key_text(key), parked_text(first, since))
        self.counts[plan.compiled.name, "parked"] += 1

    def suspect(self, plan: Plan, trouble: Trouble) -> None:
        """Park a record that something has changed past the capture, so it seems.

        Raises Doubt where it may also have been what this transaction wrote before, and smaller ones would tell.
        """
        if self._divisible and self.tables:
            raise Doubt
        self.park(plan, trouble)

    @property
    def holds_any(self) -> bool:
        """Is, or was lately, some record parked, as this transaction sees it?"""
        return bool(self._here.parked or self._parked)

    @property
    def hides_any(self) -> bool:
        """Does, or did, some row lie under a delete, as this transaction sees it?"""
        return bool(self.hidden or self._here.hidden)

    def queue(self, compiled: CompiledMap, keys: tuple[Key, ...], change: Change) -> bool:
        """Queue a change behind the parked ones of its record; False where none are.

        A rename holds back its new key as well.  Between two parked records it is in both queues: neither is taken
        again without it, for what follows in the new key's queue is about the record that it brings.
        """
        if not self.holds_any:
            return False
        held = [key for key in keys if self.is_parked(compiled.name, key)]
        if not held:
            return False
        self.queued += [(compiled, key, change) for key in held]
        for key in keys:
            if not self.is_parked(compiled.name, key):
                self.park(Plan(compiled, key, [], key), behind(held[0]), first=change.position)
        return True

    def free(self, map_name: str, key: Key) -> None:
        """The record is not parked any more (unless what follows parks it again)."""
        self._freed.add((map_name, key))
        self.freed.append((map_name, key))
        self._transaction.remember(PARKED, map_name, key_text(key), None)

    # -- rows under a delete, one-way columns to be restored ------------------------------------------------------

    def hide(self, compiled: CompiledMap, key: Key, hidden: Hidden | None) -> None:
        """Keep, or drop, the row that lies under a record's delete."""
        map_name = compiled.name
        if self.row_under(map_name, key) != hidden:
            self.hidden[map_name, key] = hidden
            text = None if hidden is None else hidden_text(hidden, compiled.views[self._here.side])
            self._transaction.remember(HIDDEN, map_name, key_text(key), text)

    def row_under(self, map_name: str, key: Key) -> Hidden | None:
        """The row under a record's delete, as this transaction sees it."""
        record = (map_name, key)
        return self.hidden[record] if record in self.hidden else self._here.hidden.get(record)

    def restore_later(self, compiled: CompiledMap, key: Key, natural: Key) -> None:
        """The source is to take the target's one-way columns again; ``natural`` finds the record here."""
        if (compiled.name, key) not in self.restore:
            self.restore[compiled.name, key] = natural
            text = restore_text(natural, compiled.views[self._here.side])
            self._transaction.remember(RESTORE, compiled.name, key_text(key), text)

    def leave_absent(self, compiled: CompiledMap, key: Key) -> None:
        """The record is not there, or not for the map, and nothing is written that would lock it: which matters where
        users can commit meanwhile."""
        if not self._here.connector.capabilities.exclusive:
            self.vacant[compiled.name, key] = None

    def note_vacant(self, vacancy: Vacancy) -> None:
        """Keep for how long it matters which records were left absent (see ``Vacancy``)."""
        lasting = self._here.vacant.lasting
        if lasting or self.vacant:
            text = vacancy_text(vacancy)
            for (map_name, key), value in {**dict.fromkeys(lasting), **dict.fromkeys(self.vacant, text)}.items():
                self._transaction.remember(VACANT, map_name, key_text(key), value)

    # -- conflicts ------------------------------------------------------------------------------------------------

    def conflict(self, plan: Plan, loss: Loss, *, is_open: bool = False) -> None:
        """Put a loss into the conflict log."""
        if loss.policy == "manual" and not is_open:
            return  # the conflict is in the log since it was found; the decision has closed it
        self.counts[plan.compiled.name, "conflict"] += 1
        loser, beats = loss.loser, loss.beats
        if is_open and self._here.side is Side.LEFT:
            loser, beats = beats, loser  # an open conflict has no loser yet: left change first, so both flows find one
        self.conflicts.append(
            Conflict(
                map=plan.compiled.name,
                side=self._here.side,
                key=key_text(plan.key),
                shown_key=show_key(plan.key),
                unit=loss.unit,
                left=loss.values.get(Side.LEFT),
                right=loss.values.get(Side.RIGHT),
                base=loss.base,
                winner="" if is_open else loss.winner.value,
                policy=loss.policy,
                at=datetime.now(UTC).timestamp(),
                loser=loser,
                beats=beats,
                open=is_open,
                layout=Layout.of(plan.compiled.views[self._here.side]),
            )
        )


SET_ASIDE = Trouble("set_aside", "it was queued while the map was paused, and set aside when the map was resumed")
"""The trouble of what a person did not want to be carried when a map was resumed."""
BYPASSED = Trouble(
    "bypassed",
    "the target's record is not what it should be, and no captured change says why: something wrote past the capture",
)


def behind(key: Key) -> Trouble:
    """The trouble of a record that waits for another one of the same map."""
    return Trouble(BEHIND, f"waits behind the parked record {show_key(key)}", "", "", key_text(key))


def ambiguous(table: str, count: int) -> Trouble:
    """The trouble of a key that several records of the target hold."""
    return Trouble("ambiguous", f"{count} records of {table} hold this key")


def undecided(verdict: Undecided) -> Trouble:
    """The trouble of a record that a person has to decide."""
    return Trouble(CONFLICT, "both sides changed it; a person decides: " + ", ".join(verdict.units), verdict.units[0])


def cause_at(compiled: CompiledMap, target: Side, why: Trouble | ParkedKey) -> Cause:
    """What keeps a record of a map parked at the target, and what would let it go."""
    ahead = (compiled.name, key_of(why.waits_key)) if why.code == BEHIND else None
    return cause_of(why.code, why.column, why.waits_table, ahead, compiled.views[target].table)


def parked_key(target: Side, plan: Plan, trouble: Trouble) -> ParkedKey:
    """The journal's entry for a parked plan."""
    return ParkedKey(
        side=target,
        map=plan.compiled.name,
        key=key_text(plan.key),
        shown_key=show_key(plan.key),
        code=trouble.code,
        reason=trouble.reason,
        column=trouble.column,
        waits_table=trouble.waits_table,
        waits_key=trouble.waits_key,
        layout=Layout.of(plan.compiled.views[target.other]),
    )
