"""The engine in a process of its own, with its time and peak memory."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from dualwrite.engine import commands, wishes
from dualwrite.engine.runner import Runner
from dualwrite.engine.syncs import quiet
from dualwrite.engine.workspace import examine, opened
from dualwrite.journal import Journal
from dualwrite.project import load


def sync(folder: Path) -> None:
    """Run a project until both feeds are drained, as ``dualwrite run --until-idle`` does."""
    until_idle(folder, lambda journal, names: [journal.set_state(name, desired="running") for name in names])


def queue_up(folder: Path) -> None:
    """Pause all maps, and take what there is into their queues."""
    until_idle(folder, lambda journal, names: wishes.pause(journal, names, who="bench"))


def drain(folder: Path) -> None:
    """Run a project until both feeds are drained, whatever its maps do."""
    until_idle(folder, lambda _journal, _names: None)


def catch_up(folder: Path) -> None:
    """Resume all maps, and carry their queues."""
    until_idle(folder, lambda journal, names: wishes.resume(journal, names, who="bench"))


def look_at_data(folder: Path) -> None:
    """What ``dualwrite check --data`` does."""
    problems = examine(load(folder), quiet)
    assert any(problem.level == "error" for problem in problems), "the data is bad"


def until_idle(folder: Path, wish: Callable[[Journal, list[str]], object]) -> None:
    """Wish something of all maps, then run until both feeds are drained."""
    with opened(load(folder)) as work:
        work.lease.acquire()
        wish(work.journal, list(work.maps))
        engine = work.engine()
        engine.open()
        Runner(engine, commands.execute).run(until_idle=True)
        engine.close()


def _peak() -> float:
    """The most memory that this process has held, in MB; ``getrusage`` would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@dataclass(frozen=True)
class Measured:
    """What a function took in a process of its own: seconds, peak memory in MB, and seconds of the processor."""

    seconds: float
    peak: float
    worked: float


def _examined(function: Callable[[Path], None], folder: Path, pipe: Connection) -> None:
    began, worked = time.perf_counter(), time.process_time()
    function(folder)
    pipe.send(Measured(time.perf_counter() - began, _peak(), time.process_time() - worked))


def measured(function: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Seconds, and the peak memory in MB, of a function in a process of its own."""
    found = examined(function, folder)
    return found.seconds, found.peak


def examined(function: Callable[[Path], None], folder: Path) -> Measured:
    """What a function takes in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_examined, args=(function, folder, there))
    process.start()
    process.join()
    if not here.poll():
        raise SystemExit(f"{function.__name__} failed")
    result: Measured = here.recv()
    return result


@dataclass
class Running:
    """An engine that runs beside; its peak memory in MB and its seconds of the processor are known at its end."""

    peak: float = 0.0
    worked: float = 0.0


def _run(folder: Path, pipe: Connection) -> None:
    with opened(load(folder)) as work:
        work.lease.acquire()
        engine = work.engine()
        engine.open()
        runner = Runner(engine, commands.execute)
        thread = threading.Thread(target=runner.run)
        thread.start()
        pipe.send("running")
        worked = time.process_time()
        pipe.recv()
        runner.stop.set()
        thread.join()
        engine.close()
        pipe.send((_peak(), time.process_time() - worked))


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """An engine runs a project, whose maps run already, in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(folder, there))
    process.start()
    there.close()  # so that its end is noticed
    engine = Running()
    try:
        here.recv()
        yield engine
        here.send("stop")
        engine.peak, engine.worked = here.recv()
    finally:
        process.join(10)
        process.kill()
