"""Proposals for the tables of published maps, held against what people mapped: by names and types alone."""

from __future__ import annotations

from collections import Counter

import pytest

from dualwrite.mapping.check import check_maps
from dualwrite.mapping.propose import propose

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
