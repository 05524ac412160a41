"""Maps for tables of a project that are in none yet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

from dualwrite.engine.samples import sampler
from dualwrite.engine.workspace import connector_of
from dualwrite.mapping.d365_columns import distinct_name
from dualwrite.mapping.paths import PathError, find_table
from dualwrite.mapping.propose import Proposal, no_rows, propose
from dualwrite.model import Side
from dualwrite.project import Project
from dualwrite.schema import Schema


def proposed(project: Project, include: Sequence[str], *, values: bool) -> Proposal:
    """A map for each pair of tables that match and are in no map; ``include`` are patterns of their names.

    With ``values``, records of theirs are looked at.  Raises what the systems say.  Writes nothing.
    """
    with ExitStack() as stack:
        connectors = {side: stack.enter_context(closing(connector_of(project, side))) for side in Side}
        schemas = {side: connector.schema() for side, connector in connectors.items()}
        taken = {side: _taken(project, side, schemas[side]) for side in Side}
        read = sampler(connectors) if values else no_rows
        found = propose(schemas[Side.LEFT], schemas[Side.RIGHT], include, read, taken)
    names = {each.name.casefold() for each in project.maps}  # of a map on other tables
    return replace(found, maps=tuple(each for each in found.maps if each.name.casefold() not in names))


def _taken(project: Project, side: Side, schema: Schema) -> set[str]:
    """The tables of a side that are in a map, as the schema spells them."""
    taken = set()
    for each in project.maps:
        with suppress(PathError):  # one that is not there: `check` tells
            taken.add(find_table(schema, each.table(side), distinct_name(each, side)).name)
    return taken
