"""Keeps an open engine going: a thread per flow, requests of other commands, waiting while a system does not answer."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from dualwrite.engine.flow import Flow
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import DualwriteError, Unavailable
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
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts while a system does not answer."""


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Python looks for cycles of garbage a few times less often inside.

    The rows of a large batch are hundreds of thousands of tuples that live for a moment and form no cycles; looking
    through them again and again takes a quarter of an initial sync.
    """
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Runner:
    """Runs an engine until it is stopped, or until both feeds are drained."""

    def __init__(self, engine: Engine, execute: Execute) -> None:
        self.engine = engine
        self.stop = threading.Event()
        self._execute = execute
        self._moving = threading.Event()  # cleared while somebody wants the flows to stand still
        self._moving.set()
        self._failure: BaseException | None = None
        self._busy = dict.fromkeys(Side, True)

    def run(self, until_idle: bool = False) -> None:
        """Returns when stopped, or idle if asked; raises what stops the link for good.

        While a system does not answer, everything is taken up anew from what is committed, with growing pauses.
        """
        attempt = 0
        with seldom_collected():
            while not self.stop.is_set():
                try:
                    if attempt:
                        self.engine.open()
                    self.engine.reconcile()
                    self._carry(until_idle)
                    return
                except Unavailable as trouble:
                    pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
                    attempt += 1
                    log.warning("unavailable retry_in=%.1f reason=%s", pause, trouble)
                    self.engine.close()
                    self.stop.wait(pause)

    def _carry(self, until_idle: bool) -> None:
        self._failure = None
        self._busy = dict.fromkeys(Side, True)
        done = threading.Event()
        threads = [
            threading.Thread(target=self._loop, args=(flow, done), name=f"flow {flow.stream}", daemon=True)
            for flow in self.engine.flows.values()
        ]
        for thread in threads:
            thread.start()
        try:
            while not self.stop.is_set() and self._failure is None:
                self._serve()
                if until_idle and not any(self._busy.values()):
                    with self.still():
                        self.engine.drain()
                    break
                self.stop.wait(LISTEN_EVERY)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        self.engine.acknowledge()

    def _serve(self) -> None:
        """Answer what other commands asked for."""
        for request in self.engine.journal.pending_requests():
            with self.still():
                try:
                    result = self._execute(self.engine, request.command, request.arguments)
                except Unavailable:
                    raise
                except DualwriteError as trouble:
                    result = {"error": trouble.message, "remedy": trouble.remedy}
            self.engine.journal.answer(request.id, result)

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
