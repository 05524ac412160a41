"""What a running engine tells of itself: metrics, log lines, and the status again and again."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from contextlib import closing
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dualwrite.engine.exposition import METRICS, Exposition, served
from dualwrite.engine.meter import BUCKETS, InHand, Meter, Times
from dualwrite.engine.watch import Standing
from dualwrite.errors import Usage
from dualwrite.journal import MapState, Tally
from dualwrite.model import Side


def scraped(url: str) -> dict[tuple, float]:
    """Every sample of a scrape, by its name and its labels but the link's."""
    with urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "link")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_counted_is_exposed():
    """Every metric is there under its name, with its labels, as it was counted."""
    meter = Meter()
    meter.count(Side.RIGHT, {("customers", "applied"): 3, ("customers", "unchanged"): 1})
    meter.park(Side.RIGHT, [("customers", "too_long"), ("customers", "too_long")])
    meter.incident("connection")
    meter.applied(Side.RIGHT, 0.03)
    meter.in_hand(Side.LEFT, {"customers": InHand(7, 0.0)})
    meter.retained({Side.LEFT: 4096})
    standing = Standing({"customers": MapState("customers", state="running")}, {"customers": Tally(2, 5, 1)})
    with served(("127.0.0.1", 0), Exposition("shop", meter, lambda: standing)) as url:
        found = scraped(url)
    assert found["dualwrite_up",] == 0
    assert found["dualwrite_changes_total", "customers", "applied", "right"] == 3
    assert found["dualwrite_parked_total", "too_long", "customers", "right"] == 2
    assert found["dualwrite_incidents_total", "connection", ""] == 1
    assert found["dualwrite_apply_seconds_bucket", "0.025", "right"] == 0
    assert found["dualwrite_apply_seconds_bucket", "0.05", "right"] == 1
    assert found["dualwrite_apply_seconds_count", "right"] == 1
    assert found["dualwrite_lag_seconds", "customers", "left"] > 1e9
    assert found["dualwrite_lag_rows", "customers", "left"] == 7
    assert found["dualwrite_retained_bytes", "left"] == 4096
    assert found["dualwrite_map_state", "customers", "running"] == 1
    assert found["dualwrite_map_state", "customers", "stopped"] == 0
    waiting = ("dualwrite_queued_changes", "dualwrite_parked_records", "dualwrite_open_conflicts")
    assert [found[name, "customers"] for name in waiting] == [5, 2, 1]
    told = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name, *_ in found}
    assert set(METRICS) <= told


def test_times_fall_into_their_classes():
    """A bound belongs to its own class, and what is longer than all of them is counted as well."""
    times = Times().plus(BUCKETS[0]).plus(BUCKETS[0] * 1.01).plus(99)
    assert (times.classes[0], times.classes[1], times.classes[-1]) == (1, 1, 1)
    assert times.seconds == pytest.approx(99 + BUCKETS[0] * 2.01)


def test_a_port_that_is_taken_is_told():
    """With the place, and with what to do."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        exposition = Exposition("shop", Meter(), Standing)
        with (
            pytest.raises(Usage, match=rf"cannot be served at 127\.0\.0\.1:{port}.*--metrics"),
            served(("127.0.0.1", port), exposition),
        ):
            pass


def test_a_running_engine_serves_its_metrics(shop):
    """On this machine alone, what became of changes by map, side and outcome; the log is JSON, and holds no secret."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(f'{settings.read_text()}metrics: {{listen: "127.0.0.1:0"}}\n')
    process = shop.start("run", "--log-format", "json", "--log-level", "info")
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        shop.until(lambda: any(line.startswith("metrics: ") for line in said))
        url = next(line for line in said if line.startswith("metrics: ")).removeprefix("metrics: ").strip()
        shop.until(lambda: scraped(url).get(("dualwrite_map_state", "customers", "running")) == 1)
        shop.sql(shop.left, "INSERT INTO customers VALUES ('C7', 'x', 1, 'open'), ('C8', ?, 1, 'open')", "y" * 30)
        shop.until(lambda: scraped(url).get(("dualwrite_parked_total", "too_long", "customers", "right")) == 1)
        found = scraped(url)
        assert found["dualwrite_up",] == 1
        assert found["dualwrite_changes_total", "customers", "applied", "right"] == 3  # two of them by the initial sync
        assert found["dualwrite_apply_seconds_count", "right"] > 0
        shop.until(lambda: scraped(url)["dualwrite_parked_records", "customers"] == 1)
        shop.until(lambda: scraped(url).get(("dualwrite_retained_bytes", "left")) is not None)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        reader.join()
    lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    process.stdout.close()
    process.stderr.close()
    synced = next(line for line in lines if line["message"] == "initial sync done; running")
    assert (synced["level"], synced["logger"], synced["map"]) == ("info", "dualwrite.activity", "customers")
    assert synced["created"] == {"left": 1, "right": 1}
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


@pytest.mark.parametrize("wrong", ["x", "1:2:x", "70000", ""])
def test_a_place_to_listen_at_that_is_none_is_refused(shop, wrong):
    """On the command line and in the settings, before anything runs."""
    refused = shop.call("run", "--metrics", wrong)
    assert (refused.code, "HOST:PORT" in refused.err) == (2, True)
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(f'{settings.read_text()}metrics:\n  listen: "{wrong}"\n')
    refused = shop.call("check")
    assert refused.code == 1
    assert "dualwrite.yaml:5" in refused.out
    assert "metrics.listen" in refused.out


def test_the_status_is_shown_again_and_again(shop):
    """Without a terminal, a line for what is new; Ctrl-C ends it with code 0."""
    process = shop.start("status", "--watch", "--every", "0.1")
    try:
        first = [process.stdout.readline() for _ in range(2)]
        assert "engine is running" in first[0]
        assert re.search(r"Z customers: not running parked=0 conflicts=0 queued=0 lag=0.0$", first[1])
        assert shop.call("run", "--until-idle").code == 0
        while "customers: running" not in (line := process.stdout.readline()):
            assert line
    finally:
        ended = shop.end(process, signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")


def test_the_status_as_json_is_an_object_on_each_line(shop):
    """With the fields that ``status --json`` has."""
    process = shop.start("status", "--watch", "--every", "0.1", "--json")
    try:
        found = [json.loads(process.stdout.readline()) for _ in range(2)]
    finally:
        shop.end(process, signal.SIGINT)
    assert all(set(each) == set(shop.call("status", "--json").json()) for each in found)
