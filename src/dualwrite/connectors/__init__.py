"""The systems that can be linked: each connector is found by the scheme of its url."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import cast

from dualwrite.connectors.base import Connector
from dualwrite.connectors.polymorphic import Polymorphic
from dualwrite.declared import Declared
from dualwrite.errors import Usage
from dualwrite.model import Side
from dualwrite.urls import mask

GROUP = "dualwrite.connectors"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:.*", re.IGNORECASE | re.DOTALL)


def connect(
    url: str, *, link: str, side: Side, declared: Declared | None = None, schema: str | None = None
) -> Connector:
    """The connector for a url; raises Usage naming the known schemes when there is none for it.

    ``schema`` is the database schema that holds the tables, where the environment names one; a connector whose systems
    have none refuses it.  A scheme like ``postgresql+ssl`` is looked up by what stands before the plus.
    """
    scheme = url.partition(":")[0].partition("+")[0].lower()
    known = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in known:
        shown = ", ".join(f"{name}:" for name in sorted(known)) or "none"
        what = scheme if _SCHEME.fullmatch(url) else mask(url)
        raise Usage(
            f"{side} side: no connector for {what!r} (known: {shown})",
            "correct the url in dualwrite.yaml, or install the package that brings this connector",
        )
    point = known[scheme]
    try:
        make = point.load()
    except ImportError as missing:  # what it needs comes with an extra of the connector's name
        is_absent = isinstance(missing, ModuleNotFoundError)
        why = (
            f"needs the package {missing.name}, which is not installed" if is_absent else f"cannot be loaded: {missing}"
        )
        raise Usage(
            f"{side} side: the connector for {scheme} {why}",
            f"pip install 'dualwrite[{point.module.rpartition('.')[2]}]'",
        ) from missing
    connector = cast(Connector, make(url, link=link, side=side, declared=declared, schema=schema))
    several = declared is not None and any(table.polymorphic for table in declared.tables.values())
    return Polymorphic(connector) if several else connector
