"""Patterns of texts: ``*`` stands for any characters, ``?`` for one; behind a backslash, signs stand for themselves.

Every language that a filter is written or run in has a spelling of its own for them; all are made here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

ANY: Final = "*"
ONE: Final = "?"
LONGEST: Final = 1000
"""So many characters a pattern may have: databases have limits of their own, and nobody writes as many."""

Pieces = tuple[tuple[bool, str], ...]
"""A pattern in order: wildcards (True, with its sign) and runs of plain text (False)."""


def pieces_of(pattern: str) -> Pieces:
    """The pattern taken apart; several ``*`` in a row are one."""
    found: list[tuple[bool, str]] = []
    for escaped, sign in re.findall(r"\\(.)|(.|\\$)", pattern, re.DOTALL):
        wild = sign in (ANY, ONE) and not escaped
        if wild and sign == ANY and found and found[-1] == (True, ANY):
            continue
        if not wild and found and not found[-1][0]:
            found[-1] = (False, found[-1][1] + (escaped or sign))
        else:
            found.append((wild, escaped or sign))
    return tuple(found)


def pattern_of(pieces: Iterable[tuple[bool, str]]) -> str:
    """The inverse of ``pieces_of``."""
    return "".join(text if wild else re.sub(r"[*?\\]", r"\\\g<0>", text) for wild, text in pieces)


def translated(pattern: str, plain: Callable[[str], str], any_: str, one: str) -> str:
    """The pattern in another spelling."""
    signs = {ANY: any_, ONE: one}
    return "".join(signs[text] if wild else plain(text) for wild, text in pieces_of(pattern))


def glob(pattern: str) -> str:
    """As SQLite's GLOB wants it."""
    return translated(pattern, lambda text: re.sub(r"[*?[]", r"[\g<0>]", text), "*", "?")


def like(pattern: str) -> str:
    """As SQL's LIKE wants it, with a backslash for its escapes."""
    return translated(pattern, lambda text: re.sub(r"[%_\\]", r"\\\g<0>", text), "%", "_")


def matcher(pattern: str) -> Callable[[str], bool]:
    """The pattern as a function; it never goes back over what a ``*`` has passed, so its time is bounded."""
    runs: list[str] = [""]
    for wild, text in pieces_of(pattern):
        if wild and text == ANY:
            runs.append("")
        else:
            runs[-1] += "." if wild else re.escape(text)
    first, *inner = runs
    if not inner:
        expression = first
    else:
        *inner, last = inner
        expression = first + "".join(f"(?>.*?{run})" for run in inner) + ".*" + last
    found = re.compile(expression, re.DOTALL).fullmatch
    return lambda text: found(text) is not None


_MEANT = re.compile(r"[*+?()\[\]{}|^$]|\\\w|\\")
"""What says more in a regular expression than a pattern can."""


def regex(pattern: str) -> str:
    """As OData's ``matchesPattern`` wants it: anchored, with ``.`` and ``.*``."""
    inner = translated(pattern, lambda text: re.sub(r"[^\w\s]", r"\\\g<0>", text), ".*", ".")
    return f"^{inner}$"


def from_regex(text: str) -> str | None:
    """The pattern that a regular expression spells; None for one that says more than ``^``, ``$``, ``.`` and ``.*``."""
    tokens = re.findall(r"\.\*|\\?.", text, re.DOTALL)
    first, last = tokens[:1] == ["^"], len(tokens) > 1 and tokens[-1] == "$"
    inner = tokens[first : len(tokens) - last]
    if any(map(_MEANT.fullmatch, inner)):
        return None
    wild = {".*": ANY, ".": ONE}
    pieces = [(token in wild, wild.get(token, token[-1])) for token in inner]
    open_ = (True, ANY)
    return pattern_of([*([] if first else [open_]), *pieces, *([] if last else [open_])])
