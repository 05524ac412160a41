# ruff: noqa: S608  (statements are put together from constants)
"""Reads the schema and the facts of a PostgreSQL database out of its catalog.

Views, foreign and temporary tables are left out, and so are the schemas that links have made.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from dualwrite.connectors._pg_schema import (
    Action,
    Catalog,
    ColumnFacts,
    Facts,
    ForeignKey,
    Relation,
    Trigger,
    Unique,
    column_type,
    name_in_maps,
)
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_trip import Answer, Asked, trip
from dualwrite.connectors._pg_values import array
from dualwrite.connectors._sql import literal, natural_key, quote
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

_ACTIONS: Final[dict[str, Action]] = {
    "a": "no action",
    "r": "restrict",
    "c": "cascade",
    "n": "set null",
    "d": "set default",
}


@dataclass(frozen=True, slots=True)
class _Type:
    """A type of the database."""

    oid: int
    schema: str
    name: str
    kind: str  # typtype: b base, c composite, d domain, e enum, r range, m multirange
    base: int  # of a domain
    modifier: int  # of a domain: the base's
    element: int  # of an array
    required: bool  # of a domain
    has_default: bool  # of a domain
    ordered: bool  # has a default operator class with an equality
    labels: tuple[str, ...]  # of an enum

    sql: str  # without limits

    @property
    def spelling(self) -> str:
        """The name of one of PostgreSQL's own types, or of an extension that is known by it; else with its schema."""
        is_known = self.schema == "pg_catalog" or self.name == "citext"
        return self.name if is_known else f"{self.schema}.{self.name}"


class _Types:
    """The database's types, by oid."""

    def __init__(self, types: Mapping[int, _Type]) -> None:
        self._types = types

    def under(self, oid: int, modifier: int) -> tuple[_Type, int, bool, bool]:
        """The type under all domains with its modifier; do any of them forbid null, or have a default?"""
        found, required, has_default = self._types[oid], False, False
        while found.kind == "d":
            required, has_default = required or found.required, has_default or found.has_default
            modifier = found.modifier if found.modifier >= 0 else modifier
            found = self._types[found.base]
        return found, modifier, required, has_default

    def is_hidden(self, oid: int) -> bool:
        """Is it a domain over a type whose operators are declared for any enum, array or range, and no domain?"""
        base, *_ = self.under(oid, -1)
        return self._types[oid].kind == "d" and (base.kind in "erm" or bool(base.element))

    def equality(self, oid: int) -> str:
        """The operator that compares values; empty where none is sure, as in composites, which may hold anything."""
        found = self._types[oid]
        if found.kind == "d" or found.element:
            return self.equality(found.base or found.element)
        if found.name == "citext":  # its operator is found by the search path, else that of text would be taken
            return f"OPERATOR({quote(found.schema)}.=)"
        return "=" if found.kind in "erm" or found.ordered or found.spelling in ("varchar", "cidr") else ""


# -- reading the database --------------------------------------------------------------------------------------------

# what concerns the application: not the system's, nobody's temporary tables, not what links have made
_RELATIONS: Final = r"""
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relispartition,
        CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END AS root,
        row_security_active(c.oid) AS row_security,
        EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid) AS rules,
        NOT c.relispartition AND c.relkind = 'r'
            AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS inherited,
        c.xmin, c.relfilenode
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384
        AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'dualwrite\_%'"""
_TABLES: Final = f"SELECT * FROM ({_RELATIONS}) r ORDER BY oid"
_COLUMNS: Final = f"""
    SELECT a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attidentity, a.attgenerated, a.atthasdef, a.attcollation,
        (SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname)
            FROM pg_depend d JOIN pg_class s ON s.oid = d.objid JOIN pg_namespace n ON n.oid = s.relnamespace
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i') AND s.relkind = 'S'
            LIMIT 1)
    FROM ({_RELATIONS}) r JOIN pg_attribute a ON a.attrelid = r.oid
    WHERE r.oid = r.root AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum"""
# those of columns, and what they are made of: a database has hundreds
_TYPES: Final = f"""
    WITH RECURSIVE used (oid) AS (
        SELECT a.atttypid FROM ({_RELATIONS}) r JOIN pg_attribute a ON a.attrelid = r.oid
        WHERE a.attnum > 0 AND NOT a.attisdropped
        UNION SELECT part FROM used JOIN pg_type t USING (oid), unnest(ARRAY[t.typbasetype, t.typelem]) part
        WHERE part <> 0)
    SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod,
        CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END,
        t.typnotnull, t.typdefault IS NOT NULL,
        EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
            WHERE o.opcintype = t.oid AND o.opcdefault AND m.amname IN ('btree', 'hash')),
        to_json(ARRAY(SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)),
        format_type(t.oid, -1)
    FROM used JOIN pg_type t USING (oid) JOIN pg_namespace n ON n.oid = t.typnamespace"""
# the names of the settings differ between versions
_COLLATIONS: Final = """
    SELECT oid, coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale')
    FROM pg_collation c WHERE NOT collisdeterministic"""
_INDEXES: Final = f"""
    SELECT x.indrelid, i.relname, x.indisunique, x.indisprimary, pg_get_expr(x.indpred, x.indrelid),
        coalesce((to_jsonb(x) ->> 'indnullsnotdistinct')::boolean, false), NOT x.indimmediate,
        to_json(ARRAY(SELECT a.attname FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
            LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number AND k.number > 0
            WHERE place <= x.indnkeyatts ORDER BY place))
    FROM ({_RELATIONS}) r JOIN pg_index x ON x.indrelid = r.oid JOIN pg_class i ON i.oid = x.indexrelid
    WHERE r.oid = r.root AND x.indisvalid
    ORDER BY x.indrelid, NOT x.indisprimary, x.indkey::text, i.relname"""
_FOREIGN_KEYS: Final = f"""
    SELECT r.root, f.conname, t.root, f.confupdtype, f.confdeltype, f.condeferrable,
        to_json(ARRAY(SELECT a.attname FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY place)),
        to_json(ARRAY(SELECT a.attname FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY place)),
        to_json(ARRAY(SELECT a.attname FROM unnest(coalesce(f.confdelsetcols, f.conkey)) AS k (number)
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number))
    FROM pg_constraint f JOIN ({_RELATIONS}) r ON r.oid = f.conrelid JOIN ({_RELATIONS}) t ON t.oid = f.confrelid
    WHERE f.contype = 'f' AND f.conparentid = 0
    ORDER BY r.root, f.conkey, f.conname"""
_TRIGGERS: Final = f"""
    SELECT r.root, g.tgname, g.tgtype
    FROM pg_trigger g JOIN ({_RELATIONS}) r ON r.oid = g.tgrelid
    WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgenabled IN ('O', 'A')
    ORDER BY r.root, g.tgname"""
# Whoever changes a table changes rows of the catalog, and with them their xmin.  What a partitioned table is made of
# counts as its own.  It is asked in every transaction of ours, so it looks at few rows, and makes little of them.
_VERSIONS: Final = f"""
    WITH r AS MATERIALIZED ({_RELATIONS} {{these}}), parts (oid, part) AS (
        SELECT root, concat_ws(' ', oid, xmin, nspname, row_security, rules, inherited,
            (SELECT sum(hashtextextended(a.xmin::text, attnum))
                FROM pg_attribute a WHERE attrelid = r.oid AND attnum > 0),
            (SELECT sum(hashtextextended(t.xmin::text, t.oid::bigint)::numeric + (
                    SELECT count(*) + coalesce(sum(e.xmin::text::bigint), 0) FROM pg_enum e WHERE e.enumtypid = t.oid))
                FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid
                WHERE attrelid = r.oid AND attnum > 0 AND atttypid >= 16384),
            (SELECT sum(hashtextextended(d.xmin::text, d.oid::bigint)) FROM pg_attrdef d WHERE adrelid = r.oid),
            (SELECT sum(hashtextextended(x.xmin::text, indexrelid::bigint)) FROM pg_index x WHERE indrelid = r.oid),
            (SELECT sum(hashtextextended(c.xmin::text, c.oid::bigint)) FROM pg_constraint c WHERE conrelid = r.oid),
            (SELECT sum(hashtextextended(g.xmin::text, g.oid::bigint)) FROM pg_trigger g WHERE tgrelid = r.oid))
        FROM r)
    SELECT oid, concat(count(*), '.', sum(hashtextextended(part, 0)::numeric)) FROM parts GROUP BY oid"""
_ALL: Final = _VERSIONS.format(these="")
_OF_THESE: Final = _VERSIONS.format(these="AND c.oid = ANY ($1::oid[])")
_OF_PARTITIONED: Final = _VERSIONS.format(
    these="""AND c.oid = ANY (ARRAY(SELECT o FROM unnest($1::oid[]) o UNION
        SELECT p.relid FROM unnest($1::oid[]) o CROSS JOIN pg_partition_tree(o::regclass) p))""",
)


def _read_versions(connection: Connection) -> dict[int, str]:
    """The version of each table that is there."""
    return {int(oid): version for oid, version in connection.execute(_ALL.encode()).fetchall()}


def are_current(connection: Connection, tables: Iterable[Facts]) -> bool:
    """Are these tables what they were when the catalog was read?  Far cheaper than ``read_catalog``."""
    question = Question(tables)
    return question.is_answered(trip(connection, [question.asked])[0])


class Question:
    """``are_current`` as a statement and what it must answer."""

    def __init__(self, tables: Iterable[Facts]) -> None:
        known = list(tables)
        self._versions = {facts.oid: facts.version for facts in known}
        oids = array([str(oid) for oid in self._versions])
        statement = _OF_PARTITIONED if any(facts.partitioned for facts in known) else _OF_THESE
        self.asked = Asked(statement.replace("$1", literal(oids)))  # bound, it would be planned anew each time

    def is_answered(self, answer: Answer) -> bool:
        """Are the tables what they were?"""
        return {int(oid): version for oid, version in answer} == self._versions


def read_catalog(connection: Connection, default: str = "public") -> Catalog:
    """Everything that the database says of the application's tables.

    ``default`` is the schema whose tables maps write without it.  The session must not be in a transaction.
    """
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        connection.execute("SET LOCAL search_path = pg_catalog")  # so that types are spelled in full
        return _Reader(connection, default).catalog()
    finally:
        connection.execute("ROLLBACK")


def _rows(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode()).fetchall()


class _Reader:
    """One reading of the catalog."""

    def __init__(self, connection: Connection, default: str) -> None:
        self._connection = connection
        relations = {int(row[0]): row for row in _rows(connection, _TABLES)}
        self._roots = {oid: row for oid, row in relations.items() if int(row[7]) == oid}
        self._names = {oid: name_in_maps(row[1], row[2], default) for oid, row in self._roots.items()}
        self._by_oid = {oid: self._names[int(row[7])] for oid, row in relations.items()}
        self._leaves: dict[int, list[Relation]] = defaultdict(list)
        self._storage: dict[int, list[str]] = defaultdict(list)
        for row in relations.values():
            if row[3] == "r":
                self._leaves[int(row[7])].append(_relation(row))
                self._storage[int(row[7])].append(f"{row[0]}:{row[12]}")
        self._types = _Types({int(row[0]): _type(row) for row in _rows(connection, _TYPES)})
        self._collations = {int(oid): locale or "" for oid, locale in _rows(connection, _COLLATIONS)}

    def catalog(self) -> Catalog:
        columns, details = self._columns()
        uniques, indexed, keys, expressions = self._indexes()
        foreign_keys, triggers = self._foreign_keys(), self._triggers()
        versions = _read_versions(self._connection)
        facts = {
            self._names[oid]: Facts(
                name=self._names[oid],
                relation=_relation(row),
                columns=details[oid],
                version=versions[oid],
                key=keys.get(oid, ()),
                uniques=tuple(uniques[oid]),
                indexed=tuple(indexed[oid]),
                foreign_keys=tuple(foreign_keys[oid]),
                triggers=tuple(triggers[oid]),
                leaves=tuple(self._leaves[oid]),
                partitioned=row[3] == "p",
                expression_index=oid in expressions,
                unlogged=row[4] == "u",
                row_security=_true(row[8]),
                rules=_true(row[9]),
                inherited=_true(row[10]),
            )
            for oid, row in self._roots.items()
        }
        tables = {
            self._names[oid]: _table(facts[self._names[oid]], columns[oid], " ".join(self._storage[oid]))
            for oid in sorted(self._roots, key=self._names.__getitem__)
        }
        keyed = {name: replace(table, key=natural_key(tables, name)) for name, table in tables.items()}
        return Catalog(Schema(keyed), facts, self._by_oid)

    def _columns(self) -> tuple[dict[int, list[Column]], dict[int, dict[str, ColumnFacts]]]:
        columns: dict[int, list[Column]] = defaultdict(list)
        details: dict[int, dict[str, ColumnFacts]] = defaultdict(dict)
        for row in _rows(self._connection, _COLUMNS):
            table, oid = int(row[0]), int(row[3])
            base, modifier, required, has_default = self._types.under(oid, int(row[4]))
            kind = column_type(base.spelling, modifier)
            columns[table].append(self._column(row, base, kind, required, has_default))
            details[table][row[1]] = ColumnFacts(
                name=row[1],
                number=int(row[2]),
                oid=oid,
                sql=row[5],
                base=base.spelling,
                plain="text" if base.spelling in ("varchar", "name") else base.sql,
                equality=self._types.equality(oid),
                labels=base.labels,
                padded=_padded(base.spelling, kind),
                identity={"a": "always", "d": "default"}.get(row[7], ""),  # type: ignore[arg-type]  # a closed set
                generated={"s": "stored", "v": "virtual"}.get(row[8], ""),  # type: ignore[arg-type]  # as above
                sequence=row[11],
                hidden=self._types.is_hidden(oid),
                required=_true(row[6]) or required,
            )
        return columns, details

    def _column(self, row: Sequence[Any], base: _Type, kind: ColumnType, required: bool, has_default: bool) -> Column:
        return Column(
            name=row[1],
            type=ColumnType(TypeName.CHOICE) if base.kind == "e" else kind,
            nullable=not (_true(row[6]) or required),
            has_default=not row[8] and (_true(row[9]) or bool(row[7]) or has_default),
            read_only=bool(row[8]),
            choices=tuple((label, label) for label in base.labels),
            ignore_case=base.spelling == "citext" or _ignores_case(self._collations.get(int(row[10]), "")),
            ignore_trailing_blanks=base.spelling == "bpchar",
            mark=row[2],
        )

    def _indexes(
        self,
    ) -> tuple[dict[int, list[Unique]], dict[int, list[tuple[str, ...]]], dict[int, tuple[str, ...]], set[int]]:
        uniques: dict[int, list[Unique]] = defaultdict(list)
        indexed: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        keys: dict[int, tuple[str, ...]] = {}
        expressions: set[int] = set()
        for table, name, unique, primary, where, nulls_equal, deferrable, columns in _rows(self._connection, _INDEXES):
            oid, members = int(table), json.loads(columns)
            if None in members:
                expressions |= {oid} if _true(unique) else set()
                continue
            if where is None:
                indexed[oid].append(tuple(members))
            if _true(unique):
                uniques[oid].append(Unique(name, tuple(members), where, _true(nulls_equal), _true(deferrable)))
            if _true(primary):
                keys[oid] = tuple(members)
        return uniques, indexed, keys, expressions

    def _foreign_keys(self) -> dict[int, list[ForeignKey]]:
        found: dict[int, list[ForeignKey]] = defaultdict(list)
        for table, name, target, on_update, on_delete, deferrable, *columns in _rows(self._connection, _FOREIGN_KEYS):
            mine, to, clears = map(_names, columns)
            actions = _ACTIONS[on_update], _ACTIONS[on_delete]
            cleared = clears if actions[1].startswith("set") else ()
            key = ForeignKey(name, mine, self._names[int(target)], to, *actions, cleared, _true(deferrable))
            found[int(table)].append(key)
        return found

    def _triggers(self) -> dict[int, list[Trigger]]:
        found: dict[int, list[Trigger]] = defaultdict(list)
        for table, name, bits in _rows(self._connection, _TRIGGERS):
            events = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}
            fired = frozenset(event for event, bit in events.items() if int(bits) & bit)
            found[int(table)].append(Trigger(name, bool(int(bits) & 2), bool(int(bits) & 1), fired))
        return found


def _padded(base: str, kind: ColumnType) -> Literal["", "0", " "]:
    if base == "bpchar":
        return " "
    return "0" if base == "numeric" and kind.precision is None else ""


def _true(text: str) -> bool:
    return text == "t"


def _names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _type(row: Sequence[Any]) -> _Type:
    oid, schema, name, kind, base, modifier, element, required, has_default, ordered, labels, sql = row
    return _Type(
        int(oid),
        schema,
        name,
        kind,
        int(base),
        int(modifier),
        int(element),
        _true(required),
        _true(has_default),
        _true(ordered),
        _names(labels),
        sql,
    )


def _relation(row: Sequence[Any]) -> Relation:
    return Relation(int(row[0]), row[1], row[2], row[5])


def _ignores_case(locale: str) -> bool:
    """Does a collation of this ICU locale take letters of both cases for equal?"""
    return "ks-level1" in locale or ("ks-level2" in locale and "kc-true" not in locale)


def _table(facts: Facts, columns: Sequence[Column], storage: str) -> Table:
    whole = dict.fromkeys(unique.columns for unique in facts.uniques if unique.where is None)
    references: dict[str, Reference] = {}
    for key in facts.foreign_keys:
        name = "_".join(key.columns)
        references.setdefault(name, Reference(name, key.columns, key.table, key.to))
    return Table(facts.name, tuple(columns), facts.key, tuple(whole), tuple(references.values()), storage=storage)
