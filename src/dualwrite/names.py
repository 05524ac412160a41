"""Names as people write them: found exactly or by their letters, and guessed when they are wrong."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches


def match(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant: the same one, else the only one that differs in letter case alone."""
    candidates = list(known)
    if name in candidates:
        return name
    folded = [candidate for candidate in candidates if candidate.casefold() == name.casefold()]
    return folded[0] if len(folded) == 1 else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, None when nothing comes close."""
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(candidate.casefold(), candidate)
    found = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def guess(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, else all of them when they are few."""
    candidates = list(known)
    near = nearest(name, candidates)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"known are: {', '.join(candidates)}" if 0 < len(candidates) <= 20 else ""


def slug(text: str) -> str:
    """A name for a file, made of a text; empty where nothing of it is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:60].strip("-")
