"""The journal of a link, the control store, and the lease under which one engine runs it."""

from __future__ import annotations

from dualwrite.journal.audit import Audited, Block, BlockWriter, Carrier, Images, Line, Retention
from dualwrite.journal.backlog import Backlogs, Delayed, Queued
from dualwrite.journal.entries import (
    KINDS,
    Boundaries,
    Conflict,
    Decision,
    Desired,
    Event,
    Initial,
    MapState,
    MapVersion,
    Notice,
    Parked,
    ParkedKey,
    Request,
    State,
    Tally,
    change_from,
    change_text,
)
from dualwrite.journal.layout import KeptChange, Layout
from dualwrite.journal.lease import Lease
from dualwrite.journal.store import Journal
from dualwrite.journal.syncs import Count, Progress, SyncRun
from dualwrite.journal.writer import Writer

__all__ = [
    "KINDS",
    "Audited",
    "Backlogs",
    "Block",
    "BlockWriter",
    "Boundaries",
    "Carrier",
    "Conflict",
    "Count",
    "Decision",
    "Delayed",
    "Desired",
    "Event",
    "Images",
    "Initial",
    "Journal",
    "KeptChange",
    "Layout",
    "Lease",
    "Line",
    "MapState",
    "MapVersion",
    "Notice",
    "Parked",
    "ParkedKey",
    "Progress",
    "Queued",
    "Request",
    "Retention",
    "State",
    "SyncRun",
    "Tally",
    "Writer",
    "change_from",
    "change_text",
]
