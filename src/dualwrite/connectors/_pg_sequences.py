"""Sequences keep ahead of the numbers that we write, so that the application's next record gets a free one.

They move in their own steps, so that sides which take turns (odd and even numbers) go on doing so, and never beyond
their own limits, so that sides with ranges of their own keep them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_statements import Target
from dualwrite.model import Row

# Short ways are gone step by step, since the application may take numbers at the very moment: only ``nextval`` can
# never put the sequence back behind it.
_FOLLOW: Final = """
    WITH s AS MATERIALIZED (
        SELECT q.seqrelid::regclass AS sequence, seqincrement::numeric AS step, seqmin, seqmax,
            coalesce(pg_sequence_last_value(q.seqrelid), nextval(q.seqrelid)) AS last
        FROM pg_sequence q WHERE q.seqrelid = to_regclass($1) AND has_sequence_privilege(q.seqrelid, 'UPDATE')
            AND has_sequence_privilege(q.seqrelid, 'USAGE, SELECT')),
    n AS MATERIALIZED (
        SELECT *, ceil((CASE WHEN step > 0 THEN $2::numeric ELSE $3::numeric END - last) / step) AS steps FROM s)
    SELECT CASE WHEN steps > 64 THEN setval(sequence, (last + steps * step)::bigint) ELSE (
        SELECT count(number) FROM (SELECT nextval(sequence) AS number FROM generate_series(1, steps::integer)) g) END
    FROM n WHERE steps > 0 AND last + steps * step BETWEEN seqmin AND seqmax"""


def follow(connection: Connection, target: Target, rows: Iterable[Row]) -> None:
    """New records with these rows were written: let the sequences of their columns be at their numbers, at least."""
    numbered = [place for place in target.flats if target.plan.ends[place].sequence is not None]
    if not numbered:
        return
    known = list(rows)
    for place in numbered:
        numbers = [int(cell) for row in known if isinstance(cell := row[place], str)]
        if numbers:
            bound = [target.plan.ends[place].sequence, str(max(numbers)), str(min(numbers))]
            connection.execute(_FOLLOW.encode(), bound)
