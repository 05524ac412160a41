"""What an error of the database says about the row that was to be written."""

from __future__ import annotations

from typing import Final

import psycopg

from dualwrite.connectors._pg_session import Database
from dualwrite.errors import Denied
from dualwrite.model import Rejected

_CODES: Final = {
    "23505": "unique",
    "23P01": "unique",
    "23503": "reference",
    "23001": "reference",
    "23502": "required",
    "428C9": "readonly",
    "23000": "other",
}
_CLASSES: Final = {
    "22": "value",
    "23": "value",
    "44": "value",
    "54": "value",
    "P0": "other",
    "09": "other",
    "21": "other",
    "27": "other",
    "38": "other",
    "39": "other",
}


def refusal(exc: psycopg.Error, database: Database) -> Rejected | None:
    """What an error says about a row; None when it is not about the row."""
    code = exc.sqlstate or ""
    words = exc.diag.message_primary or str(exc)
    ours = _CODES.get(code) or _CLASSES.get(code[:2])
    if ours is None and exc.diag.context and isinstance(database.translated(exc), Denied):
        ours = "other"  # raised inside a function of the application
    return None if ours is None else Rejected(ours, words)
