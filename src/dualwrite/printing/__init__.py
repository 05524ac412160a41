"""What the command line prints, a module for each kind of thing: tables for people (Rich), JSON for programs.

The fields of the JSON are documented in ``docs/commands.md`` and stable.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualwrite.printing import alerts as alerts
    from dualwrite.printing import audits as audits
    from dualwrite.printing import conflicts as conflicts
    from dualwrite.printing import drift as drift
    from dualwrite.printing import environments as environments
    from dualwrite.printing import events as events
    from dualwrite.printing import explaining as explaining
    from dualwrite.printing import live as live
    from dualwrite.printing import maps as maps
    from dualwrite.printing import parking as parking
    from dualwrite.printing import pausing as pausing
    from dualwrite.printing import plans as plans
    from dualwrite.printing import problems as problems
    from dualwrite.printing import progress as progress
    from dualwrite.printing import projects as projects
    from dualwrite.printing import reports as reports
    from dualwrite.printing import states as states
    from dualwrite.printing import syncs as syncs
    from dualwrite.printing import terminal as terminal
    from dualwrite.printing.terminal import error as error
    from dualwrite.printing.terminal import json_out as json_out
    from dualwrite.printing.terminal import misused as misused
    from dualwrite.printing.terminal import note as note
    from dualwrite.printing.terminal import said as said
    from dualwrite.printing.terminal import verbatim as verbatim

_WORDS = ("error", "json_out", "misused", "note", "said", "verbatim")
"""What every command prints with, of ``terminal``."""


def __getattr__(name: str) -> object:
    """One of the modules, loaded when something of its kind is printed."""
    if name in _WORDS:
        return getattr(import_module(f"{__name__}.terminal"), name)
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as missing:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from missing
