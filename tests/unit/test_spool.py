"""What goes to disk is found again, whatever objects its keys were made of."""

from __future__ import annotations

from dualwrite.engine.spool import Overflow
from dualwrite.model import Change, Kind, Position


def change(number: int, key: str) -> Change:
    """A change of the record with that key."""
    return Change("items", Kind.INSERT, (key,), None, (key, None), 0.0, Position("feed", (number,)))


def test_overflow_finds_equal_keys_made_of_other_objects() -> None:
    """Interned or not, referred to once or often: a key is a key."""
    overflow = Overflow()
    literal = "abc"
    overflow.add([("items", (literal,), change(1, literal)), ("items", ("".join(["ab", "c"]), None), change(2, "x"))])
    assert [found.position.place for found in overflow.find("items", ("".join(["a", "bc"]),))] == [(1,)]
    assert [found.position.place for found in overflow.find("items", (literal, None))] == [(2,)]
    assert overflow.find("items", ("ab",)) == []


def test_overflow_gives_back_what_is_to_be_kept() -> None:
    """Everything up to a position goes; of that, what is asked for comes with the record under which it was kept."""
    overflow = Overflow()
    overflow.add([("items", (f"k{number}",), change(number, f"k{number}")) for number in range(1, 4)])
    taken = overflow.take(Position("feed", (2,)), lambda name, key: (name, key) != ("items", ("k1",)))
    assert [(name, key, kept.position.place) for name, key, kept in taken] == [("items", ("k2",), (2,))]
    assert len(overflow) == 1
    assert overflow.oldest() == Position("feed", (3,))
