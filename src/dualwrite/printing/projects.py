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


def created(made: Created, proposal: Proposal, empty: Sequence[Side]) -> None:
    """The result of ``init``; ``empty`` are the sides that have no tables."""
    for side in empty:
        said(f"the {side} database has no tables yet, or the URL leads to another one than you mean")
    for sentence in proposal.skipped:
        terminal.console.print(f"[dim]{escape(sentence)}[/dim]", soft_wrap=True)
    proposed(proposal)
    for file in made.files:
        said(f"wrote {file}")
    for variable in made.variables:
        said(f"set {variable} in the environment: its URL holds a password, which no file keeps")
    folder = folder_of(made.files)
    there = "" if folder == FilePath() else f" -C {folder}"
    follows = (
        f"look at them, then dualwrite check{there}"
        if proposal.maps
        else "name a pair of tables with --include twice, take a published map (dualwrite maps library), or write one"
    )
    said(f"{len(proposal.maps)} map(s) proposed; next: {follows}")


def proposed(proposal: Proposal) -> None:
    """How sure the columns of the proposed maps are, and what to look at in each."""
    made = table("map", *(f"#{level}" for level in LEVELS))
    for one in proposal.maps:
        counts = Counter(remark.confidence for remark in proposal.remarks[one.name])
        made.add_row(escape(one.name), *(str(counts[level]) for level in LEVELS))
    show(made)
    for one in proposal.maps:
        for mapping, remark in zip(one.columns, proposal.remarks[one.name], strict=True):
            if remark.confidence != LEVELS[0]:
                ends = " – ".join(show_path(path) for path in (mapping.left, mapping.right) if path)
                said(f"  {one.name}: {ends} {remark}")


def folder_of(files: Sequence[FilePath]) -> FilePath:
    """The project folder of files just written."""
    return next(file.parent for file in files if file.name == "dualwrite.yaml")
