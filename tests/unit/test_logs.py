"""Log lines: what they are about, and what never stands in them."""

from __future__ import annotations

import json
import logging

from dualwrite.cli.logs import Format, _Lines
from dualwrite.urls import secrets_in


def line(form: Format, message: str, fields: dict[str, object], secrets=(), error=None) -> str:
    """What is logged."""
    record = logging.LogRecord("dualwrite.engine", logging.WARNING, "", 0, message, (), error)
    record.created, record.fields = 0.0, fields
    return _Lines(form, secrets).format(record)


def test_a_line_for_people():
    """The time in UTC, and the fields behind the message, but for empty ones."""
    said = line(Format.TEXT, "unavailable", {"retry_in": 0.2, "map": "", "detail": {"a": 1}})
    assert said == '1970-01-01T00:00:00.000Z WARNING dualwrite.engine unavailable retry_in=0.2 detail={"a": 1}'


def test_a_line_for_programs():
    """One JSON object, the fields beside the message; none of them takes its place."""
    said = json.loads(line(Format.JSON, "stopped", {"map": "Größe", "time": "x", "detail": {"a": 1}}))
    about = {"map": "Größe", "detail": {"a": 1}}
    start = {"time": "1970-01-01T00:00:00.000Z", "level": "warning", "logger": "dualwrite.engine", "message": "stopped"}
    assert said == start | about


def test_secrets_are_hidden():
    """However a password is spelled: in the URL, as it is meant, and as JSON spells it; in messages, fields, traces."""
    secrets = secrets_in("postgresql://me:p%40s%22s@host/db")
    try:
        raise ValueError('p@s"s')
    except ValueError as wrong:
        error = (type(wrong), wrong, wrong.__traceback__)
        for form in Format:
            said = line(form, 'wrong: p@s"s', {"url": "//me:p%40s%22s@host", "list": ['p@s"s']}, secrets, error)
            assert "p%40" not in said
            assert "p@s" not in said
            assert "ValueError" in said
