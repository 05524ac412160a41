"""One direction of a link: source feed → maps → target.

A flow reads the source's changes in commit order and applies them in transactions of the target, which carry the
position with the rows.  Its life: ``open`` finds out where it stood; ``turn`` reads and applies one batch and does
what that leaves to do; ``close`` lets go.  A crash anywhere loses nothing that is not in one of the two databases or
the journal: what was not committed is read again, what was is passed over by its position.

Not thread-safe: whoever calls a flow holds its ``lock``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from dualwrite.connectors.base import Feed, Transaction
from dualwrite.engine.ahead import Ahead
from dualwrite.engine.apply import Application
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.brakes import Deletes, Updates
from dualwrite.engine.continuity import acknowledged, check_feed, commits_of, keep_let_go
from dualwrite.engine.delays import Delays
from dualwrite.engine.doing import Notes
from dualwrite.engine.giving_way import DIVIDE, GivingWay
from dualwrite.engine.ledger import Doubt, Ledger, Plan, Unread, behind, cause_at, parked_key
from dualwrite.engine.link import HIDDEN, RESTORE, Link, Point, Vacancy, key_text, no_point
from dualwrite.engine.loops import LOOP
from dualwrite.engine.meter import InHand
from dualwrite.engine.moving import move_records
from dualwrite.engine.pace import Pace
from dualwrite.engine.restore import Restorer
from dualwrite.engine.retries import Retries
from dualwrite.engine.spool import Weak
from dualwrite.engine.window import project, record_keys
from dualwrite.errors import Busy, Halted, PositionLost, RowProblem, Superseded
from dualwrite.journal import Layout
from dualwrite.model import Batch, Change, Key, Kind, Position, Side

LOCK_TARGET, ROWS_TARGET = 0.05, 0.15
"""Seconds that one of our transactions should hold its locks, where these keep all other writers of the target out, and
where they are those of single rows; batches are sized to it."""
FIRST, SMALLEST = 500, 50
"""Changes per batch: of the first one, and at least."""
SMALLEST_OF_ROWS = 250
"""At least, where locks are those of single rows: with fewer, most of a transaction is what any of them takes."""
LOADED = 40_000
"""Differences per batch of an initial sync that go in at once, which keeps nobody from writing other records."""
LAGGING = 2_000
"""So many own changes of the target are read inside a transaction; where there are more, the others are read without
its locks first."""
BARED = 1_000
"""Hidden rows at most that a transaction takes out of the side table besides what it is about."""
log = logging.getLogger(__name__)


class _LaggingError(Exception):
    """More has come from the target's users than is read while we hold locks."""


class Flow:
    """The flow out of ``source``."""

    def __init__(self, link: Link, source: Side, point: Point = no_point) -> None:
        self.link = link
        self.source = source
        self.target = source.other
        self.stream = link.stream(source)
        self.lock = threading.RLock()
        self.point = point
        self.committed: Position | None = None
        self.carried: Position | None = None
        self.giving_way = GivingWay(Notes(link.journal, str(source)), self.stream, link.is_ending)
        self.restorer = Restorer(link, source, point, self.giving_way)
        self.retries = Retries(link, source, point, self.transact)
        self.delays = Delays(link, source, point, self.transact, self._carry_queued, LOCK_TARGET)
        self._from = link.sides[source]
        self._to = link.sides[self.target]
        self.pace = Pace(FIRST, SMALLEST)
        self._feed: Feed | None = None
        self._reads_ahead = False
        self._again: Batch | None = None
        self._read_to: Position | None = None
        self._bared: set[tuple[str, Key]] = set()
        self._began = self._locked = 0.0  # since when a transaction is open, and has been holding its locks
        self._looked: Position | None = None  # up to where the transaction that is open knew the target when it began
        self._deletes = Deletes(link.journal, self.stream, link.delete_limit)
        self._updates = None if link.updates is None else Updates(link.updates, self._rows)
        self._crowded: frozenset[str] = frozenset()
        self._loads = False  # did the last differences of an initial sync simply go in?

    # -- opening and closing --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Find the position in the target; a link that never ran begins at the source's present end.

        Raises PositionLost when the source does not hold what follows the position any more; without live maps nothing
        can be lost, and the flow begins anew.
        """
        with self._to.connector.transaction(self.stream) as transaction:
            self.committed = transaction.position()
            if self.committed is None or not (self.link.maps or self._is_whole(self.committed)):
                self.committed = self._from.connector.end()
                self.link.journal.put(f"acknowledged.{self.source}", None)
                self.link.journal.put(f"let_go.{self.source}", None)
                transaction.commit(self.committed)
        self.carried = self.committed
        if not self._to.connector.capabilities.exclusive:
            self.pace = Pace(FIRST, SMALLEST_OF_ROWS)
        self._check_feed(self.committed)
        self.reopen()
        self._take_over()

    def _take_over(self) -> None:
        """An engine that was believed dead must find that the target is not as it left it, should it go on."""
        with self._to.connector.transaction(self.stream) as transaction, self._to.committed(transaction, None):
            pass

    def move_records(self) -> None:
        """Bring what is kept at the target to the keys that the maps have now."""
        move_records(self.link, self.source, self.transact)

    def _check_feed(self, committed: Position) -> None:
        connectors = {side: state.connector for side, state in self.link.sides.items()}
        check_feed(self.link.journal, connectors, self.source, self.link.views(self.source), committed)

    def _is_whole(self, committed: Position) -> bool:
        try:
            self._check_feed(committed)
        except PositionLost:
            return False
        return True

    def reopen(self) -> None:
        """Read from the oldest that the source keeps: what was carried already rebuilds the source's windows."""
        self.close_feed()
        self._again = self._read_to = None
        feed = self._from.connector.feed(self.link.views(self.source), None)
        self._feed = self._ahead(feed) if self._reads_ahead else feed

    def read_ahead(self) -> None:
        """From now on, the next batch is decoded while the target writes one."""
        if not self._reads_ahead and self._feed is not None:
            self._reads_ahead, self._feed = True, self._ahead(self._feed)

    def _ahead(self, feed: Feed) -> Ahead:
        ahead = Ahead(feed, self.stream)
        self._from.read_on = ahead.go_on
        return ahead

    def close_feed(self) -> None:
        """Let go of the feed."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    # -- the loop -------------------------------------------------------------------------------------------------

    def turn(self, timeout: float) -> bool:
        """Read and apply one batch, then what it leaves to do.  True if anything was there."""
        batch = self._again or self._read(timeout)
        self._again = batch  # until it is applied: a failure comes back to it
        moved = self.step(batch)
        self._again = None
        if self._from.backlogs:
            moved = self.delays.catch_up() or moved
        self.settle(idle=not batch.changes)
        self.retain(batch)
        return moved or bool(batch.changes)

    def drain(self, boundary: Position, heard: Callable[[Sequence[Change]], None] | None = None) -> None:
        """Carry what the feed holds up to ``boundary``, and not a change behind it; ``heard`` is told all of it."""
        while self.carried is None or self.carried < boundary:
            batch = self._again or self._read(0.05)
            self._again = batch
            head = tuple(change for change in batch.changes if change.position <= boundary)
            if heard is not None:
                heard(head)
            if batch.position <= boundary:
                self.step(batch)
                self._again = None
                continue
            self.step(replace(batch, changes=head, position=boundary))
            rest = batch.changes[len(head) :]
            self._again = replace(batch, changes=rest) if rest else None

    def pass_over(self) -> None:
        """Read on while there is nothing but what came back of the other flow's work, so that the source need not keep
        it; what a user has done stays for ``drain``."""
        while self._again is None:
            batch = self._read(0.0)
            if batch.changes:
                self._again = batch
            elif self.carried is not None and batch.position <= self.carried:
                return
            else:
                self._advance(batch.position)

    def carry_weak(self, weak: Weak) -> None:
        """Carry differences that an initial sync found; their positions lie just behind its boundary."""
        loads = False

        def work(transaction: Transaction) -> Ledger:
            self._tidy(transaction)
            return Application(self.link, self.source, transaction, divisible=True).load(weak)

        try:
            ledger = self.transact(work, weak.last, DIVIDE)
            self._tidied()
            loads = ledger.inserts_whole
            self._advance(weak.last)
        except (Doubt, Busy):
            self._carry([weak.change(number) for number in range(len(weak.rows))], weak.last)
        finally:
            self._loads = loads  # not earlier: the next differences are made ready meanwhile
        self._took(len(weak.rows))

    @property
    def weak_limit(self) -> int:
        """How many differences ``carry_weak`` should get at once."""
        return LOADED if self._loads else self.pace.limit

    def _read(self, timeout: float) -> Batch:
        assert self._feed is not None, "open() comes first"
        batch = self._feed.read(self.pace.limit, timeout)
        self._heed(batch, self.source)
        self._read_to = batch.position
        self.point("after read")
        self._from.learned(batch.mark)
        if self._from.backlogs:
            self.delays.keep(batch, self._tag)
        self._from.windows.extend(batch.changes, batch.position)
        if self._to.parked:
            without = {c.view for c in batch.changes if c.kind is not Kind.INSERT and not any(c.key)}
            self._to.release.keyed(without)
        if self._from.release.waits and batch.changes:
            tables = {name: compiled.views[self.source].table for name, compiled in self.link.maps.items()}
            self._from.release.written({tables[change.view] for change in batch.changes if change.view in tables})
        return batch

    def listen(self, timeout: float) -> Batch:
        """Read, and keep what is delayed: for while the target does not answer, so that nothing is carried."""
        assert self._feed is not None, "reopen() comes first"
        batch = self._feed.read(self.pace.limit, timeout)
        self._heed(batch, self.source)
        self.delays.keep(batch, self._tag)
        return batch

    def in_hand(self) -> dict[str, InHand]:
        """Per map what is read and not carried yet, by the source's clock.  For any thread."""
        batch, carried = self._again, self.carried
        found: dict[str, list[float]] = {}
        for change in () if batch is None else batch.changes:
            is_new = carried is None or change.position > carried
            if is_new and change.view in self.link.maps and not self.delays.is_delayed(change.view):
                found.setdefault(change.view, []).append(change.at)
        return {name: InHand(len(times), min(times)) for name, times in found.items()}

    def _heed(self, batch: Batch, side: Side) -> None:
        """Raises Halted for a map that something in a side's feed keeps from going on."""
        for halt in batch.halts:
            floor = self.link.sides[side].windows.floor_of(halt.view)
            if halt.view in self.link.maps and (floor is None or halt.position > floor):
                raise Halted(halt.view, f"{side}: {halt.reason}", halt.remedy)

    def step(self, batch: Batch) -> bool:
        """Apply one batch; True if a transaction was needed.

        A batch in which nothing is carried writes no position (two flows would chase each other's markers for ever):
        its progress lives in memory and in what the source is told to keep.
        """
        changes = self.arrivals(batch.changes)
        if not changes:
            self._advance(batch.position)
            return False
        if self._updates is not None:
            self._updates.refuse_floods(self.source, changes)
        self._carry(changes, batch.position, self._over_limit(changes))
        self._took(len(changes))
        return True

    def _carry_queued(self, changes: Sequence[Change], position: Position, lane: Backlog) -> float:
        """Apply changes of a delayed map, which its queue holds up to a position; returns how long they held locks."""
        self._carry(changes, position, self._over_limit(changes), lane)
        return time.monotonic() - self._locked

    def _carry(
        self,
        changes: Sequence[Change],
        position: Position,
        held: Collection[str] = frozenset(),
        lane: Backlog | None = None,
    ) -> None:
        """Apply changes in one transaction; in smaller ones where only these can tell what the target did by itself, or
        get the locks: of a single record users cannot keep us away by locking in another order.

        What a trigger or a cascade did in the first part is in the feed when the second one begins.  Changes from the
        ``lane`` of a delayed map leave the position of the other maps where it is.
        """
        is_divisible = bool(changes) and changes[0].position != changes[-1].position

        def work(transaction: Transaction) -> Ledger:
            self._tidy(transaction)
            application = Application(self.link, self.source, transaction, held, divisible=is_divisible)
            is_set_aside = lane is not None and lane.skip == "preserve"
            ledger = application.set_aside(changes) if is_set_aside else application.run(changes)
            if lane is not None:
                self.delays.arrive(lane, ledger, transaction, position)
            self.point("after map")
            return ledger

        try:
            reached = position if self.carried is None else max(position, self.carried)
            self.transact(work, reached if lane is None else None, DIVIDE if is_divisible else None)
            self._tidied()
            if lane is None:
                self._advance(position)
        except (Doubt, Busy):
            if not is_divisible:
                raise
            middle = _middle(changes)
            self._carry(changes[:middle], changes[middle - 1].position, held, lane)
            self._carry(changes[middle:], position, held, lane)

    def transact(
        self, work: Callable[[Transaction], Ledger], position: Position | None, patience: int | None = None
    ) -> Ledger:
        """One transaction of the target; ``work`` is done anew when a user's commit has overtaken it, and when users
        keep the locks that it needs: with so much ``patience`` (see ``GivingWay``), then Busy is raised.

        The next attempt holds the locks of what the one before touched, so that nobody can overtake it there again,
        however busy the users are.  The first attempt does not look at what they did before it, where it is soon enough
        to ask behind the writes.
        """
        touched: dict[tuple[str, Key], Change] = {}
        is_read = self._to.connector.capabilities.exclusive

        def attempt() -> Ledger:
            nonlocal is_read
            while True:
                try:
                    with self._begin(is_read) as transaction:
                        self._hold(transaction, touched)
                        self.point("after begin")
                        ledger = work(transaction)
                        with self._to.vacant.deciding(ledger.vacant):
                            if not self._is_overtaken(transaction, ledger):
                                self._check_alone(transaction)  # one that has written nothing begins here
                                self._end(transaction, ledger, position)
                                return ledger
                        touched.update(ledger.touched)
                except Unread:
                    is_read = True
                except _LaggingError:
                    self._catch_up()

        return self.giving_way.until_done(self.target, attempt, patience)

    def _hold(self, transaction: Transaction, touched: Mapping[tuple[str, Key], Change]) -> None:
        """Lock the target's records that these changes are about, and learn what their users committed before."""
        if not touched:
            return
        keys: dict[str, dict[Key, None]] = {name: {} for name in self.link.maps}
        for (name, _), change in touched.items():
            row = change.after if change.before is None else change.before
            if row is not None:
                with suppress(RowProblem):
                    keys[name][self.link.maps[name].target_key(self.source, row)] = None
        for name, wanted in keys.items():
            if wanted:
                transaction.fetch(self.link.maps[name].views[self.target], list(wanted))
        self._news(transaction)
        self._to.is_read = True

    def _is_overtaken(self, transaction: Transaction, ledger: Ledger) -> bool:
        """Have users committed changes of the very records that were decided, since the target was looked at?

        Behind the writes nobody can any more: they hold the locks of their rows (R4).  Mostly the system can tell that
        nobody has touched these records for long; else its log has to be waited for.
        """
        if self._to.connector.capabilities.exclusive:
            return False
        if not (ledger.has_folded or ledger.vacant or transaction.may_be_overtaken()):
            return False
        return any(
            change.view in ledger.loaded or any(record in ledger.touched for record in self._records(change))
            for change in self._news(transaction)
        )

    def _news(self, transaction: Transaction) -> Sequence[Change]:
        """Learn what the target's users have committed since the transaction looked last."""
        if self._looked is None:
            return ()
        # the other flow may have read on meanwhile, which we did not look at
        batch = transaction.since(self._looked, LAGGING)
        self._heed(batch, self.target)
        self._to.windows.extend(batch.changes, batch.position)
        self._looked = batch.position
        if _is_lagging(batch):
            raise _LaggingError
        return batch.changes

    def _records(self, change: Change) -> list[tuple[str, Key]]:
        """The records that a change of the target is about; none where it has no usable key."""
        with suppress(RowProblem):
            return [(change.view, key) for key in record_keys(self.link.maps[change.view], self.target, change)]
        return []

    def arrivals(self, changes: Iterable[Change]) -> list[Change]:
        """Of changes read, those to carry: new, of live maps, behind their snapshots, inside their filters."""
        found: list[Change] = []
        tags = bool(self._to.backlogs or self._from.parked or self._from.vacant)
        filtered: Counter[tuple[str, str]] = Counter()
        delayed = {name for name in self._from.backlogs if self.delays.is_delayed(name)}
        for change in changes:
            compiled = self.link.maps.get(change.view)
            if compiled is None or change.view in delayed:
                continue
            if self.carried is not None and change.position <= self.carried:
                continue
            floor = self._from.windows.floor_of(change.view)
            if floor is not None and change.position <= floor:
                continue
            seen = project(compiled, self.source, change, self._from.windows.late(change.view))
            if seen is None:
                filtered[compiled.name, "filtered"] += 1
            elif compiled.deletes or seen.kind is not Kind.DELETE:
                found.append(self._tag(seen) if tags else seen)
        if filtered:
            self.link.meter.count(self.target, filtered)
        return found

    def _over_limit(self, changes: Iterable[Change]) -> frozenset[str]:
        """The maps of which users have deleted more records within a minute than the link allows unasked."""
        over = self._deletes.over_limit(changes)
        for map_name in over - self._crowded:
            about = {"map": map_name, "side": str(self.source), "remedy": "see dualwrite parked list"}
            log.warning("deletes wait", extra={"fields": about})
        self._crowded = over
        return over

    def _rows(self, name: str) -> int:
        """How many records of a map the source has."""
        with self._from.connector.snapshot(self.link.maps[name].views[self.source], placed=False) as snapshot:
            return sum(map(len, snapshot.blocks()))

    def _tag(self, change: Change) -> Change:
        """What is parked on the change's own side has not been seen by it (R2), nor what is queued for it; what was
        decided about a record that was not there counts as seen by whoever made it before that was committed."""
        keys: tuple[Key, ...] = ()
        if self._from.parked or self._from.vacant:
            with suppress(RowProblem):
                keys = record_keys(self.link.maps[change.view], self.source, change)
        for key in keys:
            vacancy = self._from.vacant.before((change.view, key), change)
            if vacancy is not None:
                seen = change.seen if vacancy.carried is None else vacancy.carried
                change = change.having_seen(seen)._replace(mark=vacancy.number)
        if self._to.backlogs:
            change = self.delays.seen(change)
        for key in keys:
            first = self._from.parked.first_at(change.view, key, change.mark)
            if first is not None and (change.seen is None or first <= change.seen):
                change = change.having_seen(first.just_before())
        return change

    def _begin(self, is_read: bool) -> Transaction:
        """A target transaction that knows (unless ``is_read`` is False) what the target's users committed before it."""
        while True:
            known = self._to.windows.end
            transaction = self._to.connector.transaction(self.stream, self.link.views(self.target), known)
            self._began = self._locked = time.monotonic()
            try:
                self._to.is_read, self._looked = is_read, known
                if known is not None and (not is_read or self._knows_all(transaction, known)):
                    if not self._to.connector.capabilities.exclusive:  # the locks of rows come with the rows
                        self._locked = time.monotonic()
                    return transaction
            except BaseException:
                transaction.__exit__(None, None, None)
                raise
            transaction.__exit__(None, None, None)
            self._catch_up()

    def _knows_all(self, transaction: Transaction, known: Position) -> bool:
        """Learn what the target's users committed since it was last read; False where that is not all of it yet."""
        batch = transaction.since(known, LAGGING)
        self._heed(batch, self.target)
        self._to.windows.extend(batch.changes, batch.position)
        self._looked = batch.position
        return not _is_lagging(batch)

    def _catch_up(self) -> None:
        """Read the target's own changes, holding no locks."""
        feed = self._to.connector.feed(self.link.views(self.target), self._to.windows.end)
        try:
            while True:
                batch = feed.read(LAGGING, 0)
                self._heed(batch, self.target)
                self._to.windows.extend(batch.changes, batch.position)
                if not batch.changes:
                    return
        finally:
            feed.close()

    def _check_alone(self, transaction: Transaction) -> None:
        """Raises Superseded when somebody else has committed for this link: another engine has taken it over."""
        if not self._to.follows(transaction):
            raise Superseded(
                f"{self.target}: commit {transaction.number - 1} of this link is not one of this engine",
                "another engine runs this link: stop one of them",
            )

    def _end(self, transaction: Transaction, ledger: Ledger, position: Position | None) -> None:
        """Journal, then commit, then learn: in this order, so that a crash between leaves only entries that do not
        count.
        """
        assert self._looked is not None, "_begin() comes first"
        vacancy = Vacancy(self._looked, ledger.number, position)
        ledger.note_vacant(vacancy)
        self.point("before journal")
        self._journal(ledger)
        self.point("before commit")
        with self._to.committed(transaction, position):
            self.point("after commit")
            if position is not None:
                self.committed = position
            self._to.vacant.add(ledger.vacant, vacancy)
            self._learn(ledger)
        self.link.meter.applied(self.target, time.monotonic() - self._began)

    def _journal(self, ledger: Ledger) -> None:
        audit = self.link.audit
        block = None if audit is None else audit.block(self.target, ledger)
        if not (ledger.parked or ledger.queued or ledger.freed or ledger.conflicts):
            if block is not None:
                self.link.journal.audits.append(block)
            return
        number = ledger.number
        freed = set(ledger.freed)
        with self.link.journal.batch() as journal:
            for map_name, key in freed - {(plan.compiled.name, plan.key) for plan, _ in ledger.parked}:
                journal.unpark(self.target, map_name, key_text(key), number)
                if (map_name, key) not in self._from.parked:
                    journal.end_conflicts(map_name, key_text(key), self.target, number)
            for plan, trouble in ledger.parked:
                again = (plan.compiled.name, plan.key) in freed
                park = journal.requeue if again else journal.park
                park(parked_key(self.target, plan, trouble), plan.changes, number)
                for side, change in self._weak(plan):
                    layout = {plan.compiled.name: Layout.of(plan.compiled.views[side])}
                    journal.keep_window(side, [(plan.compiled.name, key_text(plan.key), change)], layout)
            for compiled, key, change in ledger.queued:
                plan = Plan(compiled, key, [change], key)
                journal.park(parked_key(self.target, plan, behind(key)), [change], number)
            for conflict in ledger.conflicts:
                journal.conflict(conflict, number)
            if block is not None:
                journal.audit(block)

    def _weak(self, plan: Plan) -> Iterator[tuple[Side, Change]]:
        """Weak changes that matter for a parked record, with their side: no feed holds them once the sync is over."""
        for change in plan.changes:
            if change.weak:
                yield self.source, change
        met = self._to.windows.weak_of(plan.compiled.name, plan.key)
        if met is not None:
            yield self.target, met

    def _learn(self, ledger: Ledger) -> None:
        """Bring the caches to what is committed now."""
        number, parked = ledger.number, self._to.parked
        if ledger.arrived is not None:
            lane, position = ledger.arrived
            lane.arrive(position, number)
        for map_name, key in ledger.freed:
            parked.remove(map_name, key, number)
            self._to.unkeyed.discard((map_name, key))
        self.link.loops.carried(self.source, self.link.maps, ledger.touched)
        for plan, trouble in ledger.parked:
            record = (plan.compiled.name, plan.key)
            if trouble.code == LOOP:
                self.link.loops.parked(record)
            if record not in parked and plan.first is not None:
                parked.add(*record, plan.first, number if plan.since is None else plan.since)
            for side, _ in self._weak(plan):
                self.link.sides[side].kept.forget([record])
            cause = cause_at(plan.compiled, self.target, trouble)
            self._to.release.park(record, cause, trouble.parents)
        for record in ledger.freed:
            if record not in parked:
                self._to.release.free(record)
        for compiled, key, change in ledger.queued:
            self._to.release.follow(compiled, self.source, key, change)
        self._let_go(ledger.freed)  # those that were not parked again
        for record, hidden in ledger.hidden.items():
            if hidden is None:
                self._to.hidden.discard(record)
            else:
                self._to.hidden.put(record, hidden)
        self._to.restore.update(ledger.restore)
        self._to.release.written(ledger.tables)
        self._count(ledger)

    def _count(self, ledger: Ledger) -> None:
        """What is parked anew is told by its code; what was tried in vain was told before."""
        meter, again = self.link.meter, set(ledger.freed)
        meter.count(self.target, ledger.counts)
        anew = [
            (plan.compiled.name, trouble.code)
            for plan, trouble in ledger.parked
            if (plan.compiled.name, plan.key) not in again
        ]
        meter.park(self.target, anew)

    def _advance(self, position: Position) -> None:
        if self.carried is None or position > self.carried:
            self.carried = position

    def _took(self, changes: int) -> None:
        """Size the next batch by how long the transaction with these changes held its locks."""
        target = LOCK_TARGET if self._to.connector.capabilities.exclusive else ROWS_TARGET
        self.pace.took(time.monotonic() - self._locked, changes, target)

    # -- what a batch leaves to do --------------------------------------------------------------------------------

    def settle(self, idle: bool, hurried: bool = False) -> bool:
        """Restore one-way columns; take parked records again whose cause may be gone.  True if one of them is free.

        ``hurried``: somebody waits for everything that can go.
        """
        self.restorer.run()
        if idle and self.restorer.done:  # else the next start would restore them once more
            self._clear_away()
        release = self._to.release
        heard = {compiled.views[self.target].table for compiled in self.link.maps.values()}
        due = release.due(self._to.connector, heard, self.link.standing, idle=idle, hurried=hurried)
        if not due:
            return False
        began = time.monotonic()
        freed = self.retries.retry(due, unasked=True)
        release.taken(due, began)
        return freed > 0

    def _tidy(self, transaction: Transaction) -> None:
        """Remove side-table entries that were done with; a crash before it only does that work again."""
        for done, kind, still in (
            (self.restorer.done, RESTORE, self._to.restore.get),
            (self._bared, HIDDEN, self._to.hidden.get),
        ):
            for map_name, key in done:
                if still((map_name, key)) is None:
                    transaction.remember(kind, map_name, key_text(key), None)

    def _clear_away(self) -> None:
        """``_tidy`` in a transaction of its own: no other one comes along for now."""

        def work(transaction: Transaction) -> Ledger:
            self._tidy(transaction)
            return Ledger(self._to, transaction)

        self.transact(work, None)
        self._tidied()

    def _tidied(self) -> None:
        """The removal is committed."""
        self.restorer.done.clear()
        self._bared.clear()

    def forget_map(self, map_name: str) -> None:
        """Drop everything that the target's side table and the journal hold for a map."""
        self.retries.discard([record for record in self._to.parked.records() if record[0] == map_name])
        self.delays.forget(map_name)
        hidden = [record for record in self._to.hidden if record[0] == map_name]
        restore = [record for record in self._to.restore if record[0] == map_name]
        if not hidden and not restore:
            return

        def work(transaction: Transaction) -> Ledger:
            ledger = Ledger(self._to, transaction)
            for kind, records in ((HIDDEN, hidden), (RESTORE, restore)):
                for _, key in records:
                    transaction.remember(kind, map_name, key_text(key), None)
            ledger.hidden |= dict.fromkeys(hidden)
            return ledger

        self.transact(work, None)
        for record in restore:
            del self._to.restore[record]

    # -- what may be forgotten ------------------------------------------------------------------------------------

    def retain(self, batch: Batch) -> None:
        """Let the target forget what the source has seen, once every change that had not seen it is carried (R3).

        Windows of records that are parked on one of the sides stay, in the journal before the target forgets.
        """
        windows, seen = self._to.windows, batch.seen
        if seen is not None and (windows.forgotten is None or seen > windows.forgotten):
            is_any = self._to.parked or self._from.parked
            windows.forget(seen, self._is_held if is_any else None, self._to.kept.keep)
        if self._to.hidden and windows.forgotten is not None:
            self._drop_hidden(windows.forgotten)
        if self._to.backlogs:
            self.delays.retain(batch, self._is_held)
        self._let_go(self._from.parked.prune(batch.mark, self._to.backlogs))
        self._from.vacant.prune(batch.mark)

    def _is_held(self, map_name: str, key: Key) -> bool:
        return self.link.is_held(self.target, map_name, key)

    def _let_go(self, records: Iterable[tuple[str, Key]]) -> None:
        """Forget what was held back for records, unless it still matters."""
        loose = [record for record in dict.fromkeys(records) if not self._is_held(*record)]
        if loose:
            self._to.kept.drop(loose)

    def _drop_hidden(self, seen: Position) -> None:
        """A hidden row is needed as long as the source may not have seen the delete above it.

        Only so many are let go of as the next transaction can take out of the side table.
        """
        backlogs, old = self._to.backlogs, self._to.hidden.passed(seen)
        loose = (record for record in old if record[0] not in backlogs and not self._is_held(*record))
        for record in list(islice(loose, BARED - len(self._bared))):
            self._to.hidden.discard(record)
            self._bared.add(record)

    @property
    def passed(self) -> Position | None:
        """How far the feed has been read, and carried; None before it was read (again, after an opening)."""
        return None if self._read_to is None or self.carried is None else min(self._read_to, self.carried)

    def acknowledge(self, passed: Position | None) -> None:
        """Tell the target what it need not keep; ``passed``: how far the other flow has read and carried its feed."""
        if passed is None:
            return
        oldest = self._to.windows.oldest()
        allowed = passed if oldest is None else min(oldest.just_before(), passed)
        before, _ = acknowledged(self.link.journal, self.target)
        if before is not None and before.feed == allowed.feed and before >= allowed:
            return
        self.link.journal.put(f"acknowledged.{self.target}", f"{allowed} {commits_of(self._from.connector)}")
        self.point("before acknowledge")
        self._to.connector.acknowledge(allowed)
        keep_let_go(self.link.journal, self.target, self._to.connector)
        self.point("after acknowledge")


def _is_lagging(batch: Batch) -> bool:
    """May more have come from the target's users than was read?"""
    return batch.cut or len(batch.changes) >= LAGGING


def _middle(changes: Sequence[Change]) -> int:
    """Where changes of more than one place can be divided: about the middle, and not between two of one place."""
    places = [n for n in range(1, len(changes)) if changes[n].position != changes[n - 1].position]
    return places[len(places) // 2]
