"""Waits until somebody may have committed to an SQLite file, without looking all the time.

Linux tells when a file is written (inotify).  That is a hint and no more: of a commit it comes a moment early, when the
pages are written and the commit cannot be seen yet, and of other machines' writes to a shared folder it never comes.
So behind a hint the file is looked at often for a while, and without one now and then.  Elsewhere than on Linux it is
looked at ever less often while nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from pathlib import Path
from typing import Final

NAP, LONG_NAP, LONGEST_NAP = 0.001, 0.005, 0.01
"""Seconds between two looks: when a commit is on its way, when one may still be, and where nobody tells of one."""
SOON, ALERT = 0.05, 0.25
"""Seconds after a hint for which the file is looked at very often, and often: from the pages to the commit the disk is
waited for."""
_CALM: Final = 100
"""Without hints, a nap is this part of the time for which nothing has happened."""
_MODIFY, _CREATED, _MOVED, _DELETED = 0x2, 0x100, 0x80, 0x200
_HEAD: Final = struct.Struct("iIII")
_BUFFER: Final = 1 << 16


class Wake:
    """Hints about one file, its journal included.  Not thread-safe."""

    def __init__(self, path: str | Path) -> None:
        file = os.path.realpath(path)
        self._folder = os.path.dirname(file)
        name = os.path.basename(file)
        self._names = {os.fsencode(f"{name}{ending}") for ending in ("", "-wal", "-journal")}
        self._hints: int | None = None
        self._poll: select.poll | None = None
        self._is_tried = False
        self._stirred = time.monotonic()

    def stir(self) -> None:
        """Something has happened: more may follow."""
        self._stirred = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Return when it is worth a look, at the latest after so many seconds."""
        if seconds <= 0:
            return
        if not self._is_tried:
            self._is_tried = True
            self._watch()
            return  # what was committed before we watched has told nobody
        calm = time.monotonic() - self._stirred
        if self._poll is None:
            time.sleep(min(seconds, max(NAP, min(LONGEST_NAP, calm / _CALM))))
        elif calm < ALERT:
            time.sleep(min(seconds, NAP if calm < SOON else LONG_NAP))
            self._heard(0)
        elif self._heard(seconds):
            self.stir()

    def close(self) -> None:
        """Hear no more.  Idempotent."""
        self._poll = None
        if self._hints is not None:
            os.close(self._hints)
            self._hints = None

    def _watch(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            return
        hints = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if hints < 0:  # there are too many already
            return
        wanted = _MODIFY | _CREATED | _MOVED | _DELETED
        if libc.inotify_add_watch(hints, os.fsencode(self._folder), wanted) < 0:
            os.close(hints)
            return
        self._hints, self._poll = hints, select.poll()
        self._poll.register(hints, select.POLLIN)

    def _heard(self, seconds: float) -> bool:
        """Does a hint about our file come within so many seconds?"""
        end = time.monotonic() + seconds
        while self._poll is not None and self._hints is not None:
            if not self._poll.poll(max(0.0, end - time.monotonic()) * 1000):
                return False
            if self._is_ours(os.read(self._hints, _BUFFER)):
                return True
        return False

    def _is_ours(self, told: bytes) -> bool:
        """Is one of these events about our file?  So are those that were too many to be told."""
        start = 0
        while start < len(told):
            watch, _, _, length = _HEAD.unpack_from(told, start)
            start += _HEAD.size + length
            if watch < 0 or told[start - length : start].rstrip(b"\0") in self._names:
                return True
        return False
