"""URLs of environments: which secrets they hold, and which file a relative ``sqlite:///`` URL means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_USERINFO = re.compile(r"^[^:/]+://[^:/@?#]*:(?P<secret>.*)@", re.DOTALL)
_PORT = re.compile(r"\d+(/.*)?", re.DOTALL)
_PARAMETER = re.compile(  # of a URL, or of a list like "host=… password=…"
    r"(?:^|[?&;\s])(?P<name>[^=&;\s]*(?:password|passwd|pwd|secret|token|key)[^=&;\s]*)\s*=(?P<secret>[^&;]+)",
    re.IGNORECASE,
)
_SURELY_SECRET = re.compile(r"password|passwd|pwd|secret", re.IGNORECASE)
_SQLITE = "sqlite:///"


def mask(url: str) -> str:
    """The URL with passwords and the like replaced by ``***``; in doubt it hides too much."""
    found = _USERINFO.search(url)
    if found:
        url = f"{url[: found.start('secret')]}***{url[found.end('secret') :]}"
    return _PARAMETER.sub(lambda parameter: parameter[0][: -len(parameter["secret"])] + "***", url)


def holds_secret(url: str) -> bool:
    """Does the URL, as written, hold a secret itself rather than a ``${VARIABLE}``?"""
    return any(secret and "${" not in secret for secret in secrets_in(url))


def secrets_in(url: str) -> list[str]:
    """The secrets that a URL holds, as they stand there and as they are meant."""
    found = _USERINFO.search(url)
    secrets = [found["secret"]] if found and not _PORT.fullmatch(found["secret"]) else []
    secrets += [each["secret"] for each in _PARAMETER.finditer(url) if _SURELY_SECRET.search(each["name"])]
    return list(dict.fromkeys(spelling for secret in secrets for spelling in (secret, unquote(secret))))


def located(url: str, *folders: Path) -> str:
    """The URL with a relative SQLite path made absolute: in the first folder that holds the file, else in the first.

    Other URLs come back unchanged.
    """
    path, mark, options = url.removeprefix(_SQLITE).partition("?")
    if not url.startswith(_SQLITE) or path in ("", ":memory:") or Path(path).is_absolute():
        return url
    # os.path swallows what no file can be called; the connector says so when it opens the database
    places = [os.path.realpath(folder / path) for folder in folders]
    place = next((place for place in places if os.path.exists(place)), places[0])
    return f"{_SQLITE}{Path(place).as_posix()}{mark}{options}"


def relative_to(url: str, folder: Path) -> str:
    """The URL with an absolute SQLite path inside the folder made relative to it, the inverse of ``located``."""
    path, mark, options = url.removeprefix(_SQLITE).partition("?")
    if not url.startswith(_SQLITE) or not Path(path).is_relative_to(folder.resolve()):
        return url
    return f"{_SQLITE}{Path(path).relative_to(folder.resolve()).as_posix()}{mark}{options}"
