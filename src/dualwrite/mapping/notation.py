"""The notation of map files, read: YAML to a ``TableMap``; ``writing`` is the way back.

Reading never stops at the first mistake: ``Invalid`` carries them all, each with its line and a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from dualwrite.document import (
    Entries,
    Findings,
    Node,
    Text,
    Verbatim,
    entries,
    flag,
    flow,
    list_of,
    one_of,
    plain,
    read,
    swallowed,
    text_of,
)
from dualwrite.errors import Invalid
from dualwrite.expression import FilterError
from dualwrite.mapping import xpp
from dualwrite.mapping.languages import LANGUAGES, Filter, read_filter, read_odata
from dualwrite.mapping.lines import columns_of, own_words, path_of, policy_of, split_line
from dualwrite.mapping.tablemap import (
    ROW_POLICIES,
    Company,
    TableMap,
    Unread,
)
from dualwrite.model import Path, Side

ON_LEAVE: Final = ("detach", "delete")
_HEAD = ("map", "version", "publisher", "left", "right", "company", "key", "filter", "columns")
_ENTRIES = (*_HEAD, "conflict", "rows", "deletes", "on_leave")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){3}", re.ASCII)

_Read = TypeVar("_Read")


def read_map(text: str, file: str) -> TableMap:
    """The map in a file's text; raises Invalid with everything that is wrong."""
    findings = Findings(file)
    node = read(text, findings)
    if isinstance(node, Entries):
        table_map = _table_map(node, findings)
        findings.raise_if_any()
        return table_map
    if not findings.problems:
        line = node.line if node else 1
        findings.add("bad_entry", line, "this is not a map", "a map file starts with map:, left:, right: and columns:")
    raise Invalid(findings.sorted())


def _table_map(node: Entries, findings: Findings) -> TableMap:
    extra = own_words(node)
    top = entries(node, "a map", (*_ENTRIES, *extra), findings)
    if "map" in top and isinstance(top["map"][1], Text):
        findings.map = top["map"][1].value or ""
    for name in _HEAD:
        if name in top and name != "version":
            swallowed(top[name][1], findings)

    def get(name: str, read_entry: Callable[[Node, str, Findings], _Read | None], default: _Read) -> _Read:
        value = read_entry(top[name][1], name, findings) if name in top else None
        return default if value is None else value

    for name in ("map", "left", "right", "columns"):
        if name not in top:
            findings.add("missing_key", node.line, f"a map needs {name}:", f"add a line {name}: …")
    filters: dict[Side, Filter] = get("filter", _filters, {})
    return TableMap(
        name=get("map", text_of, ""),
        left=get("left", text_of, ""),
        right=get("right", text_of, ""),
        columns=get("columns", columns_of, ()),
        version=get("version", _version, "1.0.0.0"),
        publisher=get("publisher", _publisher, ""),
        company=get("company", _company, None),
        key=get("key", _key, None),
        filters={side: found for side, found in filters.items() if not isinstance(found, Unread)},
        unread={side: found for side, found in filters.items() if isinstance(found, Unread)},
        conflict=get("conflict", policy_of, None),
        rows=get("rows", _rows, "keep"),
        deletes=get("deletes", flag, True),
        on_leave=get("on_leave", _on_leave, "detach"),
        extra={name: plain(top[name][1], findings) for name in extra if name in top},
        file=findings.file,
        lines={name: key.line for name, (key, _) in top.items()},
    )


def _version(node: Node, what: str, findings: Findings) -> str | None:
    version = text_of(node, what, findings)
    if version is not None and not _VERSION.fullmatch(version):
        findings.add("bad_entry", node.line, f"version {version!r} is not four numbers", "write it like 1.0.0.0")
        return None
    return version


def _publisher(node: Node, what: str, findings: Findings) -> str | None:
    return "" if isinstance(node, Text) and not node.value else text_of(node, what, findings)


def _rows(node: Node, what: str, findings: Findings) -> str | None:
    return one_of(node, what, ROW_POLICIES, findings)


def _on_leave(node: Node, what: str, findings: Findings) -> str | None:
    return one_of(node, what, ON_LEAVE, findings)


def _key(node: Node, what: str, findings: Findings) -> tuple[Path, ...] | None:
    return list_of(node, what, path_of, findings) or None


def _company(node: Node, what: str, findings: Findings) -> Company | None:
    if isinstance(node, Entries):
        found = entries(node, what, ("left", "right"), findings)
        left, right = (
            path_of(found[end][1], f"{what} {end}", findings) if end in found else None for end in ("left", "right")
        )
        if len(found) < 2:
            findings.add("bad_line", node.line, "company needs left and right", "write company: LEFT = right")
        return Company(left, right, node.line) if left and right else None
    text = text_of(node, what, findings)
    line = split_line(Text(text, node.line), findings) if text is not None else None
    if line is None:
        return None
    left, symbol, right = line
    if symbol != "=" or not left or not right:
        remedy = "write company: LEFT = right"
        findings.add("bad_line", node.line, "the company is the same column on both sides, carried both ways", remedy)
        return None
    return Company(left, right, node.line)


def _filters(node: Node, what: str, findings: Findings) -> dict[Side, Filter] | None:
    filters: dict[Side, Filter] = {}
    for name, (_, value) in entries(node, what, ("left", "right"), findings).items():
        expression = _filter(value, f"filter {name}", findings)
        if expression is not None:
            filters[Side(name)] = expression
    return filters


def _filter(node: Node, what: str, findings: Findings) -> Filter | None:
    if isinstance(node, Entries):
        return _kept_filter(node, what, findings)
    text = text_of(node, what, findings)
    if text is None:
        return None
    try:
        return read_odata(text)
    except FilterError as error:
        findings.add("bad_filter", node.line, f"{what}: {error}", _filter_remedy(text))
        return None


def _filter_remedy(text: str) -> str:
    try:
        xpp.parse(text)
    except FilterError:
        return "a filter looks like: COUNTRY eq 'DE' and STATE ne null"
    return f"this is X++, so say so: {flow({'xpp': Verbatim(text)})}"


def _kept_filter(node: Entries, what: str, findings: Findings) -> Filter | None:
    """A filter that names its language: one that cannot be read is kept as it stands."""
    found = entries(node, what, LANGUAGES, findings)
    if len(node.pairs) != 1:
        findings.add("bad_filter", node.line, f"{what} must be one filter", "write it in OData, or as {xpp: '…'}")
    if len(node.pairs) != 1 or not found:
        return None
    language, (_, value) = next(iter(found.items()))
    text = text_of(value, what, findings)
    return read_filter(language, text) if text is not None else None
