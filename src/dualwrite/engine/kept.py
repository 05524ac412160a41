"""The windows of parked records: what waits of them may come much later, so their windows wait in the journal.

There may be very many of them.  So they are read when somebody asks, and only those that were asked for are held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from dualwrite.engine.link import chunks, key_of, key_text
from dualwrite.engine.window import Kept, record_keys
from dualwrite.errors import RowProblem
from dualwrite.journal import Journal, KeptChange, Layout
from dualwrite.lined import LARGEST, weight_of
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Record, Side
from dualwrite.schema import View

Name = TypeVar("Name")

IN_MEMORY = 20_000
"""Changes, and records, whose windows are held: a record that changes often is asked for with every batch."""
LARGEST_IN_MEMORY = 16 << 20
"""Characters of them: rows may be large."""
AT_ONCE = 500
"""Changes that are written, and records that are read, together; of large rows fewer."""


class Asked(Generic[Name]):
    """Windows that somebody has asked for; ``read`` finds those of some records, the changes of each in order."""

    def __init__(self, read: Callable[[Sequence[Name]], Iterable[tuple[Name, Change]]]) -> None:
        self._read = read
        self._windows: dict[Name, list[Change]] = {}  # from then on all there is of them
        self._count = 0  # changes in them
        self._weight = 0  # and their characters

    def of(self, names: Iterable[Name]) -> dict[Name, list[Change]]:
        """The changes of some records."""
        wanted = list(dict.fromkeys(names))
        if self._count + len(self._windows) + len(wanted) > IN_MEMORY or self._weight > LARGEST_IN_MEMORY:
            self.clear()
        new = {name: list[Change]() for name in wanted if name not in self._windows}
        self._windows |= new
        for name, change in self._read(list(new)) if new else ():
            if name in new:  # a change may be found that is also one of another record
                self._append(new[name], change)
        return {name: list(self._windows[name]) for name in wanted}

    def __bool__(self) -> bool:
        return bool(self._windows)

    def add(self, name: Name, change: Change) -> None:
        """A change has come to a record; what does not lie behind all others may be known."""
        window = self._windows.get(name)
        if window is None:
            return
        last = window[-1].position if window else None
        if last is None or (last.feed == change.position.feed and last < change.position):
            self._append(window, change)
        else:
            self.forget([name])

    def _append(self, window: list[Change], change: Change) -> None:
        window.append(change)
        self._count += 1
        self._weight += weight_of([change])

    def forget(self, names: Iterable[Name]) -> None:
        """These are to be read anew."""
        for name in names:
            gone = self._windows.pop(name, ())
            self._count -= len(gone)
            self._weight -= sum(weight_of([change]) for change in gone)

    def clear(self) -> None:
        """All are to be read anew."""
        self._windows.clear()
        self._count = self._weight = 0


def _portions(entries: Iterable[Kept]) -> Iterator[list[Kept]]:
    """As many as are written together."""
    portion, size = list[Kept](), 0
    for entry in entries:
        portion.append(entry)
        size += weight_of([entry[2]])
        if len(portion) >= AT_ONCE or size > LARGEST:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class KeptWindows:
    """Those of one side's records.  Thread-safe: both flows keep some, the flow into the side asks and drops."""

    def __init__(self, side: Side, journal: Journal, maps: Mapping[str, CompiledMap]) -> None:
        self.side = side
        self._journal = journal
        self._maps = maps
        self._asked = Asked[Record](self._read)
        self._lock = threading.Lock()

    def keep(self, entries: Sequence[Kept]) -> None:
        """Keep changes until their records are dropped; each once.  They are in the journal when this returns."""
        views = {name: self._maps[name].views[self.side] for name in {name for name, _, _ in entries}}
        layouts = {name: Layout.of(view) for name, view in views.items()}
        with self._lock:
            for some in _portions(entries):
                self._journal.keep_window(self.side, [(name, key_text(key), c) for name, key, c in some], layouts)
            for name, key, change in entries:
                self._asked.add((name, key), change)

    def of(self, records: Iterable[Record]) -> dict[Record, list[Change]]:
        """The changes that are kept for these records, those of each in feed order; for the others none."""
        with self._lock:
            return self._asked.of(records)

    def _read(self, records: Sequence[Record]) -> Iterator[tuple[Record, Change]]:
        for some in chunks(records, AT_ONCE):
            wanted = [(name, key_text(key)) for name, key in some]
            for name, key, kept in self._journal.kept_windows(self.side, wanted):
                yield (name, key_of(key)), kept.brought(self._maps[name].views[self.side])

    def forget(self, records: Iterable[Record]) -> None:
        """What the journal holds of these records has changed."""
        with self._lock:
            self._asked.forget(records)

    def drop(self, records: Sequence[Record]) -> None:
        """Nothing that is still to come can have missed what is kept for these."""
        with self._lock, self._journal.batch() as batch:
            for name, key in records:
                batch.drop_windows(self.side, name, key_text(key))
            self._asked.forget(records)

    def drop_map(self, map_name: str) -> None:
        """Forget a map."""
        with self._lock:
            self._journal.drop_windows(self.side, map_name)
            self._asked.clear()

    # -- maps with another key ------------------------------------------------------------------------------------

    def rekey(self, maps: Mapping[str, CompiledMap]) -> None:
        """Of maps that have another key than when something was kept: bring it to the key that its records have now.

        Where that is not known, it can be no record's until the key is what it was, and stays in the journal.
        """
        views = {name: compiled.views[self.side] for name, compiled in maps.items()}
        for name in changed_keys(self._journal.kept_layouts(self.side), views):
            for some in chunks(self._journal.kept_keys(self.side, name), AT_ONCE):
                found: dict[str, list[KeptChange]] = {}
                for _, key, kept in self._journal.kept_windows(self.side, [(name, key) for key in some]):
                    found.setdefault(key, []).append(kept)
                for key, changes in found.items():
                    with suppress(RowProblem):
                        self._rekey(maps[name], key, changes)

    def _rekey(self, compiled: CompiledMap, key: str, changes: Sequence[KeptChange]) -> None:
        view = compiled.views[self.side]
        if all(is_keyed_as(kept.layout, view) for kept in changes):
            return
        brought = [kept.brought(view) for kept in changes]
        moved = [(new, change) for change in brought for new in record_keys(compiled, self.side, change)]
        with self._journal.batch() as batch:
            batch.drop_windows(self.side, compiled.name, key)
            entries = [(compiled.name, key_text(new), change) for new, change in moved]
            batch.keep_window(self.side, entries, {compiled.name: Layout.of(view)})


def is_keyed_as(layout: Layout | None, view: View) -> bool:
    """Has the view the key under which something was kept?  Where an earlier program did not say it, it is so."""
    return layout is None or layout.is_keyed_as(view)


def changed_keys(layouts: Mapping[str, Collection[Layout]], views: Mapping[str, View]) -> set[str]:
    """The maps of which some rows were kept under another key than their views have."""
    return {
        name
        for name, known in layouts.items()
        if name in views and not all(layout.is_keyed_as(views[name]) for layout in known)
    }
