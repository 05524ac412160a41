"""What must not fill any disk: what the systems keep of their logs until the link has it, and the journal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.errors import DualwriteError, Problem
from dualwrite.journal.database import FOLDER
from dualwrite.model import Side

ROOM: Final = 32 << 20
"""Bytes that should be left on the journal's disk."""


def retained_by(connectors: Mapping[Side, Connector]) -> dict[Side, int]:
    """How many bytes of its log each system keeps for the link; those that do not answer are left out."""
    found: dict[Side, int] = {}
    for side, connector in connectors.items():
        with suppress(DualwriteError):  # told by whatever else it is asked
            found[side] = connector.retained()
    return found


def over_budget(retained: Mapping[Side, int], budget: int) -> list[Problem]:
    """A warning for each system that keeps more than it should."""
    remedy = "run dualwrite until it has caught up; or, if nobody needs the link any more, dualwrite uninstall"
    return [
        Problem(
            "retained",
            f"{side}: it keeps {size(kept)} of its log for this link, and limits.retained is {size(budget)}",
            remedy,
            "warning",
            side=str(side),
        )
        for side, kept in retained.items()
        if kept > budget
    ]


def short_of_room(folder: Path) -> list[Problem]:
    """A warning where the disk of a project's journal is full, or nearly: the engine could not note that it waits."""
    place = folder / FOLDER
    left = shutil.disk_usage(place if place.exists() else folder).free
    if left >= ROOM:
        return []
    told = f"the disk of the journal ({place}) has {size(left)} left: without room for it nothing is carried"
    return [Problem("room", told, "free some space on that disk: the engine goes on by itself then", "warning")]


def size(count: int) -> str:
    """A number of bytes for people, as PostgreSQL writes it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 10_240:
            return f"{count} {unit}"
        count = (count + 512) >> 10
    return f"{count} TB"
