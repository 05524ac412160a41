"""What the systems of a link looked like when an engine took it up last: for while one of them does not answer.

Whatever is made of it is made anew, from what the system says itself, before anything is carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import TypeAdapter, ValidationError

from dualwrite.journal import Journal
from dualwrite.model import Side
from dualwrite.schema import Schema

_TEXT: Final = TypeAdapter(Schema)


def remember(journal: Journal, schemas: Mapping[Side, Schema]) -> None:
    """Note what the systems look like; writes only what is new."""
    for side, schema in schemas.items():
        text = _TEXT.dump_json(schema).decode()
        if journal.get(_name(side)) != text:
            journal.put(_name(side), text)


def remembered(journal: Journal, side: Side) -> Schema | None:
    """What a system looked like; None where no engine has noted it, or another program did in other words."""
    text = journal.get(_name(side))
    try:
        return None if text is None else _TEXT.validate_json(text)
    except ValidationError:
        return None


def _name(side: Side) -> str:
    return f"schema.{side}"
