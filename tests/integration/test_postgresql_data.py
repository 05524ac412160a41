"""What ``check --data`` finds in PostgreSQL: keys, values and parents, before anything is installed there."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.engine.data import DataCheck
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

L, R = Side.LEFT, Side.RIGHT
LEFT = """
CREATE TABLE item (code text, name text, made timestamp, size numeric, town text);
INSERT INTO item VALUES
    ('1', 'fits', '2024-01-31 00:00:00', 1.5, 'a'), ('2', 'much too long', '2024-01-31 10:00:00', 1.234, 'nowhere'),
    ('2', 'twice', NULL, NULL, NULL), (NULL, 'no key', NULL, NULL, NULL), ('', 'no key', NULL, NULL, NULL);
"""
RIGHT = """
CREATE TABLE town (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE, name varchar(10), made date, size numeric(6,2),
    town integer REFERENCES town);
INSERT INTO town (code) VALUES ('a');
"""
MAP = """
map: items
left: item
right: item
key: [code]
columns: [code = code, name = name, made > made, size = size, town = town.code]
"""
KEYS = {("duplicate_key", "left"): 2, ("empty_key", "left"): 2}
VALUES = dict.fromkeys(
    [(code, "left") for code in ("too_long", "time_lost", "digits_lost", "missing_parent", "required")], 1
)
"""Required is the code: a record without one can have no counterpart, while an empty text would do."""


@pytest.mark.parametrize(("keys_alone", "wanted"), [(False, KEYS | VALUES), (True, KEYS)])
def test_what_would_be_parked_is_counted(
    postgresql: Server, keys_alone: bool, wanted: dict[tuple[str, str], int]
) -> None:
    """Each kind of trouble once, with how many records have it; a start without initial sync looks at keys alone."""
    with ExitStack() as stack:
        connectors = {}
        for side, script in ((L, LEFT), (R, RIGHT)):
            url = stack.enter_context(postgresql.database(script)).url
            connectors[side] = open_postgresql(url, link="test", side=side)
            stack.callback(connectors[side].close)
        schemas = {side: connector.schema() for side, connector in connectors.items()}
        compiled = compile_map(read_map(MAP, "items.yaml"), schemas[L], schemas[R])
        check = DataCheck(connectors, schemas, [compiled])
        found = list(check.keys(compiled) if keys_alone else check.problems())
    assert {(each.code, each.side): int(each.message.split(" record")[0].split()[-1]) for each in found} == wanted
