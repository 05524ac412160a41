"""What ``alerts list`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape

from dualwrite.errors import Problem
from dualwrite.printing.problems import problems_json, told
from dualwrite.printing.terminal import said, show, stamp, table, when
from dualwrite.settings import RuleSettings

Rules = Sequence[tuple[RuleSettings, float]]
"""Rules, and when each fired last (0: never)."""


def alerts_json(found: Rules, waiting: Iterable[Problem]) -> Mapping[str, object]:
    """All rules, and what could not be sent yet."""
    return {"rules": [rule_json(rule, fired) for rule, fired in found], **problems_json(waiting)}


def rule_json(rule: RuleSettings, fired: float) -> Mapping[str, object]:
    """One rule."""
    return {
        "name": rule.name,
        "errors": rule.errors,
        "count": rule.count,
        "interval_seconds": rule.interval,
        "maps": rule.maps,
        "actions": rule.actions,
        "to": rule.to,
        "fired": stamp(fired),
    }


def rules(found: Rules, waiting: Sequence[Problem]) -> None:
    """All rules, and what could not be sent yet."""
    made = table("rule", "errors", "#count", "#within s", "maps", "actions", "fired")
    for rule, fired in found:
        maps = ", ".join(rule.maps) if rule.maps else "all"
        plain = (
            rule.name,
            ", ".join(rule.errors),
            str(rule.count),
            f"{rule.interval:g}",
            maps,
            ", ".join(rule.actions),
        )
        made.add_row(*map(escape, plain), when(fired))
    show(made)
    if not found:
        said("no rules: see alerts: in docs/configuration.md")
    told(waiting)
