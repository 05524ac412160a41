"""What ``init`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path as FilePath

from rich.markup import escape

from dualwrite.mapping.propose import LEVELS, Proposal
from dualwrite.model import Side, show_path
from dualwrite.printing import terminal
from dualwrite.printing.terminal import said, show, table
from dualwrite.project import Created


def created(made: Created, found: Proposal, empty: Sequence[Side]) -> None:
    """The result of ``init``; ``empty`` are the sides that have no tables."""
    for side in empty:
        said(f"the {side} database has no tables yet, or the URL leads to another one than you mean")
    proposal(found)
    for file in made.files:
        said(f"wrote {file}")
    for variable in made.variables:
        said(f"set {variable} in the environment: its URL holds a password, which no file keeps")
    folder = folder_of(made.files)
    there = "" if folder == FilePath() else f" -C {folder}"
    follows(found, there)


def follows(found: Proposal, there: str = "") -> None:
    """How many maps were proposed, and what to do next; ``there`` is the option that names another folder."""
    step = (
        f"look at them, then dualwrite check{there}"
        if found.maps
        else "name a pair of tables with --include twice, take a published map (dualwrite maps library), or write one"
    )
    said(f"{len(found.maps)} map(s) proposed; next: {step}")


def proposal(found: Proposal) -> None:
    """Which tables have no counterpart, how sure the columns of the proposed maps are, and what to look at in each."""
    for sentence in found.skipped:
        terminal.console.print(f"[dim]{escape(sentence)}[/dim]", soft_wrap=True)
    made = table("map", *(f"#{level}" for level in LEVELS))
    for one in found.maps:
        counts = Counter(remark.confidence for remark in found.remarks[one.name])
        made.add_row(escape(one.name), *(str(counts[level]) for level in LEVELS))
    show(made)
    for one in found.maps:
        for mapping, remark in zip(one.columns, found.remarks[one.name], strict=True):
            if remark.confidence != LEVELS[0]:
                ends = " – ".join(show_path(path) for path in (mapping.left, mapping.right) if path)
                said(f"  {one.name}: {ends} {remark}")


def folder_of(files: Sequence[FilePath]) -> FilePath:
    """The project folder of files just written."""
    return next(file.parent for file in files if file.name == "dualwrite.yaml")
