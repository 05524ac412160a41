"""The metrics of a running engine as Prometheus reads them, over HTTP.

A scrape copies what the engine has counted: it asks neither the systems nor the journal, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dualwrite.engine.lifecycle import STATES
from dualwrite.engine.meter import BUCKETS, Meter, Reading, Times
from dualwrite.engine.watch import Standing
from dualwrite.errors import Usage
from dualwrite.model import Side

METRICS: Final = {
    "dualwrite_up": "1 while the engine carries changes, 0 while it waits for a system or starts.",
    "dualwrite_system_up": "1 while a system answers, as far as the engine knows, 0 while it does not.",
    "dualwrite_map_state": "1 for the state that a map is in, 0 for all others.",
    "dualwrite_changes_total": "Changes by what became of them at their target.",
    "dualwrite_parked_total": "Changes that were parked, by code; what went through since counts on.",
    "dualwrite_incidents_total": "What else went wrong, by kind.",
    "dualwrite_apply_seconds": "Seconds from the beginning of a transaction in the target to its commit.",
    "dualwrite_lag_seconds": "Age of the oldest change that is read and not carried yet.",
    "dualwrite_lag_rows": "Changes that are read and not carried yet.",
    "dualwrite_retained_bytes": "What a system keeps of its log until the link has it: the lag in bytes.",
    "dualwrite_queued_changes": "Changes that wait in the journal.",
    "dualwrite_parked_records": "Records that are parked.",
    "dualwrite_open_conflicts": "Conflicts that wait for a person.",
}
"""Name → what it says."""


class Exposition(Collector):
    """What Prometheus is told of a link."""

    def __init__(self, link: str, meter: Meter, standing: Callable[[], Standing]) -> None:
        self._link = link
        self._meter = meter
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        """All metrics as they are now."""
        reading, standing = self._meter.reading(), self._standing()
        yield self._gauge("dualwrite_up", (), [((), float(reading.carries))])
        answers = (((side.value,), float(side not in reading.away)) for side in Side)
        yield self._gauge("dualwrite_system_up", ("side",), answers)
        yield from self._counts(reading)
        yield self._times(reading)
        yield from self._gauges(reading)
        yield from self._waiting(standing)

    def _gauge(self, name: str, labels: Iterable[str], values: Iterable[tuple[Iterable[str], float]]) -> Metric:
        family = GaugeMetricFamily(name, METRICS[name], labels=["link", *labels])
        for where, value in values:
            family.add_metric([self._link, *where], value)
        return family

    def _counter(self, name: str, labels: Iterable[str], values: Iterable[tuple[Iterable[str], float]]) -> Metric:
        family = CounterMetricFamily(name, METRICS[name], labels=["link", *labels])
        for where, value in values:
            family.add_metric([self._link, *where], value)
        return family

    def _counts(self, reading: Reading) -> Iterator[Metric]:
        changes = (((name, side.value, outcome), count) for (name, side, outcome), count in reading.changes.items())
        parked = (((name, side.value, code), count) for (name, side, code), count in reading.parked.items())
        yield self._counter("dualwrite_changes_total", ("map", "side", "outcome"), changes)
        yield self._counter("dualwrite_parked_total", ("map", "side", "code"), parked)
        yield self._counter("dualwrite_incidents_total", ("kind", "map"), reading.incidents.items())

    def _times(self, reading: Reading) -> Metric:
        family = HistogramMetricFamily(
            "dualwrite_apply_seconds", METRICS["dualwrite_apply_seconds"], labels=["link", "side"]
        )
        for side, times in reading.applied.items():
            family.add_metric([self._link, side.value], _classes(times), times.seconds)
        return family

    def _gauges(self, reading: Reading) -> Iterator[Metric]:
        lag = (((name, side.value), age) for (name, side), age in reading.lag.items())
        rows = (((name, side.value), count) for (name, side), count in reading.waiting.items())
        kept = (((side.value,), size) for side, size in reading.retained.items())
        yield self._gauge("dualwrite_lag_seconds", ("map", "side"), lag)
        yield self._gauge("dualwrite_lag_rows", ("map", "side"), rows)
        yield self._gauge("dualwrite_retained_bytes", ("side",), kept)

    def _waiting(self, standing: Standing) -> Iterator[Metric]:
        states = (
            ((name, state), float(found.state == state)) for name, found in standing.states.items() for state in STATES
        )
        tally = {name: standing.tally.get(name) for name in standing.states}
        yield self._gauge("dualwrite_map_state", ("map", "state"), states)
        for name, member in (
            ("dualwrite_queued_changes", "changes"),
            ("dualwrite_parked_records", "parked"),
            ("dualwrite_open_conflicts", "conflicts"),
        ):
            yield self._gauge(name, ("map",), (((of,), getattr(found, member, 0)) for of, found in tally.items()))


def _classes(times: Times) -> list[tuple[str, float]]:
    """Prometheus counts in each class what is in those below as well."""
    return list(zip([*map(str, BUCKETS), "+Inf"], accumulate(times.classes), strict=True))


@contextmanager
def served(listen: tuple[str, int], exposition: Exposition) -> Iterator[str]:
    """Inside, the metrics can be read at the URL that is given; raises Usage where nothing can listen there."""
    registry = CollectorRegistry()
    registry.register(exposition)
    ProcessCollector(registry=registry)
    host, port = listen
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as refused:
        raise Usage(
            f"the metrics cannot be served at {host}:{port}: {refused.strerror or refused}",
            "choose another port: --metrics PORT, or metrics: in dualwrite.yaml",
        ) from refused
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
