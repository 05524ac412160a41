"""Writes of one view, each with a key of its own: statements over all rows, and an outcome for each.

Rows that set the same columns share a statement, and all statements of a kind a round trip.  Where a row makes one of
them fail, the savepoint before them is restored and their halves are run instead, until the bad row is alone and named.
What others may have done meanwhile, or what later rows of the same call do, can make a difference to what was refused:
it is looked at once more behind the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import psycopg

from dualwrite.connectors._pg_cells import Shape
from dualwrite.connectors._pg_ledger import Ledger, Written
from dualwrite.connectors._pg_load import copied_in, goes_straight
from dualwrite.connectors._pg_lookups import Held, lock, transposed
from dualwrite.connectors._pg_refusal import refusal
from dualwrite.connectors._pg_rows import Ready, Rows
from dualwrite.connectors._pg_schema import ForeignKey
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._pg_statements import Target
from dualwrite.connectors._pg_trip import Asked, go_ahead, sized, trip
from dualwrite.connectors._pg_values import array
from dualwrite.connectors._pg_view import Pattern
from dualwrite.connectors._sql import Lookups, folder, names
from dualwrite.lined import BadTextError, text_of_columns
from dualwrite.model import (
    ABSENT,
    Applied,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Rejected,
    Unchanged,
    Value,
    Write,
    show_key,
)

_STRAIGHT: Final = 50
"""From that many new records on they are copied into the table without looking for them first."""
_APPLIED, _UNCHANGED = Applied(), Unchanged()
_LEFT_OUT: Final = Rejected("other", "the database left the row out (a trigger or rule ignores it)")
_BAD_TEXT: Final = Rejected("value", "a text holds a zero character or half of a character, which PostgreSQL refuses")

_SAVEPOINT: Final = Asked("SAVEPOINT dualwrite_rows", prepare=False)
_RELEASE: Final = Asked("RELEASE dualwrite_rows", prepare=False)

Answer: TypeAlias = tuple[int, str, bool, tuple[Value, ...]]
"""Of a statement: a row's number, its verdict, whether it was fresh, and what tells its record apart."""
Group: TypeAlias = tuple[Shape, Sequence[Ready]]
"""Rows for which one statement is good."""


class Part:
    """Writes of one view, each with a key of its own; ``moves`` are the other keys that some take."""

    def __init__(
        self,
        connection: Connection,
        database: Database,
        lookups: Lookups[Held],
        ledger: Ledger,
        target: Target,
        writes: Sequence[Write],
        moves: Mapping[int, Key],
    ) -> None:
        self._connection = connection
        self._database = database
        self._lookups = lookups
        self._ledger = ledger
        self._target = target
        self._view = target.view
        self._table = target.plan.table
        self._writes = writes
        self._moves = moves
        self._rows = Rows(connection, target, lookups)
        self._fold = folder([target.cells[place].column for place in self._view.key])
        self._outcomes: dict[int, Outcome] = {}
        self._is_second_look = False

    def run(self) -> dict[int, Outcome]:
        """Write them all; what was refused again behind the others, as long as that helps."""
        if self._insert_straight():
            return self._outcomes
        waiting: Sequence[int] = range(len(self._writes))
        while waiting:
            self._carry_out(waiting)
            done = (_APPLIED, _UNCHANGED)
            troubles = [number for number in waiting if self._outcomes[number] not in done]
            again = [number for number in troubles if self._may_succeed_later(self._outcomes[number])]
            if len(again) == len(waiting) and self._is_second_look:
                break
            waiting = again
            self._is_second_look = True
            self._lookups.clear()
        self._swap([number for number in waiting if self._is_update(number) and self._was_refused(number, "unique")])
        return self._outcomes

    def _may_succeed_later(self, outcome: Outcome) -> bool:
        """Can the others of this call, or what was waited for, have made a difference?"""
        if isinstance(outcome, MissingParent):
            return outcome.table == self._table.name
        if outcome is _LEFT_OUT:  # also what has moved while we waited for its lock
            return not self._is_second_look
        return isinstance(outcome, Rejected) and outcome.code in ("unique", "reference")

    def _was_refused(self, number: int, code: str) -> bool:
        outcome = self._outcomes.get(number)
        return isinstance(outcome, Rejected) and outcome.code == code

    def _is_update(self, number: int) -> bool:
        return self._writes[number].row is not None and self._writes[number].expect is not None

    def _carry_out(self, numbers: Sequence[int], *, trusting: bool = False) -> None:
        """Deletes, then updates, then inserts; ``trusting``: what was expected has been looked at before."""
        deletes = [number for number in numbers if self._writes[number].row is None]
        updates = [number for number in numbers if self._is_update(number)]
        inserts = [n for n in numbers if self._writes[n].row is not None and self._writes[n].expect is None]
        if self._is_second_look or self._target.plan.flags:
            # after a wait a statement would show old parents beside the newest record
            keys = [self._writes[number].key for number in numbers]
            lock(self._connection, self._target, keys, strong=bool(deletes))
        self._delete(deletes)
        self._update(updates, trusting=trusting)
        self._insert(inserts)
        if numbers:
            self._lookups.forget(self._table.name)

    def _known(self, readies: Sequence[Ready], without: Outcome) -> list[Ready]:
        """Those whose keys records can hold; the others have the outcome of records that are not there."""
        for ready in readies:
            if ready.pattern is None:
                self._outcomes[ready.number] = without
        return [ready for ready in readies if ready.pattern is not None]

    def _delete(self, numbers: Sequence[int]) -> None:
        readies = self._known(self._rows.ready(self._writes, numbers), _UNCHANGED)
        for ready in readies:
            expect = ready.write.expect or ()
            ready.expected = tuple(place for place, cell in enumerate(expect) if cell is not ABSENT)
        self._run("delete", self._rows.shaped(readies))

    def _update(self, numbers: Sequence[int], *, trusting: bool = False) -> None:
        readies = self._known(self._rows.ready(self._writes, numbers), Contested(None))
        self._rows.speak(readies, trusting=trusting)
        self._rows.resolve(readies)
        alone = [ready for ready in readies if self._must_be_alone(ready)]
        if alone:
            readies = [ready for ready in readies if not self._must_be_alone(ready)]
        self._run("update", self._rows.shaped(readies))
        for ready in alone:
            key = self._moves[ready.number]
            go_ahead(self._connection)
            if self._target.plan.fetch(self._connection, [key]):
                reason = f"another {self._table.name} holds the key {show_key(key)}"
                self._outcomes[ready.number] = Rejected("unique", reason)
                continue
            self._run("update", self._rows.shaped([ready]))

    def _must_be_alone(self, ready: Ready) -> bool:
        """Does the row take another key, which no unique index keeps from being held twice?"""
        key = self._moves.get(ready.number)
        if key is None or self._fold(key) == self._fold(ready.write.key):
            return False
        return not self._target.key_columns[1] or not all(key)

    def _insert(self, numbers: Sequence[int]) -> None:
        readies = self._rows.ready(self._writes, numbers)
        self._rows.resolve(readies)
        same: dict[tuple[Pattern | None, tuple[str, ...]], list[Ready]] = defaultdict(list)
        for ready in readies:
            self._rows.fill(ready)
            same[ready.pattern, tuple(ready.values)].append(ready)
        groups = {Shape(pattern, columns=columns): group for (pattern, columns), group in same.items()}
        facts = self._target.plan.facts
        alone = facts.rules or any(each.before and "insert" in each.events for each in facts.triggers)
        singly = ((shape, [ready]) for shape, group in groups.items() for ready in group)
        self._compare(self._run("insert", singly if alone else groups.items()))

    def _compare(self, readies: Sequence[Ready]) -> None:
        """Records that are there already, though they should not be, may hold what was wanted."""
        if not readies:
            return
        self._ledger.has_met(self._view)
        self._rows.speak(readies)
        self._run("compare", [(replace(shape, writes=False), group) for shape, group in self._rows.shaped(readies)])

    def _contest(self, readies: Sequence[Ready]) -> None:
        """The records are not as expected: tell their rows."""
        if not readies:
            return
        found = self._target.plan.fetch(self._connection, [ready.write.key for ready in readies])
        for ready in readies:
            rows = found.get(ready.write.key, [])
            if len(rows) > 1:
                self._outcomes[ready.number] = self._ambiguous(ready.write.key, len(rows))
            else:
                self._outcomes[ready.number] = Contested(rows[0] if rows else None)

    def _ambiguous(self, key: Key, count: int) -> Rejected:
        return Rejected("ambiguous", f"{count} records of {self._table.name} hold the key {show_key(key)}")

    def _insert_straight(self) -> bool:
        """Copy many new records into the table, where a unique index refuses those that are there already.

        All of them or none: then each is to be judged by itself.
        """
        writes = self._writes
        if len(writes) < _STRAIGHT or not goes_straight(self._ledger, self._target):
            return False
        if self._moves or any(write.row is None or write.expect is not None for write in writes):
            return False
        columns = self._rows.straight_columns(writes)
        if columns is None:
            return False
        try:
            lines = text_of_columns(list(columns.values()))
        except BadTextError:
            return False
        facts = self._target.plan.facts
        if not copied_in(self._connection, self._database, facts, columns, iter([lines]), len(writes)):
            self._ledger.has_met(self._view)
            return False
        self._outcomes.update(dict.fromkeys(range(len(writes)), _APPLIED))
        keys = [write.key for write in writes]
        self._ledger.notice(self._view, keys)
        self._ledger.wrote(self._view, keys)
        self._lookups.forget(self._table.name)
        return True

    def _run(self, kind: str, groups: Iterable[Group]) -> list[Ready]:
        """Run a statement for the rows of each shape, all of them in one round trip, or in two halves where it fails.

        Returns the new records that are there already.
        """
        has_horizon, is_loud = self._ledger.horizon is not None, self._table.name in self._ledger.loud
        return self._run_all(
            kind, [(replace(shape, horizon=has_horizon, loud=is_loud), batch) for shape, batch in groups]
        )

    def _run_all(self, kind: str, groups: Sequence[Group]) -> list[Ready]:
        try:
            answers = self._attempt(kind, groups) if groups else []
        except (psycopg.Error, BadTextError) as exc:
            outcome = self._refused(exc)
            halves = _halves(groups)
            if halves:
                return [ready for half in halves for ready in self._run_all(kind, half)]
            ((_, (ready,)),) = groups
            self._outcomes[ready.number] = self._missing_parent(outcome, ready) or outcome
            return []
        return [
            ready
            for (shape, batch), answer in zip(groups, answers, strict=True)
            for ready in self._judge(kind, shape, batch, answer)
        ]

    def _refused(self, exc: psycopg.Error | BadTextError) -> Rejected:
        """Why a statement failed, with its traces removed; raises what is not about its rows."""
        if isinstance(exc, BadTextError):
            return _BAD_TEXT
        outcome = refusal(exc, self._database)
        if outcome is None:
            raise exc
        self._undo("dualwrite_rows")
        return outcome

    def _undo(self, savepoint: str) -> None:
        """Go back to a savepoint, and forget it."""
        self._connection.execute(f"ROLLBACK TO {savepoint}".encode())
        self._connection.execute(f"RELEASE {savepoint}".encode())

    def _attempt(self, kind: str, groups: Sequence[Group]) -> list[list[Answer]]:
        """A statement for each group behind a savepoint, in one round trip; their answers."""
        asked, places, horizon = [_SAVEPOINT], [], self._ledger.horizon
        for shape, batch in groups:
            bound = [] if horizon is None else [str(horizon & 0xFFFFFFFF), array(self._own(shape))]
            bound += [array(column) for column in self._rows.bound(kind, shape, batch)]
            asked += sized(self._target.statement(kind, shape), bound, len(batch))
            places.append(len(asked) - 1)
        answers = trip(self._connection, [*asked, _RELEASE])
        return [
            [(int(number), verdict, fresh == "t", tuple(held)) for number, verdict, fresh, *held in answers[place]]
            for place in places
        ]

    def _own(self, shape: Shape) -> Sequence[str]:
        """The transactions of ours behind which a record is what we have left it as."""
        return () if shape.loud else list(self._ledger.ours)

    def _judge(self, kind: str, shape: Shape, batch: Sequence[Ready], answers: Sequence[Answer]) -> list[Ready]:
        """The outcomes of a statement that went through; returns the new records that are there already."""
        self._ledger.ours += [verdict[1:] for place, verdict, _, _ in answers if not place and verdict[0] == "x"]
        told = {place: verdict for place, verdict, _, _ in answers if place > 0}
        others: dict[str, list[Ready]] = defaultdict(list)
        for place, verdict in told.items():
            others[verdict].append(batch[place - 1])
        self._notice(kind, shape, batch, answers)
        if kind == "compare":
            self._outcomes.update({ready.number: _UNCHANGED for ready in others.pop("u", [])})
            self._contest([ready for group in others.values() for ready in group])
            return []
        applied = [ready for place, ready in enumerate(batch, 1) if told.get(place, "w") == "w"]
        counts = [int(verdict) for place, verdict, _, _ in answers if not place and verdict[0] != "x"]
        count = counts[0] if counts else len(applied)
        assert count == len(applied) or len(batch) == 1, "triggers and rules that leave rows out get them one by one"
        done = _APPLIED if count == len(applied) else _LEFT_OUT
        self._outcomes.update(dict.fromkeys([ready.number for ready in applied], done))
        self._ledger.wrote(self._view, [ready.write.key for ready in applied])
        others.pop("w", None)
        met, contested = others.pop("f", []), others.pop("c", [])
        for verdict, group in others.items():
            self._outcomes.update({ready.number: self._outcome(kind, ready, verdict) for ready in group})
        self._contest(contested)
        if self._table.name in self._ledger.loud:
            self._tell(kind, batch, applied, answers)
        return met

    def _tells_age(self, kind: str, shape: Shape) -> bool:
        """Does the age of a record tell whether it has been what it is for long?

        New ones may have replaced others; and what is looked up changes with a record that we do not meet.
        """
        view = self._view
        looked_up = shape.lookups or (kind == "delete" and view.lookups)
        return kind != "insert" and not looked_up and all(len(view.paths[place]) == 1 for place in view.key)

    def _notice(self, kind: str, shape: Shape, batch: Sequence[Ready], answers: Sequence[Answer]) -> None:
        """Note which records users may just have changed."""
        if self._ledger.horizon is None or not self._tells_age(kind, shape):
            self._ledger.notice(self._view, [ready.write.key for ready in batch])
        else:
            fresh = [place for place, verdict, fresh, _ in answers if place and (fresh or verdict == "g")]
            self._ledger.notice(self._view, [batch[place - 1].write.key for place in fresh])
        if self._moves:  # who held that key before cannot be seen any more
            moved = [self._moves[ready.number] for ready in batch if ready.number in self._moves]
            self._ledger.notice(self._view, moved)

    def _tell(self, kind: str, batch: Sequence[Ready], applied: Sequence[Ready], answers: Sequence[Answer]) -> None:
        """Note what was written to a loud table."""
        places = [(place, held) for place, verdict, _, held in answers if verdict == "w"]
        if kind == "insert":
            places.sort(reverse=True)
            records = [(ready, held) for ready, (_, held) in zip(applied, places, strict=False)]
        else:
            records = [(batch[place - 1], held) for place, held in places]
        for ready, held in records:
            values = {} if kind == "delete" else self._rows.values(ready)
            moved = tuple([values.get(name, old) for name, old in zip(self._target.identity, held, strict=True)])
            before, after = None if kind == "insert" else held, None if kind == "delete" else moved
            self._ledger.written.append(Written(self._table.name, before, held if before is None else after, values))

    def _outcome(self, kind: str, ready: Ready, verdict: str) -> Outcome:
        match verdict[0]:
            case "g":
                return _UNCHANGED if kind == "delete" else Contested(None)
            case "u":
                return _UNCHANGED
            case "b":
                assert ready.refused is not None
                return ready.refused
            case "l":
                resolved = ready.lookups[int(verdict[1:])]
                assert isinstance(resolved, MissingParent | Rejected)
                return resolved
            case "r":
                name = self._target.cells[int(verdict[1:])].column.name
                return Rejected("readonly", f"{self._table.name}.{name} is generated and cannot be written")
            case "m":
                rows = self._target.plan.fetch(self._connection, [ready.write.key])
                return self._ambiguous(ready.write.key, len(rows.get(ready.write.key, ())))
            case _:
                return _LEFT_OUT

    def _missing_parent(self, outcome: Rejected, ready: Ready) -> MissingParent | None:
        """The record that a foreign key of the row does not find."""
        if outcome.code != "reference" or ready.write.row is None or not self._is_second_look:
            return None
        for key in self._target.plan.facts.foreign_keys:
            places = [self._view.paths.index((name,)) for name in key.columns if (name,) in self._view.paths]
            known = [cell for place in places if isinstance(cell := self._rows.said(ready.write, place), str)]
            if len(known) == len(key.columns) and not self._exists(key, known):
                return MissingParent("_".join(key.columns), key.table, tuple(known))
        return None

    def _exists(self, key: ForeignKey, held: Sequence[str]) -> bool:
        facts = self._target.plan.catalog.facts[key.table]
        tests = []
        for number, name in enumerate(key.to, 1):
            end = facts.columns[name]
            tests.append(end.equal(names([name]), f"${number}::{end.plain}"))
        statement = f"SELECT 1 FROM {facts.sql} WHERE {' AND '.join(tests)}"  # noqa: S608  # names are quoted
        return self._connection.execute(statement.encode(), list(held)).fetchone() is not None

    def _swap(self, numbers: list[int]) -> None:
        """Rows that take each other's unique values: all let go of theirs first (null is the spare value)."""
        while len(numbers) > 1:
            refused = {number: self._outcomes[number] for number in numbers}
            self._connection.execute("SAVEPOINT dualwrite_swap")
            try:
                failed = self._try_swap(numbers)
            except psycopg.Error as exc:
                if refusal(exc, self._database) is None:
                    raise
                failed = set(numbers)  # they cannot let go
            if not failed:
                self._connection.execute("RELEASE dualwrite_swap")
                return
            self._undo("dualwrite_swap")
            self._outcomes |= refused
            numbers = [number for number in numbers if number not in failed]

    def _try_swap(self, numbers: Sequence[int]) -> set[int]:
        """Returns those that cannot take part."""
        groups: dict[Shape, list[Ready]] = defaultdict(list)
        for ready in self._rows.ready(self._writes, numbers):
            spare = self._spare(ready.write)
            if not spare:
                return {ready.number}
            groups[Shape(ready.pattern, columns=spare)].append(ready)
        for shape, group in groups.items():
            statement = self._target.statement("let go", shape)
            columns = transposed([ready.members for ready in group]) or [[""] * len(group)]
            self._connection.execute(statement.encode(), [array(column) for column in columns])
        self._carry_out(numbers, trusting=True)
        return {number for number in numbers if self._outcomes[number] != _APPLIED}

    def _spare(self, write: Write) -> tuple[str, ...]:
        """Of each unique set of columns that the write sets, one that may be null for a moment."""
        assert write.row is not None
        row = write.row
        places = [place for place in self._target.flats if row[place] is not ABSENT]
        given = {self._target.cells[place].column.name for place in places if not self._target.is_fixed(place)}
        for lookup, reference in zip(self._target.lookups, self._target.references, strict=True):
            if all(row[own] is not ABSENT for own in lookup.own):
                given |= set(reference.columns)
        found: list[str] = []
        for unique in self._target.plan.facts.uniques:
            able = [
                name
                for name in unique.columns
                if name in given and (column := self._table.column(name)) and column.nullable
            ]
            found += able[:1]
        return tuple(dict.fromkeys(found))


def _halves(groups: Sequence[Group]) -> tuple[Sequence[Group], Sequence[Group]] | None:
    """The first and the second half of groups, or of the rows of the only one; None for a single row."""
    middle = len(groups) // 2
    if middle:
        return groups[:middle], groups[middle:]
    ((shape, batch),) = groups
    middle = len(batch) // 2
    return ([(shape, batch[:middle])], [(shape, batch[middle:])]) if middle else None
