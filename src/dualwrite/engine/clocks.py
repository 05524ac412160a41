"""How far the clocks of the two systems are apart: the policy ``newest`` compares the times that they tell."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.errors import DualwriteError, Problem
from dualwrite.model import Side

APART: Final = 5.0
"""Seconds between the two clocks above which somebody is told."""


def shown(at: float) -> str:
    """A time, in seconds since the epoch, for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def difference(connectors: Mapping[Side, Connector]) -> float | None:
    """How far the right clock is ahead of the left one, in seconds; None where one of the systems does not answer."""
    with suppress(DualwriteError):  # told by whatever else it is asked
        before = connectors[Side.LEFT].clock()
        right = connectors[Side.RIGHT].clock()
        return right - (before + connectors[Side.LEFT].clock()) / 2
    return None


def apart(seconds: float | None) -> list[Problem]:
    """A warning where the clocks tell different times."""
    if seconds is None or abs(seconds) <= APART:
        return []
    ahead = Side.RIGHT if seconds > 0 else Side.LEFT
    message = f"{ahead}: its clock is {abs(seconds):.0f} seconds ahead of the {ahead.other} one"
    remedy = (
        "let both machines get their time by NTP; until then the difference is measured when an engine starts, and "
        "`newest` reckons with it"
    )
    return [Problem("clocks_apart", message, remedy, "warning", side=str(ahead))]
