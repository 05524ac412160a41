"""Writing rows into PostgreSQL inside one transaction: what ``Transaction.write`` and ``fetch`` promise.

The database judges and writes in one statement over all rows (``_pg_statements``), and ``_pg_part`` makes outcomes of
its answer.  Records that are written are locked, and stay so until the transaction ends; the session's ``lock_timeout``
says how long that may take, and whoever holds a lock for longer makes us give way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableSequence, Sequence
from operator import itemgetter
from typing import Final

from dualwrite.connectors._pg_ledger import Ledger
from dualwrite.connectors._pg_load import load
from dualwrite.connectors._pg_lookups import lock, lookups_of
from dualwrite.connectors._pg_part import Part
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_sequences import follow
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._pg_statements import Target, Targets
from dualwrite.connectors._sql import folder
from dualwrite.model import ABSENT, Applied, Key, Outcome, Row, Write
from dualwrite.schema import View

BEGINNING: Final = (
    # below the time after which the server looks for deadlocks, so that it never picks the application's transaction
    "SELECT set_config('lock_timeout', (extract(epoch FROM current_setting('deadlock_timeout')::interval) * 300)::int "
    "|| 'ms', true)",
    # what is checked at the commit only could not be laid at any row's door
    "SET CONSTRAINTS ALL IMMEDIATE",
)
"""What a transaction must begin with before a ``RowWriter`` works in it."""


class RowWriter:
    """Writes and reads rows inside one open transaction (READ COMMITTED, ``BEGINNING``).

    ``ledger`` tells what users may have changed meanwhile (see there for ``horizon`` and ``ours``), and what was
    written to the ``loud`` tables.  Errors that are not about a row pass as they are.
    """

    def __init__(
        self,
        connection: Connection,
        database: Database,
        catalog: Catalog,
        targets: Targets,
        *,
        horizon: int | None = None,
        loud: Collection[str] = (),
        ours: MutableSequence[str] | None = None,
    ) -> None:
        self.ledger = Ledger(horizon, frozenset(loud), [] if ours is None else ours)
        self._connection = connection
        self._database = database
        self._catalog = catalog
        self._targets = targets
        self._lookups = lookups_of(connection, catalog, targets)

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Transaction.fetch``; the records stay locked."""
        target = self._targets.get(self._catalog, view)
        lock(self._connection, target, keys)
        return target.plan.fetch(self._connection, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """As ``Transaction.write``.  Where a key occurs twice, the later write sees what the earlier one did."""
        target = self._targets.get(self._catalog, view)
        outcomes: list[Outcome] = []
        for part, moves in _once_per_key(target, writes):
            found = Part(self._connection, self._database, self._lookups, self.ledger, target, part, moves).run()
            outcomes += [found[number] for number in range(len(part))]
        done = zip(writes, outcomes, strict=True)
        made = (write.row for write, outcome in done if write.expect is None and isinstance(outcome, Applied))
        follow(self._connection, target, (row for row in made if row is not None))
        return outcomes

    def insert(self, view: View, rows: Sequence[Row]) -> bool:
        """As ``Transaction.insert``."""
        target = self._targets.get(self._catalog, view)
        if not load(self._connection, self._database, self.ledger, target, rows):
            return False
        follow(self._connection, target, rows)
        self._lookups.forget(target.plan.table.name)
        self.ledger.notice(view, [view.natural_key(rows[0])])  # one leaves as much of a doubt as all of them
        return True


def _moves(view: View, writes: Sequence[Write]) -> dict[int, Key]:
    """The keys that records shall have, where they are others than before."""
    keys = _keys_of(view)
    is_key = frozenset(view.key)
    found: dict[int, Key] = {}
    for number, write in enumerate(writes):
        if write.cells is not None and is_key.isdisjoint(write.cells):
            continue
        if write.row is not None and (cells := keys(write.row)) != write.key:
            key = tuple([member if cell is ABSENT else cell for cell, member in zip(cells, write.key, strict=True)])
            if key != write.key:
                found[number] = key
    return found


def _keys_of(view: View) -> Callable[[Row], Row]:
    if len(view.key) == 1:
        (place,) = view.key
        return lambda row: (row[place],)
    return itemgetter(*view.key)


def _once_per_key(target: Target, writes: Sequence[Write]) -> list[tuple[Sequence[Write], Mapping[int, Key]]]:
    """The writes in parts in which each key occurs once, before and after, with their moves; mostly it is one."""
    fold = folder([target.cells[place].column for place in target.view.key])
    keys = [fold(write.key) for write in writes]
    moves = _moves(target.view, writes)
    if not moves and len(set(keys)) == len(keys):
        return [(writes, moves)]
    parts: list[list[Write]] = [[]]
    seen: set[Key] = set()
    taken: set[Key] = set()
    for number, (write, key) in enumerate(zip(writes, keys, strict=True)):
        new = None if write.row is None else fold(moves.get(number, key))
        if key in seen or new in taken:
            parts.append([])
            seen, taken = set(), set()
        seen.add(key)
        if new is not None:
            taken.add(new)
        parts[-1].append(write)
    return [(part, _moves(target.view, part)) for part in parts]
