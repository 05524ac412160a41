"""Keeps an open engine going: a thread per flow, requests of other commands, waiting while a system does not answer."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from dualwrite.engine.flow import Flow
from dualwrite.engine.outage import Outage
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import DualwriteError, GivenUp, Halted, Unavailable, Usage
from dualwrite.model import Side

log = logging.getLogger(__name__)

Execute: TypeAlias = Callable[[Engine, str, Mapping[str, object]], Mapping[str, object]]
"""Does what another command asked for, while both flows stand still."""

READ_TIMEOUT = 0.1
"""Seconds that a flow waits for changes before it looks up."""
LISTEN_EVERY = 0.1
"""Seconds between two looks at the requests of other commands."""
ACKNOWLEDGE_EVERY = 1.0
"""Seconds between two times that a flow lets its target forget."""
TELL_EVERY = 0.5
"""Seconds between two times that other processes are told how old the oldest change in hand is."""
PRUNE_EVERY = 10.0
"""Seconds between two looks at whether the audit has become too long."""
IN_HAND: Final = "in_hand"
"""The value of the journal that tells the commit time of the oldest change that is read and not carried, per side and
map."""
PATIENCE: Final = 30.0
"""Seconds that a system may not answer before an engine gives up that is to end when it is idle."""

SWITCH: Final = 0.001
"""Seconds after which a thread of Python lets another one go on."""


@contextlib.contextmanager
def tuned() -> Iterator[None]:
    """The interpreter as an engine needs it.

    Python looks for cycles of garbage less often, and never among what was there before: the rows of a large batch are
    hundreds of thousands of tuples that live for a moment and form no cycles; looking through them again and again
    takes a quarter of an initial sync, and a fifth of a large update.
    And threads take turns more often: a flow has three answers to wait for in each transaction, and would wait behind
    the other threads after each.
    """
    collects, switches = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(100_000, *collects[1:])
    gc.freeze()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*collects)
        sys.setswitchinterval(switches)


def patience(until_idle: bool) -> float:
    """For how many seconds a system may not answer."""
    return PATIENCE if until_idle else float("inf")


class Runner:
    """Runs an engine until it is stopped, or until both feeds are drained."""

    def __init__(self, engine: Engine, execute: Execute, stop: threading.Event | None = None) -> None:
        self.engine = engine
        self.stop = stop or threading.Event()
        engine.is_ending = self.stop.is_set
        self._outage = Outage(engine, self.stop)
        self._execute = execute
        self._moving = threading.Event()  # cleared while somebody wants the flows to stand still
        self._moving.set()
        self._failure: BaseException | None = None
        self._busy = dict.fromkeys(Side, True)
        self._told: dict[str, str | None] = {}
        self._told_at = 0.0
        self._prune_at = 0.0

    def open(self, until_idle: bool = False) -> None:
        """Take up the link; while a system does not answer, again and again, and not for long where it is to end."""
        while not self.stop.is_set():
            try:
                self.engine.open()
            except Unavailable as trouble:
                self.engine.close()
                self._outage.wait(trouble, patience=patience(until_idle))
            else:
                return

    def run(self, until_idle: bool = False) -> None:
        """Returns when stopped, or idle if asked; raises what stops the link for good.

        While a system does not answer, and when a map must not go on, everything is taken up anew from what is
        committed: with growing pauses, and without that map.
        """
        is_open, began, goes_on = True, None, True
        with tuned():
            while goes_on and not self.stop.is_set():
                try:
                    if not is_open:
                        self.engine.open()
                        is_open = True
                    self._outage.over()
                    self.engine.reconcile()
                    self.engine.meter.carries(True)
                    began = time.monotonic()
                    goes_on = self._carry(until_idle)
                    if goes_on:
                        self.engine.close()
                        is_open = False
                except Usage:
                    misfits = self.engine.misfits() if is_open else []
                    if not misfits:
                        raise
                    self.engine.close()
                    is_open = False
                    for misfit in misfits:
                        self.engine.halt(misfit)
                except Halted as halted:
                    self.engine.close()
                    is_open = False
                    self.engine.halt(halted)
                except Unavailable as trouble:
                    self.engine.meter.carries(False)
                    self.engine.close()
                    if self.stop.is_set():  # it waits for nobody any more
                        return
                    worked = 0.0 if began is None else time.monotonic() - began
                    is_open, began = False, None
                    self._outage.wait(trouble, worked, patience(until_idle))

    def _carry(self, until_idle: bool) -> bool:
        """Carry until stopped, or idle if asked; True where the link is to be taken up anew, for other companies."""
        self._failure, is_rescoped = None, False
        self._busy = dict.fromkeys(Side, True)
        done = threading.Event()
        for flow in self.engine.flows.values():
            flow.read_ahead()
        threads = [
            threading.Thread(target=self._loop, args=(flow, done), name=f"flow {flow.stream}", daemon=True)
            for flow in self.engine.flows.values()
        ]
        for thread in threads:
            thread.start()
        try:
            while not self.stop.is_set() and self._failure is None and not is_rescoped:
                self._serve()
                self._settle_delays()
                self._tell_lag()
                self._prune()
                if until_idle and not any(self._busy.values()):
                    with self.still():
                        self.engine.drain()
                    break
                self.stop.wait(LISTEN_EVERY)
                is_rescoped = self.engine.is_rescoped()
        finally:
            done.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        self._told_at = 0.0
        self._tell_lag()
        self.engine.acknowledge()
        return is_rescoped

    def _tell(self, name: str, value: str | None) -> None:
        """Let other processes know, where it is something new."""
        if self._told.get(name, "") != value:
            self.engine.journal.put(name, value)
            self._told[name] = value

    def _tell_lag(self) -> None:
        """Who else looks cannot read what a feed holds."""
        now = time.monotonic()
        if now - self._told_at > TELL_EVERY:
            self._told_at = now
            found = {side: flow.in_hand() for side, flow in self.engine.flows.items()}
            for side, in_hand in found.items():
                self.engine.meter.in_hand(side, in_hand)
            oldest = {str(side): {name: each.oldest for name, each in maps.items()} for side, maps in found.items()}
            self._tell(IN_HAND, json.dumps(oldest))

    def _prune(self) -> None:
        """Keep the audit to its size, in small steps: a full one is followed by the next without a pause."""
        now = time.monotonic()
        if now >= self._prune_at:
            self._prune_at = now if self.engine.prune() else now + PRUNE_EVERY

    def _serve(self) -> None:
        """Answer what other commands asked for."""
        for request in self.engine.journal.pending_requests():
            with self.still():
                try:
                    result = self._execute(self.engine, request.command, request.arguments)
                except GivenUp as trouble:
                    self.engine.journal.answer(request.id, _refusal(trouble))
                    raise
                except (Unavailable, Halted):
                    raise
                except DualwriteError as trouble:
                    result = _refusal(trouble)
                except Exception as wrong:
                    if not self.stop.is_set():  # a fault of ours: the next engine must not end over the same
                        told = f"the engine ended over {request.command!r}: {wrong!r}"
                        self.engine.journal.answer(request.id, {"error": told, "remedy": "see what it has logged"})
                    raise
            self.engine.journal.answer(request.id, result)

    def _settle_delays(self) -> None:
        """Let maps that have caught up flow with the others."""
        if self.engine.pauses.may_settle():
            with self.still():
                self.engine.settle_delays()

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Both flows stand still inside."""
        self._moving.clear()
        try:
            with contextlib.ExitStack() as stack:
                for flow in self.engine.flows.values():
                    stack.enter_context(flow.lock)
                yield
        finally:
            self._moving.set()

    def _loop(self, flow: Flow, done: threading.Event) -> None:
        acknowledged = time.monotonic()
        try:
            while not done.is_set():
                self._moving.wait()
                with flow.lock:
                    if done.is_set() or not self._moving.is_set():
                        continue
                    self._busy[flow.source] = flow.turn(READ_TIMEOUT)
                    if time.monotonic() - acknowledged > ACKNOWLEDGE_EVERY:
                        flow.acknowledge(self.engine.flows[flow.target].passed)
                        acknowledged = time.monotonic()
        except BaseException as trouble:
            self._failure = trouble


def _refusal(trouble: DualwriteError) -> dict[str, object]:
    """A request that cannot be done, as it is answered."""
    return {"error": trouble.message, "remedy": trouble.remedy, "usage": isinstance(trouble, Usage)}
