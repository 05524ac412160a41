"""Of what kept rows are: a map may have other columns, or another key, by the time at which they are read.

What is kept names its layout: the table, and the paths of its cells.  Whoever reads it brings it to the map's present
view: cells of paths that were not kept are ABSENT, those of paths that the map no longer has are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from dualwrite.model import ABSENT, Change, Key, Row, show_path
from dualwrite.schema import View


@dataclass(frozen=True, slots=True)
class Layout:
    """The table and the paths of a row's cells, in the spelling of map files, and which of them were its key."""

    table: str
    paths: tuple[str, ...]
    key: tuple[str, ...]

    @classmethod
    def of(cls, view: View) -> Layout:
        """The layout of a view's rows."""
        paths = tuple(map(show_path, view.paths))
        return cls(view.table, paths, tuple(paths[index] for index in view.key))

    def __str__(self) -> str:
        """As one line of text."""
        return _text(self)

    @classmethod
    def parse(cls, text: str) -> Layout:
        """The inverse of ``str``."""
        table, paths, key = json.loads(text)
        return cls(table, tuple(paths), tuple(key))

    def row(self, row: Row, view: View) -> Row:
        """A row of this layout as one of the view's."""
        known = dict(zip(self.paths, row, strict=True)) if self.table == view.table else {}
        return tuple(known.get(path, ABSENT) for path in map(show_path, view.paths))

    def change(self, change: Change, view: View) -> Change:
        """A change of this layout's rows as one of the view's."""
        if self == Layout.of(view):
            return change
        before, after = (None if row is None else self.row(row, view) for row in (change.before, change.after))
        found = after if before is None else before
        key = change.key if found is None else view.natural_key(found)
        return change.with_images(before, after)._replace(key=key)

    def natural(self, key: Key, view: View) -> Key | None:
        """A natural key of this layout's rows as one of the view's; None where a member is not known."""
        known = dict(zip(self.key, key, strict=True)) if self.table == view.table else {}
        wanted = Layout.of(view).key
        return tuple(known[path] for path in wanted) if known.keys() >= set(wanted) else None

    def is_keyed_as(self, view: View) -> bool:
        """Did the same members, in the same order, make up the key of a record?"""
        return (self.table, self.key) == (view.table, Layout.of(view).key)


@lru_cache(maxsize=256)
def _text(layout: Layout) -> str:
    """One text for all rows that are kept with it: there may be very many."""
    return json.dumps([layout.table, layout.paths, layout.key], separators=(",", ":"))


@lru_cache(maxsize=256)
def layout_from(text: str | None) -> Layout | None:
    """The layout with a text; None where nobody has said it."""
    return None if text is None else Layout.parse(text)


@dataclass(frozen=True, slots=True)
class KeptChange:
    """A change that was kept, and of what its rows are; None where an earlier program kept it and did not say."""

    change: Change
    layout: Layout | None

    def brought(self, view: View) -> Change:
        """The change as one of the view's."""
        return self.change if self.layout is None else self.layout.change(self.change, view)
