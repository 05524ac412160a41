"""Logins that are refused: told with a remedy and exit code 1, without a traceback, and no secret is shown."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

from .postgresql_world import ITEM, LEFT, PRODUCT, RIGHT, System, World

DEBIAN = Path("/usr/lib/postgresql/15/bin")
SECRET, WRONG = "s3cret-pässword", "wr0ng-pässword"
ROLES = f"""
CREATE ROLE runner SUPERUSER LOGIN PASSWORD '{SECRET}';
CREATE ROLE clerk LOGIN PASSWORD '{SECRET}';
"""


def guard(server: Server, rules: str) -> None:
    """Who may log in, and how; the applications need no password."""
    (server.data / "pg_hba.conf").write_text(f"host all postgres 127.0.0.1/32 trust\n{rules}\n")


def world_as(server: Server, folder: Path, role: str) -> Iterator[World]:
    """A link whose role has a password."""
    with server.connect() as session:
        session.execute(ROLES.encode())
    with server.database(LEFT) as left, server.database(RIGHT) as right:
        yield World(
            folder,
            System(Side.LEFT, ITEM, left, url=server.url(left.name, role)),
            System(Side.RIGHT, PRODUCT, right, url=server.url(right.name, role)),
        )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[World]:
    """A link to a server that asks for passwords."""
    server = Server()
    try:
        guard(server, "host all all 127.0.0.1/32 scram-sha-256")
        server.start()
        yield from world_as(server, tmp_path, "runner")
    finally:
        server.remove()


def refused(world: World, *words: str, **environment: str) -> None:
    """Every command that needs the systems ends with code 1 and says these words."""
    there = replace(world, environment=environment)
    for command in (("check",), ("run", "--until-idle"), ("status",), ("verify",)):
        done = there.call(*command)
        told = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 1, told
        assert all(word in told for word in (*words, "→")), told
        assert SECRET not in told
        assert WRONG not in told


def test_passwords(locked: World) -> None:
    """Missing and wrong ones are told as such; the right one works from the environment, the url and a file."""
    refused(locked, "refuses the login", "no password supplied", "PGPASSWORD", PGPASSFILE="/nonexistent")
    refused(locked, "refuses the login", "password authentication failed", PGPASSWORD=WRONG)
    locked.counters()
    replace(locked, environment={"PGPASSWORD": SECRET}).sync()
    database = locked.left.database
    assert database is not None
    passwords = locked.folder / "passwords"
    passwords.write_text(f"127.0.0.1:{database.server.port}:*:runner:{SECRET}\n")
    passwords.chmod(0o600)
    from_file = replace(locked, environment={"PGPASSFILE": str(passwords)})
    from_file.lives()
    from_file.proves()


def test_a_password_that_is_changed_under_a_running_engine(locked: World) -> None:
    """The engine ends once it has to log in again, says why, and goes on with the new password when it is started."""
    known = replace(locked, environment={"PGPASSWORD": SECRET})
    known.counters()
    known.sync()
    assert known.left.database is not None
    with known.engine() as engine:
        with known.load():
            known.moves(engine)
            known.left.database.run(f"ALTER ROLE runner PASSWORD '{WRONG}'")
            known.left.database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runner'")
            assert engine.finished() == 1
        assert "password authentication failed" in engine.said()
        assert SECRET not in engine.said()
    changed = replace(locked, environment={"PGPASSWORD": WRONG})
    changed.sync()
    changed.proves()


def test_a_role_without_rights(locked: World) -> None:
    """What it lacks is told with the statements that grant it, all at once."""
    for system in locked.systems:
        system.url = system.url.replace("runner@", "clerk@")
    locked.settle()
    there = replace(locked, environment={"PGPASSWORD": SECRET})
    checked = there.call("check")
    assert checked.returncode == 1
    for words in ("ALTER ROLE clerk REPLICATION", "GRANT EXECUTE ON FUNCTION pg_replication_origin_create"):
        assert words in checked.stdout.replace('"', ""), checked.stdout
    done = there.call("run", "--until-idle")
    assert done.returncode == 1
    assert "→" in done.stderr
    assert SECRET not in checked.stdout + done.stderr


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[World]:
    """A link to a server that takes encrypted connections only; ``ca.pem`` has signed for it, ``other.pem`` not."""
    if not DEBIAN.exists() or shutil.which("openssl") is None:
        pytest.skip("a server with TLS, that is Debian's PostgreSQL 15, or the openssl command is not installed")
    server = Server({"ssl": "on"}, programs=DEBIAN)
    try:
        for name in ("ca", "other"):
            openssl("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}",
                    "-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem")  # fmt: skip
        openssl("req", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost",
                "-keyout", f"{server.data}/server.key", "-out", f"{tmp_path}/server.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{tmp_path}/server.csr", "-CA", f"{tmp_path}/ca.pem", "-days", "2",
                "-CAkey", f"{tmp_path}/ca.key", "-CAcreateserial", "-out", f"{server.data}/server.crt")  # fmt: skip
        owner = server.data.stat()
        for name in ("server.key", "server.crt"):
            shutil.chown(server.data / name, owner.st_uid, owner.st_gid)
            (server.data / name).chmod(0o600)
        guard(server, "hostssl all all 127.0.0.1/32 scram-sha-256")
        server.start()
        yield from world_as(server, tmp_path, "runner")
    finally:
        server.remove()


def openssl(*arguments: str) -> None:
    """Run it to its end."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_encrypted_connections(encrypted: World) -> None:
    """A server that cannot prove who it is, and one that insists on encryption, are told; the settings come from the
    environment."""
    folder, secret = encrypted.folder, {"PGPASSWORD": SECRET}
    refused(encrypted, "refuses the login", "no encryption", PGSSLMODE="disable", **secret)
    refused(
        encrypted, "certificate verify failed", PGSSLMODE="verify-ca", PGSSLROOTCERT=f"{folder}/other.pem", **secret
    )
    refused(encrypted, "does not match", PGSSLMODE="verify-full", PGSSLROOTCERT=f"{folder}/ca.pem", **secret)
    encrypted.counters()
    trusted = {"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": f"{folder}/ca.pem", **secret}
    there = replace(encrypted, environment=trusted)
    there.sync()
    there.proves()
