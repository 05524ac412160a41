"""What both flows of a link share stays whole when both touch it."""

from __future__ import annotations

import threading

from dualwrite.engine.link import ParkedKeys
from dualwrite.model import Position

AT = Position("feed", (1,))


def test_what_is_freed_while_the_other_flow_prunes_stays_free() -> None:
    """The flow out of a side forgets old intervals at the very time at which the flow into it frees the record."""
    parked = ParkedKeys()
    freeing = threading.Thread(target=parked.remove, args=("items", ("a",), 9))

    class Commit(int):
        """A commit's number that lets the other flow come in between when it is looked at."""

        def __gt__(self, other: int) -> bool:
            if not freeing.ident:
                freeing.start()
                freeing.join(0.2)  # it either comes in between, or waits until this is over
            return int(self) > other

    parked.add("items", ("a",), AT, 1)
    parked.remove("items", ("a",), Commit(5))
    parked.add("items", ("a",), AT, 7)
    parked.prune(3)
    freeing.join()
    assert ("items", ("a",)) not in parked
    assert parked.first_at("items", ("a",), 8) == AT
