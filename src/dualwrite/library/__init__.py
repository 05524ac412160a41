"""The published table maps, ready to use: files in the notation of maps, written by ``python -m dualwrite.library``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import TableMap


@cache
def texts() -> Mapping[str, str]:
    """The text of every map, by the name of its file."""
    folder = files("dualwrite.library") / "maps"
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(found.items()))


@cache
def maps() -> tuple[TableMap, ...]:
    """All maps, by the names of their files."""
    return tuple(read_map(text, name) for name, text in texts().items())
