"""The values that everything else speaks of."""

from __future__ import annotations

from dualwrite.model import Change, Kind, Position


def test_other_images_are_not_said_to_differ_where_the_former_did() -> None:
    """What a feed knows of two images holds for no others."""
    change = Change(
        "items", Kind.UPDATE, ("k",), ("k", "1", "x"), ("k", "2", "x"), 0.0, Position("feed", (1,)), edited=(1,)
    )
    other = change.with_images(("k", "1", "y"), change.after)
    assert (other.before, other.after, other.edited) == (("k", "1", "y"), ("k", "2", "x"), None)
    assert other.position == change.position
