"""``dualwrite init`` and ``dualwrite demo``: a project is made."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import Include, NoValues, finish
from dualwrite.connectors import connect
from dualwrite.connectors.base import Connector
from dualwrite.engine.samples import sampler
from dualwrite.mapping.propose import no_rows, propose
from dualwrite.model import Side
from dualwrite.project import create, link_name
from dualwrite.settings import expanded


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the new project.", metavar="DIR")],
    left: Annotated[str, typer.Option(help="URL of the left system.", metavar="URL")],
    right: Annotated[str, typer.Option(help="URL of the right system.", metavar="URL")],
    link: Annotated[str | None, typer.Option(help="Name of the link; the folder's by default.", metavar="NAME")] = None,
    left_schema: Annotated[str | None, typer.Option(help="Database schema of the left tables.", metavar="NAME")] = None,
    right_schema: Annotated[
        str | None, typer.Option(help="Database schema of the right tables.", metavar="NAME")
    ] = None,
    include: Include = None,
    no_values: NoValues = False,
) -> None:
    """Start a project.

    Looks at both systems and proposes a map for every pair of tables that match by name, type and values.
    """
    name = link or link_name(folder)
    where = {Side.LEFT: left_schema, Side.RIGHT: right_schema}
    with ExitStack() as stack:
        connectors: dict[Side, Connector] = {}
        for side, url in ((Side.LEFT, left), (Side.RIGHT, right)):
            connectors[side] = connect(expanded(url), link=name, side=side, schema=where[side])
            stack.callback(connectors[side].close)
        schemas = {side: connector.schema() for side, connector in connectors.items()}
        read = no_rows if no_values else sampler(connectors)
        proposal = propose(schemas[Side.LEFT], schemas[Side.RIGHT], include or (), read)
    empty = [side for side in Side if not schemas[side].tables]
    remarks = {each: [str(remark) for remark in found] for each, found in proposal.remarks.items()}
    printing.projects.created(create(folder, name, left, right, proposal.maps, where, remarks), proposal, empty)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to build it.")] = Path("demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave live sync running.")] = False,
    customers: Annotated[int, typer.Option(help="How many customers.", metavar="N")] = 5_000,
) -> None:
    """Show the main job on two new databases.

    Builds them, brings them together, edits both sides at once, and proves that they agree.
    """
    from dualwrite.demo.show import show

    finish(show(folder, keep=keep, customers=customers))
