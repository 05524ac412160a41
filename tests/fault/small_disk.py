"""File systems that are full when a test wants it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MB = 1 << 20


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes free."""
        with self._filler.open("ab", buffering=0) as filler, suppress(OSError):  # others write as well
            while (room := shutil.disk_usage(self.path).free - free) > 0:
                filler.write(bytes(room))

    def free(self) -> None:
        """There is room again."""
        self._filler.unlink()


@contextmanager
def disk(path: Path, size: int) -> Iterator[Disk]:
    """Mount one in an empty folder that the server's user may use."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path.mkdir()
    options = f"size={size},uid={path.parent.stat().st_uid},mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
