"""The states of a map: which step leads where, and what is refused."""

from __future__ import annotations

from itertools import product

import pytest

from dualwrite.engine import wishes
from dualwrite.engine.lifecycle import (
    ATTENTION,
    COMMANDS,
    EVENTS,
    INITIALIZING,
    NOT_RUNNING,
    PAUSED,
    RESUMING,
    RUNNING,
    STATES,
    STOPPED,
    TRANSITIONS,
    after,
    heading,
    is_allowed,
    pending,
    possible,
    refuse_unless_allowed,
)
from dualwrite.errors import Usage
from dualwrite.journal import Journal, MapState

EXPECTED = {
    NOT_RUNNING: {"start": INITIALIZING},
    INITIALIZING: {"stop": STOPPED, "begun": INITIALIZING, "synced": RUNNING},
    RUNNING: {"stop": STOPPED, "pause": PAUSED, "begun": INITIALIZING},
    PAUSED: {"stop": STOPPED, "resume": RESUMING},
    RESUMING: {"stop": STOPPED, "pause": PAUSED, "resume": RESUMING, "caught up": RUNNING},
    STOPPED: {"start": INITIALIZING},
    ATTENTION: {"start": INITIALIZING, "stop": STOPPED, "mended": RESUMING},
}
EVERYWHERE = {"halted": ATTENTION, "removed": NOT_RUNNING}


@pytest.mark.parametrize(("state", "step"), list(product(STATES, (*COMMANDS, *EVENTS))))
def test_every_step_from_every_state(state, step):
    """It leads where this table says, and nowhere where it says nothing."""
    wanted = {**EXPECTED[state], **EVERYWHERE}
    if step in wanted:
        assert after(state, step) == wanted[step]
    else:
        assert (state, step) not in TRANSITIONS
    assert possible(state) == [command for command in COMMANDS if command in wanted]


@pytest.mark.parametrize(("state", "desired", "command"), list(product(STATES, (RUNNING, PAUSED, STOPPED), COMMANDS)))
def test_every_command_in_every_state(state, desired, command):
    """What the state that the map has, or is about to get, allows is done; all else is refused, and told why."""
    with Journal.open("sqlite://") as journal:
        journal.set_state("m", state=state, desired=desired)
        before = journal.states()["m"]
        goal, is_stopping = heading(before), pending(before) == "stop"
        wish = {
            "start": lambda: wishes.start(journal, ["m"], master=None, initial_sync=True, who="ann"),
            "stop": lambda: wishes.stop(journal, ["m"], who="ann"),
            "pause": lambda: wishes.pause(journal, ["m"], who="ann"),
            "resume": lambda: wishes.resume(journal, ["m"], who="ann"),
        }[command]
        if command in EXPECTED[goal] and not is_stopping:
            wish()
            after_it = journal.states()["m"]
            withdrawn = pending(after_it) is None and after_it.desired != desired
            assert heading(after_it) == EXPECTED[goal][command] or withdrawn
            assert [(event.what, event.who) for event in journal.events()] == [(f"{command} wanted", "ann")]
        else:
            with pytest.raises(Usage, match="possible") as refused:
                wish()
            assert all(word in str(refused.value) for word in ([] if is_stopping else possible(goal)))
            assert journal.states()["m"] == before
            assert not journal.events()


def test_a_mixed_selection_is_refused_whole():
    """Where one of several maps cannot do it, none does."""
    with Journal.open("sqlite://") as journal:
        journal.set_state("a", state=RUNNING, desired=RUNNING)
        journal.set_state("b", state=PAUSED, desired=PAUSED)
        with pytest.raises(Usage, match=r"b is paused \(stop or resume is possible\)"):
            wishes.pause(journal, ["a", "b"], who="ann")
        assert journal.states()["a"].desired == RUNNING
        refuse_unless_allowed("stop", journal.states().values())


def test_a_wish_can_be_withdrawn_before_an_engine_looks():
    """What counts is where the map is about to go."""
    with Journal.open("sqlite://") as journal:
        journal.set_state("m", state=RUNNING, desired=RUNNING)
        wishes.pause(journal, ["m"], who="ann")
        assert pending(journal.states()["m"]) == "pause"
        wishes.resume(journal, ["m"], who="ann")
        assert pending(journal.states()["m"]) is None
        assert is_allowed("pause", journal.states()["m"])
        assert not is_allowed("start", MapState("m", "running", "not running"))


def test_a_forced_stop_needs_the_journal_alone():
    """It is done at once, whatever the map was about to do, and the log tells that it was forced."""
    with Journal.open("sqlite://") as journal:
        journal.set_state("a", state=RUNNING, desired=STOPPED, initial="done")
        journal.set_state("b", state=PAUSED, desired=PAUSED, initial="done")
        wishes.force_stop(journal, ["a", "b"], who="ann")
        for state in journal.states().values():
            assert (state.state, state.desired, state.initial) == (STOPPED, STOPPED, "none")
        assert {event.map: event.detail["forced"] for event in journal.events()} == {"a": True, "b": True}
        with pytest.raises(Usage, match="a is stopped"):
            wishes.force_stop(journal, ["a"], who="ann")
