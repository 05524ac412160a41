"""One engine owns a link at a time.

The lease is a lock of the operating system on a file, so a process that ends, however it ends, has released it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dualwrite.errors import Denied
from dualwrite.journal.database import FOLDER

FILE: Final = "engine.lock"


class Lease:
    """The right to run the engine of the link in that project folder; for one thread."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / FOLDER / FILE
        self._held: int | None = None

    def acquire(self) -> bool:
        """Take the lease, and hold it until it is released or this process ends; False when another engine has it."""
        if self._held is not None:
            return True
        with self._explained(), self._alone():
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _lock(file, fcntl.LOCK_EX):
                os.close(file)
                return False
            self._held = file
            os.ftruncate(file, 0)
            os.pwrite(file, _self_description().encode(), 0)
            return True

    def owner(self) -> str | None:
        """Who has the lease (process, host, since when), for people; None when nobody has."""
        if not self._path.exists():
            return None
        with self._explained(), self._alone():
            file = os.open(self._path, os.O_RDONLY)
            try:
                if _lock(file, fcntl.LOCK_SH):
                    return None
                return _owner_words(os.pread(file, 4096, 0))
            finally:
                os.close(file)

    def release(self) -> None:
        """Give the lease back.  Idempotent."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Look at or take the lease one at a time, so that a look is never mistaken for an engine."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Denied(
                f"the engine's lock {self._path} cannot be taken: {error.strerror or error}",
                "let this user write that folder, and keep it on a file system that can lock files",
            ) from error


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _self_description() -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _owner_words(text: bytes) -> str:
    try:
        told = json.loads(text)
        return f"process {told['pid']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"
