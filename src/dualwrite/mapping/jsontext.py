"""JSON that others write, read strictly; and its values spelled as the text that map files hold.

``encode`` and ``decode`` are inverses: map files know texts, lists, mappings and null, so numbers, ``true`` and
``false`` stand there as JSON spells them, and a text that looks like one of these stands in JSON's quotes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import chain
from typing import Any, Final, TypeAlias

from dualwrite.errors import Invalid, Problem

Json: TypeAlias = Any
"""What JSON can be: a dict, a list, a text, a number, a bool or None."""
DEEPEST: Final = 30  # levels of nesting; a map needs eight
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class Missing(Enum):
    """Stands for a field that is not there."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
_WORDS: Final[Mapping[str, object]] = {"true": True, "false": False, "missing": MISSING}


def read_json(text: str, file: str) -> Json:
    """The value in a text; raises Invalid with file, line and remedy where it is none, or holds what cannot be kept."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        _check(value, escapes="\\u" in text)
    except json.JSONDecodeError as error:
        remedy = "export it anew, as it comes from the system; an editor may have cut or changed it"
        said = f"this is not JSON: {error.msg}, in column {error.colno}"
        raise Invalid([Problem("json", said, remedy, file=file, line=error.lineno)]) from None
    except RecursionError:
        raise _refused(file, f"it is nested deeper than {DEEPEST} levels") from None
    except _Unfit as error:
        raise _refused(file, str(error)) from None
    except ValueError:  # a whole number of more digits than Python reads
        raise _refused(file, "a number has too many digits") from None
    return value


class _Unfit(Exception):
    """JSON that cannot be kept."""


def _refused(file: str, message: str) -> Invalid:
    return Invalid([Problem("json", message, "correct it in the file, or export it anew", file=file)])


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unfit(f"{twice!r} stands twice in one object, so it is not clear which one counts")
    return found


def _no_constant(word: str) -> Json:
    raise _Unfit(f"{word} is not a number that JSON knows")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _Unfit(f"the number {text[:40]} is too large")
    return number


def _check(value: Json, *, escapes: bool) -> None:
    """Refuse what a map file cannot hold, level by level, as a text may nest however deep it likes.

    Only where a text has ``escapes`` can its values hold what no system stores.
    """
    level: list[Json] = [[value]]
    for _ in range(DEEPEST + 1):
        below: list[Json] = []
        for here in level:
            items = chain(here, here.values()) if isinstance(here, dict) else here
            for each in items:
                if isinstance(each, dict | list):
                    below.append(each)
                elif escapes and isinstance(each, str) and _UNSTORABLE.search(each):
                    raise _Unfit(f"the text {each[:40]!r} holds a character that no system can store")
        if not below:
            return
        level = below
    raise _Unfit(f"it is nested deeper than {DEEPEST} levels")


# ------------------------------------------------------------------------------------------------------ as text


def encode(value: Json | Missing) -> Json:
    """A value in texts, lists, mappings and null."""
    if isinstance(value, dict):
        return {name: encode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [encode(inner) for inner in value]
    if isinstance(value, str):
        looks_like_more = value in _WORDS or value.startswith('"') or _NUMBER.fullmatch(value)
        return json.dumps(value, ensure_ascii=False) if looks_like_more else value
    if value is None:
        return None
    return MISSING.value if value is MISSING else json.dumps(value)


def decode(text: Json) -> Json | Missing:
    """What ``encode`` has spelled; a text that a person wrote counts as it reads."""
    if isinstance(text, dict):
        return {name: decode(inner) for name, inner in text.items()}
    if isinstance(text, list):
        return [decode(inner) for inner in text]
    if not isinstance(text, str):
        return None
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith('"') or _NUMBER.fullmatch(text):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# ------------------------------------------------------------------------------------- what differs from the usual


def difference(original: Mapping[str, Json], usual: Mapping[str, Json]) -> dict[str, Json | Missing]:
    """What must be laid over the usual fields to get the original ones."""
    found = {name: value for name, value in original.items() if name not in usual or not same(usual[name], value)}
    return found | {name: MISSING for name in usual if name not in original}


def same(one: Json, other: Json) -> bool:
    """The same JSON?  ``1`` and ``true`` are equal for Python, and ``1`` and ``1.0`` are, too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and (one != 0 or str(one) == str(other))


def laid_over(
    usual: Mapping[str, Json], kept: Mapping[str, Json | Missing], meanings: Mapping[str, Callable[[Json], object]]
) -> dict[str, Json]:
    """The usual fields with what was kept laid over them.

    A field that has a meaning for us is taken from what was kept only while it still means the same.
    """
    fields = dict(usual)
    for name, value in kept.items():
        meaning = meanings.get(name)
        if meaning is not None and meaning(value) != meaning(usual.get(name, MISSING)):
            continue
        if value is MISSING:
            fields.pop(name, None)
        else:
            fields[name] = value
    return fields
