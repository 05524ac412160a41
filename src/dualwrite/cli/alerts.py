"""The commands about rules of alerts: ``dualwrite alerts …``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.maps import kept, readable
from dualwrite.cli.session import HERE, Folder, Json, finish
from dualwrite.engine.alerts import fired_at, trial
from dualwrite.engine.courier import send, undelivered
from dualwrite.errors import DualwriteError, Usage
from dualwrite.names import guess
from dualwrite.settings import MESSAGES

alerts_app = typer.Typer(help="Rules that tell somebody, or pause or stop maps.", no_args_is_help=True)


@alerts_app.command("list")
def alerts_list(folder: Folder = HERE, as_json: Json = False) -> None:
    """List the rules of alerts.

    With the time when each fired last, and what could not be sent yet.
    """
    project = readable(folder)
    with kept(project) as journal:
        rules = [(rule, fired_at(journal, rule) if journal else 0.0) for rule in project.alerts.rules]
        waiting = undelivered(journal) if journal else []
    if as_json:
        printing.json_out(printing.alerts.alerts_json(rules, waiting))
    else:
        printing.alerts.rules(rules, waiting)


@alerts_app.command("test")
def alerts_test(
    name: Annotated[str, typer.Argument(help="Name of a rule.", metavar="RULE")], folder: Folder = HERE
) -> None:
    """Send a test message of a rule.

    By each of its ways to send one; no map is paused or stopped.
    """
    project = readable(folder)
    rules = {rule.name.casefold(): rule for rule in project.alerts.rules}
    rule = rules.get(name.casefold())
    if rule is None:
        hint = guess(name, [each.name for each in rules.values()]) or "see dualwrite alerts list"
        raise Usage(f"no rule is called {name!r}", hint)
    ways = [action for action in rule.actions if action in MESSAGES]
    if not ways:
        raise Usage(f"the rule {rule.name!r} sends nothing", "add mail or webhook to its actions:")
    message, failed = json.loads(trial(project.link, rule)), False
    for way in ways:
        try:
            remark = send(project.alerts, way, message)
        except DualwriteError as trouble:
            printing.error(trouble)
            failed = True
        else:
            printing.said(f"sent by {way}" + (f": {remark}" if remark else ""))
    finish(not failed)
