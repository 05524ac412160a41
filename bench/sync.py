"""An initial sync in a process of its own, with its time and peak memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from dualwrite.engine import commands
from dualwrite.engine.runner import Runner
from dualwrite.engine.workspace import opened
from dualwrite.project import load


def sync(folder: Path) -> None:
    """Run a project until both feeds are drained, as ``dualwrite run --until-idle`` does."""
    with opened(load(folder)) as work:
        work.lease.acquire()
        for name in work.maps:
            work.journal.set_state(name, desired="running")
        engine = work.engine()
        engine.open()
        Runner(engine, commands.execute).run(until_idle=True)
        engine.close()


def _measured(function: Callable[[Path], None], folder: Path, pipe: Connection) -> None:
    began = time.perf_counter()
    function(folder)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((seconds, peak))


def measured(function: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Seconds, and the peak memory in MB, of a function in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(function, folder, there))
    process.start()
    process.join()
    if not here.poll():
        raise SystemExit(f"{function.__name__} failed")
    result: tuple[float, float] = here.recv()
    return result
