"""Can a link go on from where it stands?  Asked by the engine when it opens, and by ``check`` and ``status``.

A system may be another one than before, or the same one as it was earlier, restored from a backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dualwrite.connectors.base import Connector
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.lifecycle import is_live
from dualwrite.errors import Denied, DualwriteError, PositionLost, Problem
from dualwrite.journal import Journal
from dualwrite.model import Position, Side
from dualwrite.schema import View

HOME = "home"
"""The value of the journal that says in which folder it belongs."""
START_AGAIN = "stop the maps and start them again: their initial sync makes both sides agree"


def check_identity(journal: Journal, side: Side, connector: Connector) -> None:
    """Raises Denied where a system is not the one that the link was made with, or is at another place."""
    known, found = journal.get(f"identity.{side}"), connector.identity()
    if known is None or is_same(known, found):
        return
    message = f"{side}: this is {found}, but the link was made with {known}"
    if what_of(known) == what_of(found):
        message += ": it is a copy of it, or was moved"
    raise Denied(
        message,
        f"point the environment to the right system; if this is the one that you mean, dualwrite relink {side} (or "
        "dualwrite relink --moved, where it was only moved or is reached in another way); if this folder is a copy for "
        "another pair of systems, you may also remove .dualwrite from it; if this is a backup from before the link, "
        "dualwrite uninstall and start anew",
    )


def check_home(journal: Journal) -> None:
    """Raises Denied where the project's folder, with its journal, is at another place than when it ran last."""
    known = journal.get(HOME)
    if known is not None and journal.home is not None and journal.home != known:
        raise Denied(
            f"this project is in {journal.home}, but it ran in {known}: it was copied or moved",
            "if it was moved, and nothing runs there any more: dualwrite relink --moved; if it is a copy, it must not "
            "write into the systems of the original: give it systems of its own in dualwrite.yaml, then remove "
            ".dualwrite from it, or, to keep its journal, dualwrite relink left and dualwrite relink right",
        )


def what_of(identity: str) -> str:
    """What a system is, wherever it is."""
    return identity.partition("@")[0]


def is_same(known: str, found: str) -> bool:
    """Is it the same system, at the same place?  An earlier program did not note the place."""
    return known in (found, what_of(found))


def acknowledged(journal: Journal, side: Side) -> tuple[Position | None, int]:
    """What a side may have forgotten, and how many commits of ours the other side had then."""
    text = journal.get(f"acknowledged.{side}")
    if text is None:
        return None, 0
    position, commits = text.rsplit(" ", 1)
    return Position.parse(position), int(commits)


def keep_let_go(journal: Journal, side: Side, connector: Connector) -> None:
    """Remember what a side has let go, as it remembers itself."""
    position = connector.let_go()
    journal.put(f"let_go.{side}", None if position is None else str(position))


def _check_let_go(journal: Journal, side: Side, connector: Connector, feed: str) -> None:
    """Raises PositionLost where a side does not remember what it has let go.

    Its users may have written so much since that its log is longer than it was.
    """
    text = journal.get(f"let_go.{side}")
    known, found = None if text is None else Position.parse(text), connector.let_go()
    if known is None or known.feed != feed or (found is not None and found.feed != feed):
        return
    if found is None or found < known:
        message = f"{side}: it has forgotten what it was told before"
        raise PositionLost(f"{message}: it was restored from a backup", START_AGAIN)


def commits_of(connector: Connector) -> int:
    """The number of our last commit in a system."""
    return max((number for _, number in connector.positions().values()), default=0)


def check_feed(
    journal: Journal, connectors: Mapping[Side, Connector], source: Side, views: Sequence[View], committed: Position
) -> None:
    """Raises PositionLost where a change that was not carried is gone.

    What the source was allowed to forget may be farther than what is committed, as it held nothing to carry; but not
    if the target has fewer commits of ours than it had then: it was restored from a backup.
    """
    start, target = committed, source.other
    allowed, commits = acknowledged(journal, source)
    if allowed is not None and allowed.feed == committed.feed and allowed > committed:
        held = commits_of(connectors[target])
        if held < commits:
            message = f"{target}: it holds {held} commits of this link, and held {commits} before"
            raise PositionLost(f"{message}: it was restored from a backup", START_AGAIN)
        start = allowed
    connectors[source].feed(views, start).close()
    _check_let_go(journal, source, connectors[source], committed.feed)


def check_alone(journal: Journal, side: Side, connector: Connector, views: Sequence[View]) -> None:
    """Raises PositionLost where a side does not hold what follows the place up to which it was allowed to forget.

    For while the other side, which knows how far it has received it, does not answer.
    """
    allowed, _ = acknowledged(journal, side)
    if allowed is not None and allowed.feed == connector.end().feed:
        connector.feed(views, allowed).close()
        _check_let_go(journal, side, connector, allowed.feed)


def check_kept(side: Side, connector: Connector, backlogs: Iterable[Backlog]) -> None:
    """Raises PositionLost where the journal holds changes of a side's paused maps that the side does not have."""
    kept = [(backlog.kept_to, backlog.map) for backlog in backlogs if backlog.kept_to is not None]
    end = connector.end() if kept else None
    for position, name in kept:
        if end is not None and (position.feed != end.feed or position.place[:1] > end.place[:1]):
            raise PositionLost(
                f"{side}: it ends before changes of {name} that are queued: it was restored from a backup", START_AGAIN
            )


def obstacles(journal: Journal, connectors: Mapping[Side, Connector]) -> list[Problem]:
    """Why an engine could not take up the link as it stands; of feeds nothing is asked where no map is live.

    To be asked while no engine runs: beside one, positions move between two questions.
    """
    is_carried = any(is_live(state) for state in journal.states().values())
    found: list[Problem] = []
    try:
        check_home(journal)
    except Denied as denied:
        found.append(Problem("other_home", denied.message, denied.remedy))
    silent = set()
    for side, connector in connectors.items():
        try:
            connector.clock()
        except DualwriteError as trouble:
            silent.add(side)
            found.append(Problem("connection", trouble.message, trouble.remedy, side=str(side)))
    for side in [side for side in connectors if side not in silent]:
        try:
            check_identity(journal, side, connectors[side])
            asks = is_carried and side.other not in silent  # a standby may lack what it will have
            committed = connectors[side.other].positions().get(f"{side}>{side.other}") if asks else None
            if committed is not None:
                check_feed(journal, connectors, side, (), committed[0])
        except PositionLost as lost:
            found.append(Problem("position_lost", lost.message, lost.remedy, side=str(side)))
        except Denied as denied:
            found.append(Problem("other_system", denied.message, denied.remedy, side=str(side)))
        except DualwriteError as trouble:
            found.append(Problem("connection", trouble.message, trouble.remedy, side=str(side)))
    return found
