# ruff: noqa: S608  (names go through quote(), values are bound)
"""The statements of one view that write: each judges its rows, writes those that may be, and tells of the others.

Rows come as one array per column.  A statement locks the records that it finds in the order of their keys and sees
their latest committed versions, so what it judges is what it writes.  It answers with a row per write that it did not
carry out: its number (from 1), a *verdict*, and whether it was ``fresh``::

    g   no record holds the key                     c   the record does not hold what was expected
    m   several records do                          l3  the fourth lookup leads nowhere, or to several records
    f   a record does, and there should be none     r3  the fourth cell is generated and would have to be written
    u   the record holds what was wanted already    x   the database has left the row out
    b   refused beforehand, if there is no record   w   written (only told where fresh, or loud)

Fresh is a record that was last written by a transaction which is not surely older than the horizon, nor one of ours.
An insert answers with the count of its records besides, as number 0, and a loud one with each of them, numbered -1,
-2 ….  A statement with a horizon tells as ``x17``, numbered 0, which transaction has written, where that can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from dualwrite.connectors._pg_cells import Arrays, Cell, Masks, Shape, stored_as
from dualwrite.connectors._pg_schema import Catalog, ColumnFacts, column_type
from dualwrite.connectors._pg_view import Pattern, Plans, ViewPlan, matcher, ours
from dualwrite.connectors._sql import names, quote, reference_of, shared_columns
from dualwrite.model import Key, Value
from dualwrite.schema import TypeName, View


class Target:
    """A view as it is written: what depends on the view alone, and its statements."""

    def __init__(self, plan: ViewPlan) -> None:
        self.plan = plan
        view = plan.view
        self.view = view
        written = set(view.written)
        self.lookups = [lookup for lookup in view.lookups if set(lookup.own) <= written]
        self.references = [reference_of(plan.table, each.reference, (each.reference,)) for each in self.lookups]
        self.flats = [index for index in view.written if len(view.paths[index]) == 1]
        self.read_only = [index for index in self.flats if plan.columns[index].read_only]
        self.cells = [self._cell(index) for index in range(len(view.paths))]
        self.members = [matcher(plan.ends[index]) for index in view.key]
        ends = [plan.ends[index] for index in view.key]
        self.has_text_key = all(column_type(end.base, -1).name is TypeName.TEXT for end in ends)
        self._made: dict[tuple[str, Shape], str] = {}

    def _cell(self, index: int) -> Cell:
        plan = self.plan
        column = plan.columns[index]
        empty_is_null = index in plan.view.key or column.empty_is_null
        return Cell(index, column, plan.ends[index], plan.cells[index], plan.flag_of[index], empty_is_null)

    @cached_property
    def columns(self) -> dict[str, ColumnFacts]:
        """The table's columns that may be written."""
        return dict(self.plan.facts.columns)

    @cached_property
    def nulls(self) -> dict[str, Value]:
        """What each of the table's columns holds where nothing is to be held."""
        return {column.name: "" if column.empty_is_null else None for column in self.plan.table.columns}

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that tell records apart for those who read them in the feed."""
        return self.plan.facts.telling

    def is_fixed(self, index: int) -> bool:
        """Is the flat cell's column generated, so that no update may set it?"""
        return self.cells[index].column.read_only or self.plan.ends[index].identity == "always"

    @cached_property
    def shared(self) -> list[frozenset[str]]:
        """Of each lookup's columns those that belong to others as well."""
        return [shared_columns(self.plan.table, self.view, lookup) for lookup in self.lookups]

    @cached_property
    def key_columns(self) -> tuple[frozenset[str], bool]:
        """The columns that a record's natural key decides, and whether each key is that of one record at most.

        That is so where none of these columns is null and a unique index is over nothing else.
        """
        held: set[str] = set()
        for place in self.view.key:
            cell = self.cells[place]
            loose = cell.column.ignore_case or cell.column.ignore_trailing_blanks
            if len(self.view.paths[place]) == 1 and not (loose and cell.facts.base not in ("citext", "bpchar")):
                held.add(cell.column.name)
        for lookup, reference in zip(self.lookups, self.references, strict=True):
            if {index for _, index in lookup.parts} <= set(self.view.key):
                held |= set(reference.columns)
        uniques = (unique for unique in self.plan.facts.uniques if unique.where is None)
        return frozenset(held), any(set(unique.columns) <= held for unique in uniques)

    @cached_property
    def is_single(self) -> bool:
        """Can no two records hold one key?  Then its columns are its own, never null, and unique."""
        mine = [self.cells[place] for place in self.view.key]
        if any(len(self.view.paths[cell.place]) > 1 or cell.column.nullable for cell in mine):
            return False
        if any(cell.column.ignore_case or cell.column.ignore_trailing_blanks for cell in mine):
            return False
        held = {cell.column.name for cell in mine}
        return any(set(unique.columns) <= held for unique in self.plan.facts.uniques if unique.where is None)

    # -- parts of statements --------------------------------------------------------------------------------------

    @property
    def _is_spread(self) -> bool:
        return self.plan.facts.partitioned or self.plan.facts.inherited

    @property
    def _same_record(self) -> str:
        return "t.ctid = v.ctid AND t.tableoid = v.tableoid" if self._is_spread else "t.ctid = v.ctid"

    def _keys(self, arrays: Arrays, pattern: Pattern | None) -> list[str]:
        """The tests that find the records of the keys."""
        if pattern is None:
            return ["FALSE"]
        tests = []
        for number, match in enumerate(pattern):
            place = self.view.key[number]
            cell, end = self.plan.cells[place], self.plan.ends[place]
            name = f"k{number}"
            if match == "null":
                textual = column_type(end.base, -1).name is TypeName.TEXT
                tests.append(f"({cell} IS NULL OR {cell}::text = '')" if textual else f"{cell} IS NULL")
            elif match == "value":
                arrays.add(name, end.plain, end.base)
                tests.append(end.equal(cell, f"s.{name}"))
            else:
                arrays.add(name)
                tests.append(f"{end.text(cell)} = s.{name}")
        flags = {flag for place in self.view.key if (flag := self.plan.flag_of[place]) is not None}
        return tests + [f"NOT {self.plan.flags[flag]}" for flag in sorted(flags)]

    def _found(self, shape: Shape, tests: Sequence[str], cells: Sequence[int], *, strong: bool) -> str:
        """The records that are there, locked, as ``c``; what they refer to is looked up once they are found."""
        plan = self.plan
        identity = self.identity if shape.loud else ()
        told = {f"p{n}": self.columns[name].text(f"t.{quote(name)}") for n, name in enumerate(identity)}
        if shape.horizon:
            told["fresh"] = "age(t.xmin) <= age($1::xid) AND t.xmin <> ALL ($2::xid[])"
        chosen = [f"s.i AS {ours('i')}", "t.tableoid", "t.ctid"]
        chosen += [f"{value} AS {ours(name)}" for name, value in told.items()]
        chosen += [f"t.{quote(name)}" for name in plan.held(cells)]
        order = ", ".join(plan.cells[place] for place in self._ordered) or "t.ctid"
        found = (
            f"SELECT {', '.join(chosen)} FROM s, {plan.finding} WHERE {' AND '.join(tests)} "
            f"ORDER BY {order} FOR {'UPDATE' if strong else 'NO KEY UPDATE'} OF t"
        )
        shown = [f"t.{ours('i')} AS i", "t.tableoid", "t.ctid", *(f"t.{ours(name)} AS {name}" for name in told)]
        shown += [f"{plan.cells[each]} AS c{each}" for each in cells]
        flags = sorted({flag for each in cells if (flag := plan.flag_of[each]) is not None})
        shown += [f"{plan.flags[each]} AS f{each}" for each in flags]
        shown += [] if self.is_single else [f"count(*) OVER (PARTITION BY t.{ours('i')}) AS n"]
        return (
            f"t AS MATERIALIZED ({found}), c AS MATERIALIZED (SELECT {', '.join(shown)} FROM {plan.around('t', cells)})"
        )

    @property
    def _ordered(self) -> list[int]:
        """The members of the key that have an order."""
        return [place for place in self.view.key if self.plan.ends[place].equality]

    @property
    def _several(self) -> list[str]:
        return [] if self.is_single else ["WHEN c.n > 1 THEN 'm'"]

    def _told(self, shape: Shape, verdict: str = "v.verdict") -> str:
        places = [f"v.p{n}" for n in range(len(self.identity))] if shape.loud else []
        return ", ".join(["v.i", verdict, "v.fresh" if shape.horizon else "false", *places])

    def _extra(self, shape: Shape) -> str:
        """What of ``c`` is told besides."""
        extra = ["fresh"] if shape.horizon else []
        extra += [f"p{n}" for n in range(len(self.identity))] if shape.loud else []
        return "".join(f", c.{name}" for name in extra)

    # -- statements -----------------------------------------------------------------------------------------------

    def statement(self, kind: str, shape: Shape) -> str:
        """A statement for rows of a shape: lock, find, insert, update, compare, delete or let go."""
        key = kind, shape
        if key not in self._made:
            makers = {
                "lock": self._lock,
                "find": self._find,
                "insert": self._insert,
                "update": self._update,
                "compare": self._update,
                "delete": self._delete,
                "let go": self._let_go,
            }
            self._made[key] = makers[kind](shape)
        return self._made[key]

    @staticmethod
    def _arrays(shape: Shape) -> Arrays:
        return Arrays(first=3 if shape.horizon else 1)

    def _lock(self, shape: Shape) -> str:
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        if not arrays.names:
            arrays.add("nothing")
        found = self._found(shape, tests, (), strong=bool(shape.given))
        return f"WITH {arrays.sql}, {found} SELECT count(*) FROM c"

    def _find(self, shape: Shape) -> str:
        """Columns of the records of keys, behind the keys' numbers."""
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        if not arrays.names:
            arrays.add("nothing")
        chosen = ", ".join(f"t.{quote(name)}" for name in shape.columns)
        return f"WITH {arrays.sql} SELECT s.i, {chosen} FROM s, {self.plan.finding} WHERE {' AND '.join(tests)}"

    def _insert(self, shape: Shape) -> str:
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        arrays.add("bad")
        for number, name in enumerate(shape.columns):
            facts = self.columns[name]
            arrays.add(f"n{number}", stored_as(facts), facts.base)
        found = self._found(shape, tests, (), strong=False)
        values = ", ".join(f"v.n{number}" for number in range(len(shape.columns)))
        into = f"({names(shape.columns)}) OVERRIDING SYSTEM VALUE SELECT {values} FROM v"
        if not shape.columns:
            into = f"({names(self._any_default)}) SELECT {', '.join('NULL' for _ in self._any_default)} FROM v"
        identity = self.identity if shape.loud else ()
        returned = ", ".join(f"{self.columns[name].text(quote(name))} AS p{n}" for n, name in enumerate(identity))
        returned = returned or ("xmin" if self._tells_writer(shape) else "1")
        nothing = ", NULL" * len(identity)
        each = " UNION ALL SELECT -row_number() OVER (), 'w', false, x.* FROM x" if identity else ""
        several = " ".join([*self._several, "WHEN c.i IS NOT NULL THEN 'f'"])
        return (
            f"WITH {arrays.sql}, {found}, v AS MATERIALIZED (SELECT s.*{self._extra(shape)}, "
            f"CASE {several} WHEN s.bad = 't' THEN 'b' ELSE 'w' END AS verdict FROM s LEFT JOIN c USING (i)), "
            f"x AS (INSERT INTO {self.plan.facts.sql} {into} WHERE v.verdict = 'w' ORDER BY v.i "
            f"RETURNING {returned}) "
            f"SELECT {self._told(shape)} FROM v WHERE v.verdict <> 'w' "
            f"UNION ALL SELECT 0, count(*)::text, false{nothing} FROM x{each}{self._writer(shape, 'x')}"
        )

    @property
    def _any_default(self) -> list[str]:
        """A column that an insert of nothing at all may name."""
        return [column.name for column in self.plan.table.columns if column.nullable and not column.read_only][:1]

    def _update(self, shape: Shape) -> str:
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        masks = Masks(shape)
        for word in range(masks.words):
            arrays.add(f"m{word}", "int8", "int8")
        for prefix, places in (("n", shape.given), ("e", shape.expected)):
            for place in places:
                cell = self.cells[place]
                arrays.add(f"{prefix}{place}", cell.cast, cell.facts.base)
        held: dict[str, list[tuple[str, str]]] = {}
        counted, refused = [], []
        judged = ["s.*", f"c.tableoid, c.ctid, c.i IS NOT NULL AS found{self._extra(shape)}"]
        judged += [] if self.is_single else ["c.n"]
        for place in shape.given:
            if place not in self.flats:
                continue
            test = masks.tell("n", place, self.cells[place].differs(f"s.n{place}"))
            judged.append(f"{test} AS w{place}")
            counted.append(f"w{place}")
            if self.is_fixed(place):
                refused.append(f"WHEN w{place} THEN 'r{place}'")
                continue
            held.setdefault(self.cells[place].column.name, []).append((f"v.w{place}", self._new_value(place)))
        unresolved: list[str] = []
        for number in shape.lookups:
            lookup, reference = self.lookups[number], self.references[number]
            arrays.add(f"s{number}")
            for position, name in enumerate(reference.columns):
                facts = self.columns[name]
                arrays.add(f"h{number}_{position}", stored_as(facts), facts.base)
                sure = f"v.l{number}" + (f" AND v.s{number} = 'k'" if name in self.shared[number] else "")
                held.setdefault(name, []).append((sure, f"v.h{number}_{position}"))
            parts = [index for _, index in lookup.parts if index in shape.given]
            any_part = " OR ".join(masks.tell("n", part, self.cells[part].differs(f"s.n{part}")) for part in parts)
            judged.append(f"(s.s{number} IS NOT NULL AND ({any_part})) AS l{number}")
            counted.append(f"l{number}")
            unresolved.append(f"WHEN l{number} AND s{number} = 'x' THEN 'l{number}'")
        clashes = [masks.tell("e", place, self.cells[place].unlike(f"s.e{place}")) for place in shape.expected]
        judged.append(f"{' OR '.join(clashes) or 'false'} AS clash")
        cells = sorted({*shape.given, *shape.expected})
        strong = not {
            unique_column for unique in self.plan.facts.uniques for unique_column in unique.columns
        }.isdisjoint(held)
        found = self._found(shape, tests, cells, strong=strong)
        several = [] if self.is_single else ["WHEN n > 1 THEN 'm'"]
        verdict = " ".join(
            [
                "CASE WHEN NOT found THEN 'g'",
                *several,
                f"WHEN NOT ({' OR '.join(counted) or 'false'}) THEN 'u'",
                "WHEN clash THEN 'c'",
                *unresolved,
                *refused,
                "ELSE 'w' END AS verdict",
            ]
        )
        sets = []
        for name, cases in held.items():
            arms = " ".join(f"WHEN {test} THEN {value}" for test, value in cases)
            sets.append(f"{quote(name)} = CASE {arms} ELSE t.{quote(name)} END")
        judge = f"SELECT {', '.join(judged)} FROM s LEFT JOIN c USING (i) OFFSET 0"
        head = f"WITH {arrays.sql}, {found}, v AS MATERIALIZED (SELECT j.*, {verdict} FROM ({judge}) AS j)"
        if not sets or not shape.writes:
            return f"{head} SELECT {self._told(shape)} FROM v"
        return (
            f"{head}, u AS (UPDATE {self.plan.facts.sql} AS t SET {', '.join(sets)} FROM v "
            f"WHERE {self._same_record} AND v.verdict = 'w' RETURNING v.i{', t.xmin' * self._tells_writer(shape)}) "
            f"{self._answer(shape)}{self._writer(shape, 'u')}"
        )

    def _tells_writer(self, shape: Shape) -> bool:
        """Partitions do not tell; and where others act when we write, a record that we wrote last is no sure one."""
        return shape.horizon and not shape.loud and not self._is_spread

    def _writer(self, shape: Shape, written: str) -> str:
        """The number of the transaction, a part of ours, that has written."""
        told = f" UNION ALL (SELECT 0, 'x' || xmin, false FROM {written} LIMIT 1)"
        return told if self._tells_writer(shape) else ""

    def _new_value(self, place: int) -> str:
        cell = self.cells[place]
        value = f"v.n{place}"
        if cell.column.empty_is_null and cell.is_text:
            value = f"coalesce({value}, '')"
        return value if cell.cast != "text" else f"{value}::{stored_as(cell.facts)}"

    def _answer(self, shape: Shape) -> str:
        told = self._told(shape, "CASE WHEN v.verdict = 'w' AND u.i IS NULL THEN 'x' ELSE v.verdict END")
        fresh = " OR v.fresh" if shape.horizon else ""
        only = "" if shape.loud else f" WHERE v.verdict <> 'w' OR u.i IS NULL{fresh}"
        return f"SELECT {told} FROM v LEFT JOIN u USING (i){only}"

    def _delete(self, shape: Shape) -> str:
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        masks = Masks(shape)
        arrays.add("sure")
        for word in range(masks.words):
            arrays.add(f"m{word}", "int8", "int8")
        for place in shape.expected:
            cell = self.cells[place]
            arrays.add(f"e{place}", cell.cast, cell.facts.base)
        clashes = [masks.tell("e", place, self.cells[place].unlike(f"s.e{place}")) for place in shape.expected]
        found = self._found(shape, tests, shape.expected, strong=True)
        several, extra = " ".join(self._several), self._extra(shape)
        clash = " OR ".join(["s.sure = 'f'", *clashes])
        return (
            f"WITH {arrays.sql}, {found}, v AS MATERIALIZED (SELECT s.i, c.tableoid, c.ctid{extra}, "
            f"CASE WHEN c.i IS NULL THEN 'g' {several} WHEN {clash} THEN 'c' ELSE 'w' END AS verdict "
            f"FROM s LEFT JOIN c USING (i)), "
            f"u AS (DELETE FROM {self.plan.facts.sql} AS t USING v WHERE {self._same_record} AND v.verdict = 'w' "
            f"RETURNING v.i) {self._answer(shape)}"
        )

    def _let_go(self, shape: Shape) -> str:
        """Columns of unique values become null, so that they are free for others."""
        arrays = self._arrays(shape)
        tests = self._keys(arrays, shape.pattern)
        if not arrays.names:
            arrays.add("nothing")
        found = self._found(shape, tests, (), strong=True)
        sets = ", ".join(f"{quote(name)} = NULL" for name in shape.columns)
        same = self._same_record.replace("v.", "c.")
        return f"WITH {arrays.sql}, {found} UPDATE {self.plan.facts.sql} AS t SET {sets} FROM c WHERE {same}"


class Targets:
    """The views that a connector writes, compiled; those of an older schema are forgotten."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._targets: dict[View, Target] = {}

    def get(self, catalog: Catalog, view: View) -> Target:
        """How a view is written."""
        plan = self._plans.get(catalog, view)
        target = self._targets.get(view)
        if target is None or target.plan is not plan:
            target = self._targets[view] = Target(plan)
        return target


def patterns(target: Target, keys: Sequence[Key]) -> Iterator[tuple[Pattern | None, Sequence[Value]]]:
    """How each key is looked for, and the values to look for; no pattern where no record can hold it."""
    if target.has_text_key and all(map(all, keys)):  # the shorter way to the same
        pattern: Pattern = tuple(["value" for _ in target.members])
        for key in keys:
            yield pattern, key
        return
    for key in keys:
        members = [match(member) for match, member in zip(target.members, key, strict=True)]
        sure = [member for member in members if member is not None]
        if len(sure) < len(members):
            yield None, ()
        else:
            yield tuple([match for match, _ in sure]), [value for match, value in sure if match != "null"]
