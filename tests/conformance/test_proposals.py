"""Proposals for the tables of published maps, held against what people mapped: by names and types alone."""

from __future__ import annotations

from collections import Counter

import pytest

from dualwrite.mapping.check import check_maps
from dualwrite.mapping.evidence import Samples
from dualwrite.mapping.pairing import table_pairs
from dualwrite.mapping.propose import no_rows, propose
from dualwrite.model import Side
from dualwrite.schema import Schema, Table

from .proposal_corpus import SHARED, cases

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the published facts (../shared) are not here")


def test_proposals_are_mostly_what_people_mapped():
    """Sure lines are right, likely ones mostly, three in four of what people mapped is found, and no map has errors."""
    wanted, right, proposed = 0, Counter(), Counter()
    for case in cases():
        proposal = propose(case.left, case.right)
        wanted += len(case.pairs)
        for found in (each for each in proposal.maps if each.left == "subject"):
            for line, remark in zip(found.columns, proposal.remarks[found.name], strict=True):
                proposed[remark.confidence] += 1
                right[remark.confidence] += (line.left[0], line.right) in case.pairs
            errors = [each for each in check_maps([found], case.left, case.right) if each.level == "error"]
            assert errors == []
    assert wanted > 1000
    assert right["sure"] >= 0.95 * proposed["sure"]
    assert right["likely"] >= 0.9 * proposed["likely"]
    assert right["unsure"] >= 0.7 * proposed["unsure"]
    assert right.total() >= 0.75 * wanted


def test_tables_find_their_counterparts_by_names_and_types():
    """All tables of published maps beside each other: two in three are paired as people did, and hardly one wrongly."""
    tables: dict[Side, dict[str, Table]] = {side: {} for side in Side}
    mapped = set()
    for case in cases():
        for side, name, schema in (
            (Side.LEFT, case.left_name, case.left),
            (Side.RIGHT, case.right_name, case.right),
        ):
            subject = schema.tables["subject"]
            known = tables[side].get(name, subject).columns
            columns = {column.name: column for column in (*known, *subject.columns)}
            tables[side][name] = Table(name, tuple(columns.values()), uniques=subject.uniques)
        mapped.add((case.left_name, case.right_name))
    schemas = {side: Schema(found) for side, found in tables.items()}
    paired = {(left.name, right.name) for left, right in table_pairs(Samples(schemas, no_rows), (), {}).tables}
    assert len(paired & mapped) >= 0.65 * len(mapped)
    assert len(paired & mapped) >= 0.95 * len(paired)
    few = Schema(dict(list(tables[Side.RIGHT].items())[::2]))  # most tables of a system have no counterpart
    paired = {(a.name, b.name) for a, b in table_pairs(Samples({**schemas, Side.RIGHT: few}, no_rows), (), {}).tables}
    assert len(paired & mapped) >= 0.9 * len(paired)
