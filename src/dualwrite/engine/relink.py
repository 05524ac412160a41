"""Pointing a link to other systems: what the new one is, what that means, and then the journal on top of it.

Nothing is carried before a person starts the maps again: what both sides held when they parted nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dualwrite.connectors.base import Connector, Installation
from dualwrite.engine.continuity import HOME, check_home, is_same, what_of
from dualwrite.engine.lifecycle import NOT_RUNNING, STOPPED
from dualwrite.engine.verify import verify
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import Denied, Problem, Usage
from dualwrite.journal import Journal
from dualwrite.journal.entries import Boundaries
from dualwrite.model import Side


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much of a map's data is the same on both sides."""

    map: str
    equal: int
    different: int
    left_only: int
    right_only: int


@dataclass(frozen=True, slots=True)
class Prospect:
    """What relinking a side would mean.

    ``was`` is the system that the link was made with (None: none yet), ``now`` the one that its URL leads to.
    ``leaves`` removes the link from the one that it leaves, by hand: empty where nothing is there, or another project
    uses it.
    """

    side: Side
    was: str | None
    now: str
    url: str
    holds: Installation
    problems: tuple[Problem, ...]
    data: tuple[Agreement, ...]
    leaves: str = ""

    @property
    def is_same_data(self) -> bool:
        """Do both sides hold the same?"""
        return not any(each.different or each.left_only or each.right_only for each in self.data)

    @property
    def sentence(self) -> str:
        """What the new system is, in words."""
        if self.was is None:
            return "nothing ran with this side yet"
        if is_same(self.was, self.now):
            return "it is the system that the link was made with: nothing has to be relinked"
        if what_of(self.was) == what_of(self.now):
            return "it is a copy of the system that the link was made with, or that one at another place"
        if self.holds.is_copy:
            return "it is a copy of a system that a link of this name was made with"
        return "it is another system, and new to this link"


def examine(work: Workspace, side: Side) -> Prospect:
    """Look at the system that a side's URL leads to by now.  Writes nothing."""
    connector = work.connectors[side]
    problems = [problem for problem in work.problems if problem.level == "error"]
    reports = [verify(one, work.connectors) for one in work.maps.values()]
    data = [
        Agreement(each.map, each.tally.equal, each.count(None), each.count(Side.LEFT), each.count(Side.RIGHT))
        for each in reports
    ]
    was, now = work.journal.get(f"identity.{side}"), connector.identity()
    is_left = was is not None and not is_same(was, now) and not _is_copied(work.journal)
    return Prospect(
        side,
        was,
        now,
        work.project.environments[side].shown_url,
        connector.installation(),
        tuple(problems),
        tuple(data),
        connector.by_hand() if is_left else "",
    )


def relink(work: Workspace, prospect: Prospect, who: str) -> None:
    """Take the system up as the link's: of a copied link nothing is left in it, and every map waits to be started.

    To be done while no engine runs.  After a crash it is done again.  Raises Usage, with nothing written, where the
    system is linked already, or nothing is to be done.
    """
    side, journal = prospect.side, work.journal
    if prospect.was is not None and is_same(prospect.was, prospect.now):
        raise Usage(f"{side}: {prospect.sentence}", f"write the new url of {side} into dualwrite.yaml first")
    if prospect.holds.objects and not prospect.holds.is_copy:
        raise Usage(
            f"{side}: {prospect.url} is linked already by a link called {work.project.link}: this may be production",
            "if this is the same system, which moved or has got another address: dualwrite relink --moved; else "
            "uninstall the link there from its own project, or give this link another name",
        )
    if prospect.holds.objects:
        work.connectors[side].uninstall()
    with journal.batch() as batch:
        batch.part(side)
        batch.put(f"identity.{side}", work.connectors[side].identity())
        for name in (f"acknowledged.{side}", f"let_go.{side}", "clock.offsets"):
            batch.put(name, None)
        for name, state in journal.states().items():
            boundaries: Boundaries = dict.fromkeys(Side)
            batch.set_state(name, desired=STOPPED, reason="", initial="none", boundaries=boundaries)
            if state.state != NOT_RUNNING:
                batch.set_state(name, state=STOPPED)
        detail = {"side": str(side), "was": prospect.was, "now": prospect.now, "url": prospect.url}
        batch.log("relinked", who=who, detail={**detail, "same_data": prospect.is_same_data})
        batch.put(f"relinked.{side}", journal.home)
    _settle_home(journal)


def _settle_home(journal: Journal) -> None:
    """A copied folder is at home here once both of its sides are systems of its own."""
    if journal.home is not None and all(journal.get(f"relinked.{side}") == journal.home for side in Side):
        journal.put(HOME, journal.home)


def _is_copied(journal: Journal) -> bool:
    """Is the folder a copy, whose original may go on?"""
    try:
        check_home(journal)
    except Denied:
        return True
    return False


def missing_side(journal: Journal) -> Side | None:
    """The side that a copied folder still shares with its original."""
    if not _is_copied(journal):
        return None
    return next((side for side in Side if journal.get(f"relinked.{side}") != journal.home), None)


def moved(journal: Journal, connectors: Mapping[Side, Connector], who: str, sure: Callable[[str], None]) -> list[str]:
    """Note that folder and systems were only moved, or are reached in another way: the link goes on where it stood.

    Returns what was noted, in words; ``sure`` asks before.  Raises Denied where a system is another one.
    """
    told: list[str] = []
    found = {side: connector.identity() for side, connector in connectors.items()}
    for side, now in found.items():
        was = journal.get(f"identity.{side}")
        if was is None or is_same(was, now):
            continue
        if what_of(was) != what_of(now):
            raise Denied(
                f"{side}: this is {now}, but the link was made with {was}: it is another system",
                f"dualwrite relink {side}, if that is meant",
            )
        told.append(f"{side}: {was} is now {now}")
    home = journal.get(HOME)
    if home is not None and journal.home != home:
        told.append(f"the project: {home} is now {journal.home}")
    if told:
        sure("; ".join(told))
        with journal.batch() as batch:
            for side, now in found.items():
                batch.put(f"identity.{side}", now)
            batch.put(HOME, journal.home)
            batch.log("moved", who=who, detail={"moved": told})
    return told
