"""What the program logs, on the error stream: lines for people, or a JSON object on each for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum

HIDDEN = "***"
"""What stands in place of a secret."""


class Format(str, Enum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"

    def __str__(self) -> str:
        return self.value


class Level(str, Enum):
    """From which importance on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


class _Lines(logging.Formatter):
    """A line for people, or as JSON; secrets that are known never appear in it.

    What a line is about comes as ``fields`` of a record (``extra={"fields": {…}}``).
    """

    def __init__(self, form: Format, secrets: Iterable[str]) -> None:
        super().__init__()
        self._json = form is Format.JSON
        spelled = {spelling for secret in secrets if secret for spelling in (secret, json.dumps(secret)[1:-1])}
        self._secrets = sorted(spelled, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        about: Mapping[str, object] = getattr(record, "fields", {})
        traced = self.formatException(record.exc_info) if record.exc_info else ""
        line = (self._object if self._json else self._line)(record, at, about, traced)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return line

    def _object(self, record: logging.LogRecord, at: str, about: Mapping[str, object], traced: str) -> str:
        said = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        more = {name: value for name, value in about.items() if name not in said}
        return json.dumps(said | more | ({"trace": traced} if traced else {}), ensure_ascii=False, default=str)

    def _line(self, record: logging.LogRecord, at: str, about: Mapping[str, object], traced: str) -> str:
        told = "".join(f" {name}={_text(value)}" for name, value in about.items() if value not in ("", None))
        return f"{at} {record.levelname} {record.name} {record.getMessage()}{told}" + (f"\n{traced}" if traced else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def log_lines(form: Format = Format.TEXT, level: Level = Level.WARNING, secrets: Iterable[str] = ()) -> None:
    """From now on log so, instead of as before."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(form, secrets))
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of is raised as well, and told once
