"""What the systems keep of their logs for the link, as long as it has not taken it in: it must not fill their disks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from dualwrite.connectors.base import Connector
from dualwrite.errors import DualwriteError, Problem
from dualwrite.model import Side


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


def size(count: int) -> str:
    """A number of bytes for people, as PostgreSQL writes it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 10_240:
            return f"{count} {unit}"
        count = (count + 512) >> 10
    return f"{count} TB"
