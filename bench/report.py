"""What the benchmarks print: one line per figure, with its ratio to a limit or a peer of the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def report(case: str, count: int, seconds: float, limit: float | None = None, note: str = "") -> None:
    """One line of the result; ``limit`` are the seconds to which it is held."""
    ratio = f"{seconds / limit:5.2f} × limit" if limit else " " * 13
    print(f"{case:<48} {count:>8} rows {seconds:7.2f} s {count / seconds:>10,.0f} rows/s  {ratio}  {note}", flush=True)


def median(found: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(found)


def latencies(case: str, found: Sequence[float], note: str = "") -> None:
    """One line: the median, and what 99 of 100 stay under."""
    ordered = sorted(found)
    p50, p99 = statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000
    print(f"{case:<48} {len(found):>8} times  p50 {p50:.1f} ms  p99 {p99:.1f} ms  {note}", flush=True)
