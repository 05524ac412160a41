"""Records that are known by another key since their map has another one: what is kept of them goes with them.

A map's key may have got other members, or another order, since something was kept.  Where the kept rows hold all
members of the present key, the record is known by it from now on; where they do not, it stays as it is, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dualwrite.connectors.base import Transaction
from dualwrite.engine.contest import Hidden
from dualwrite.engine.kept import changed_keys, is_keyed_as
from dualwrite.engine.ledger import Ledger, Plan, Trouble
from dualwrite.engine.link import HIDDEN, Link, LinkSide, hidden_from, key_of, key_text
from dualwrite.engine.release import BEHIND
from dualwrite.engine.window import record_keys
from dualwrite.errors import RowProblem
from dualwrite.journal import Layout, ParkedKey
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Position, Record, Side
from dualwrite.schema import View

Transact: TypeAlias = Callable[[Callable[[Transaction], Ledger], Position | None], Ledger]


# -- parked records and hidden rows -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Group:
    """Parked records that hang together, with their changes in feed order, each with the keys that it has now."""

    compiled: CompiledMap
    records: tuple[Record, ...]
    changes: tuple[tuple[tuple[Key, ...], Change], ...]
    trouble: Trouble
    since: int | None


def move_records(link: Link, source: Side, transact: Transact) -> None:
    """Bring what is parked and hidden at the target of a flow to the keys that its maps have now.

    ``transact`` does something in a transaction of the flow.
    """
    state = link.sides[source.other]
    groups, unknown = _groups(link, source)
    hidden = _hidden(link, state)
    with link.journal.batch() as journal:
        journal.notes(state.side, {(name, key_text(key)): note for (name, key), note in unknown.items()})
    state.unkeyed = set(unknown)
    for record, _, _ in hidden:
        state.hidden.discard(record)

    def work(transaction: Transaction) -> Ledger:
        ledger = Ledger(state, transaction)
        for group in groups:
            for record in group.records:
                ledger.free(*record)
        for group in groups:
            _park(ledger, group)
        moved = [(record, new, row) for record, new, row in hidden if new is not None]
        for (name, key), _, _ in moved:
            transaction.remember(HIDDEN, name, key_text(key), None)
        for (name, _), new, row in moved:
            ledger.hide(link.maps[name], new, row)
        return ledger

    if groups or any(new is not None for _, new, _ in hidden):
        transact(work, None)


def _park(ledger: Ledger, group: _Group) -> None:
    for keys, change in group.changes:
        if not ledger.queue(group.compiled, keys, change):
            ledger.park(Plan(group.compiled, keys[0], [change], keys[-1]), group.trouble, since=group.since)


def _groups(link: Link, source: Side) -> tuple[list[_Group], dict[Record, str]]:
    """Parked records of which the key has changed: those whose present one is known, and of the others what to say."""
    groups: list[_Group] = []
    unknown: dict[Record, str] = {}
    for entries in _linked(_changed(link, source)):
        compiled = link.maps[entries[0].map]
        try:
            groups.append(_group(link, source, compiled, entries))
        except RowProblem:
            view = compiled.views[source]
            unknown |= {_record(entry): _note(entry.layout, view) for entry in entries}
    return groups, unknown


def _changed(link: Link, source: Side) -> dict[Record, ParkedKey]:
    """What was parked under another key than its map has."""
    views = {view.name: view for view in link.views(source)}
    changed = changed_keys(link.journal.parked_layouts(source.other), views)
    entries = link.journal.all_parked_keys(source.other) if changed else ()
    mine = (entry for entry in entries if entry.map in changed)
    return {_record(entry): entry for entry in mine if not is_keyed_as(entry.layout, views[entry.map])}


def _record(entry: ParkedKey) -> Record:
    return (entry.map, key_of(entry.key))


def _linked(entries: Mapping[Record, ParkedKey]) -> list[list[ParkedKey]]:
    """The entries in groups: those that wait behind another one are with it, which comes first."""
    groups: dict[Record, list[ParkedKey]] = {}
    for record, entry in entries.items():
        first, passed = record, {record}
        while (ahead := _ahead(entries[first])) in entries and ahead not in passed:
            first = ahead
            passed.add(ahead)
        groups.setdefault(first, []).append(entry)
    return [sorted(group, key=lambda entry: _record(entry) != first) for first, group in groups.items()]


def _ahead(entry: ParkedKey) -> Record:
    """The record behind which one waits; itself where it waits behind none."""
    return (entry.map, key_of(entry.waits_key)) if entry.code == BEHIND else _record(entry)


def _group(link: Link, source: Side, compiled: CompiledMap, entries: Sequence[ParkedKey]) -> _Group:
    """Raises RowProblem where the present key of a change is not known."""
    first, parked = entries[0], link.sides[source.other].parked
    queues = link.journal.queues(source.other, [(entry.map, entry.key) for entry in entries])
    brought = (kept.brought(compiled.views[source]) for queue in queues.values() for kept in queue)
    changes = sorted(brought, key=lambda change: change.position.place)
    return _Group(
        compiled,
        tuple(map(_record, entries)),
        tuple((record_keys(compiled, source, change), change) for change in changes),
        Trouble(first.code, first.reason, first.column, first.waits_table, first.waits_key),
        parked.since(*_record(first)),
    )


def _note(layout: Layout | None, view: View) -> str:
    now = Layout.of(view)
    assert layout is not None, "where nothing is known of a key, nothing is known to have changed"
    was, has = (f"{each.table} ({', '.join(each.key)})" for each in (layout, now))
    return (
        f"it was parked when the map's key was {was}; the key is {has} now, which was not kept of it: take the map "
        "back to that key (dualwrite maps switch) and retry it, or discard it"
    )


def _hidden(link: Link, state: LinkSide) -> list[tuple[Record, Key | None, Hidden]]:
    """Rows under a delete whose record has another key by now, with that key; None where it is not known."""
    found = []
    for entry in state.connector.remembered(HIDDEN):
        compiled = link.maps.get(entry.view)
        if entry.until is not None or compiled is None:
            continue
        hidden, layout = hidden_from(entry.value, compiled.views[state.side])
        if not is_keyed_as(layout, compiled.views[state.side]):
            found.append(((entry.view, key_of(entry.key)), _key(compiled, state.side, hidden), hidden))
    return found


def _key(compiled: CompiledMap, side: Side, hidden: Hidden) -> Key | None:
    try:
        return compiled.key(side, hidden.row)
    except RowProblem:
        return None
