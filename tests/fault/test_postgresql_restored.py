"""A server is restored from a backup, on either side: told with a remedy, and the remedy brings the link back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

from .postgresql_world import System, World

Servers = tuple[Server, Server]


def backup(server: Server) -> Path:
    """A copy of the data folder, made while the server rests."""
    server.stop()
    copy = server.folder / "backup"
    subprocess.run(["cp", "-a", str(server.data), str(copy)], check=True)
    server.start()
    return copy


def restore(server: Server, copy: Path) -> None:
    """The server is again as it was."""
    server.stop()
    shutil.rmtree(server.data)
    subprocess.run(["cp", "-a", str(copy), str(server.data)], check=True)
    server.start()


def write(system: System, prefix: str, count: int) -> None:
    """An application's work."""
    for number in range(count):
        system.insert(f"{prefix}{number}", prefix)


@pytest.fixture(params=[*Side])
def side(request: pytest.FixtureRequest) -> Side:
    """The side that is restored."""
    return request.param


@pytest.mark.parametrize(
    "since",
    [pytest.param(0, marks=pytest.mark.soak), pytest.param(1, marks=pytest.mark.soak), 40],
    ids=["nothing since", "less since", "more since"],
)
def test_restored_from_a_copy_of_its_folder(apart: World, servers: Servers, side: Side, since: int) -> None:
    """However much the users have written to the restored server before the link runs again."""
    server = servers[0 if side is Side.LEFT else 1]
    system, other = apart.systems if side is Side.LEFT else apart.systems[::-1]
    apart.counters()
    apart.sync()
    copy = backup(server)
    write(system, "gone", 10)
    if since <= 10:  # else nothing of ours is missing in it either
        write(other, "kept", 10)
    apart.sync()
    restore(server, copy)
    write(system, "new", since)
    apart.refused("backup")
    assert apart.call("status").returncode == 1
    apart.start_again()
    assert {f"gone{n}" for n in range(10)} | {f"new{n}" for n in range(since)} <= system.records().keys()
    apart.lives()


def test_both_restored_at_once(apart: World, servers: Servers) -> None:
    """Both sides are as they were at the same time, so both hold the same: still the journal knows better."""
    apart.counters()
    apart.sync()
    copies = [backup(server) for server in servers]
    write(apart.left, "gone", 10)
    write(apart.right, "also", 10)
    apart.sync()
    for server, copy in zip(servers, copies, strict=True):
        restore(server, copy)
    apart.refused("backup")
    apart.start_again()
    apart.lives()


@pytest.mark.soak
def test_restored_by_pg_basebackup(apart: World, servers: Servers, side: Side) -> None:
    """A base backup holds no slots, so nobody can tell what was missed."""
    server = servers[0 if side is Side.LEFT else 1]
    system, other = apart.systems if side is Side.LEFT else apart.systems[::-1]
    apart.counters()
    apart.sync()
    copy = server.folder / "backup"
    with server.connect() as session:
        session.execute("CHECKPOINT")
    server.run("pg_basebackup", "-d", server.url(), "-D", str(copy), "-c", "fast", "--no-sync")
    write(system, "gone", 10)
    write(other, "kept", 10)
    apart.sync()
    restore(server, copy)
    write(system, "new", 30)
    apart.refused("its replication slot was dropped, so changes may have been missed")
    apart.start_again()
    apart.lives()
