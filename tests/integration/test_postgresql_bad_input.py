"""Addresses of PostgreSQL databases as people mistype them: clear messages, the right exit code, no secret shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from dualwrite.testing.postgresql import Database, Server

PASSWORD = "s3cr3t@ %/x"
WRONG = "wr0ng-s3cr3t"
LEFT = "CREATE TABLE customers (account text PRIMARY KEY, name text); INSERT INTO customers VALUES ('C1', 'Contoso');"
RIGHT = """
CREATE SCHEMA sales;
CREATE TABLE sales.customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL UNIQUE, name text);
"""
RULES = "local all postgres trust\nhost all app 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks the role ``app`` for a password, and listens on a socket in its folder as well."""
    server = Server()
    try:
        server.settings["unix_socket_directories"] = str(server.folder)
        (server.data / "pg_hba.conf").write_text(RULES)
        server.start()
        with server.connect() as session:
            session.execute(f"CREATE ROLE app LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode())
        yield server
    finally:
        server.remove()


@pytest.fixture
def databases(guarded: Server) -> Iterator[tuple[Database, Database]]:
    """Two databases that can be linked."""
    with ExitStack() as stack:
        yield stack.enter_context(guarded.database(LEFT)), stack.enter_context(guarded.database(RIGHT))


def url(database: Database, password: str = "", place: str = "") -> str:
    """The address of a database for the role that needs a password."""
    secret = f":{quote(password, safe='')}" if password else ""
    return f"postgresql://app{secret}@{place or f'127.0.0.1:{database.server.port}'}/{database.name}"


def hides_secrets(text: str) -> bool:
    """Does nothing show of a password, in no spelling?"""
    return not any(part in text for part in ("s3cr3t", WRONG, quote(PASSWORD, safe="")))


def kept(terminal) -> str:
    """Everything that stands in files of the folder."""
    return "".join(file.read_bytes().decode("latin-1") for file in terminal.folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("postgresql://app:s3cr3t@nohost.invalid/{name}", 1, "nohost.invalid does not answer"),
        ("postgresql://app:s3cr3t@127.0.0.1:1/{name}", 1, "check the url, the server and the network"),
        ("postgresql://postgres@{place}/nosuch", 1, "nosuch at {place} does not exist"),
        (f"postgresql://app:{WRONG}@{{place}}/{{name}}", 1, "password authentication failed"),
        ("postgresql://app@{place}/{name}", 1, "no password supplied"),
        ("postgresql://stranger:s3cr3t@{place}/{name}", 1, "refuses the login"),
        ("postgresql://app:s3cr3t@{place}/{name}?sslmode=require", 1, "does not support SSL"),
        ("postgresql://app:s3cr3t@{place}/{name}?sslmode=verify", 1, "cannot be reached like this"),
        ("postgresql://app:s3cr3t@127.0.0.1:99999/{name}", 1, "invalid port number"),
        ("postgresql://app:s3cr3t@127.0.0.1:port/{name}", 2, "is not the url of a PostgreSQL database"),
        ("postgresql://app:p@s3cr3t@{place}/{name}", 2, "with %40 for an @ in a name or password"),
        ("postgresql://app:s3cr3t%zz@{place}/{name}", 2, "is not the url of a PostgreSQL database"),
        ("postgresql://app:s3cr3t@{place}/{name}?nonsense=1", 2, "is not the url of a PostgreSQL database"),
        ("postgresql:{name}", 2, "write postgresql://user@host:port/database"),
        ("postgresql:///{name}?host=/nowhere", 1, "does not answer"),
        ("host=127.0.0.1 password=s3cr3t dbname={name}", 2, "no connector for 'host=127.0.0.1 password=***'"),
        ("${{NOT_SET}}", 2, "the environment variable NOT_SET is not set"),
    ],
)
def test_init_tells_what_is_wrong_with_an_address(terminal, databases, address, code, told):
    """The message says what to do, the password is not in it, and nothing is written."""
    left, right = databases
    words = {"place": f"127.0.0.1:{left.server.port}", "name": left.name}
    answer = terminal.call("init", "link", "--left", address.format(**words), "--right", right.url)
    assert answer.code == code
    assert told.format(**words) in answer.err
    assert "→" in answer.err
    assert hides_secrets(answer.out + answer.err)
    assert not list(terminal.folder.iterdir())


def test_a_password_is_written_nowhere(terminal, databases, monkeypatch):
    """Not in the project, not in the journal, not in what any command prints, whether it is right or wrong."""
    left, right = databases
    addresses = ("--left", url(left, PASSWORD), "--right", url(right, PASSWORD), "--right-schema", "sales")
    said = [terminal.call("init", ".", "--link", "lab", *addresses)]
    assert "set LEFT_URL in the environment" in said[0].out
    assert "schema: sales" in (terminal.folder / "dualwrite.yaml").read_text()
    for side, database in (("LEFT", left), ("RIGHT", right)):
        monkeypatch.setenv(f"{side}_URL", url(database, PASSWORD))
    said.append(terminal.call("run", "--until-idle"))
    assert said[-1].code == 0
    for command in (["check"], ["status"], ["status", "--json"], ["plan"], ["verify"], ["log", "--json"]):
        said.append(terminal.call(*command))
        assert said[-1].code == 0, said[-1]
    monkeypatch.setenv("RIGHT_URL", url(right, WRONG))
    for command in (["check", "--json"], ["status", "--json"], ["plan"], ["run", "--until-idle"], ["stop", "--yes"]):
        said.append(terminal.call(*command))
        assert said[-1].code == 1
        assert "password authentication failed" in said[-1].out + said[-1].err
    assert hides_secrets("".join(answer.out + answer.err for answer in said) + kept(terminal))
    monkeypatch.setenv("RIGHT_URL", url(right))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert terminal.call("uninstall", "--yes").code == 0


def test_an_address_may_come_from_the_environment(terminal, databases, monkeypatch):
    """``init`` reads the variable, and writes its name: the password is not even on the command line."""
    left, right = databases
    monkeypatch.setenv("SHOP", url(left, PASSWORD))
    assert terminal.call("init", ".", "--left", "${SHOP}", "--right", right.url, "--link", "lab").code == 0
    assert 'url: "${SHOP}"' in (terminal.folder / "dualwrite.yaml").read_text()
    assert hides_secrets(kept(terminal))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg"])
@pytest.mark.parametrize(
    "form", ["{scheme}://postgres@{folder}:{port}/{name}", "{scheme}:///{name}?host={folder}&port={port}&user=postgres"]
)
def test_other_ways_to_write_an_address(terminal, databases, scheme, form):
    """Other names of the scheme, and sockets in a folder, lead there as well."""
    left, right = databases
    folder = str(left.server.folder)
    shown = quote(folder, safe="") if "@{folder}" in form else folder
    address = form.format(scheme=scheme, folder=shown, port=left.server.port, name=left.name)
    answer = terminal.call("init", ".", "--left", address, "--right", right.url, "--right-schema", "sales")
    assert answer.code == 0, answer
    assert "1 map(s) proposed" in answer.out


def test_a_schema_that_does_not_exist(terminal, databases):
    """``init``, ``check`` and ``run`` name it."""
    left, right = databases
    addresses = ("--left", left.url, "--right", right.url)
    answer = terminal.call("init", ".", *addresses, "--right-schema", "nosuch")
    assert (answer.code, "has no schema 'nosuch'" in answer.err) == (2, True)
    assert terminal.call("init", ".", *addresses, "--right-schema", "sales").code == 0
    settings = terminal.folder / "dualwrite.yaml"
    settings.write_text(settings.read_text().replace("schema: sales", "schema: nosuch"))
    for command, code in ((["check"], 1), (["run", "--until-idle"], 2), (["status"], 2)):
        answer = terminal.call(*command)
        assert answer.code == code
        assert "has no schema 'nosuch'" in answer.out + answer.err
        assert "correct schema: of right" in answer.out + answer.err


def test_an_empty_database(terminal, guarded, databases):
    """``init`` says that it has found nothing there."""
    with guarded.database() as empty:
        answer = terminal.call("init", ".", "--left", databases[0].url, "--right", empty.url, "--link", "lab")
    assert answer.code == 0
    assert "the right database has no tables yet" in answer.out


def test_a_role_without_rights_on_the_tables(terminal, databases):
    """It may look at the catalog, so ``init`` works; ``check`` has the statements, ``plan`` says what is missing."""
    left, right = databases
    left.run("CREATE ROLE weak LOGIN")
    try:
        (left.server.data / "pg_hba.conf").write_text(f"{RULES}host all weak 127.0.0.1/32 trust\n")
        left.run("SELECT pg_reload_conf()")
        address = left.server.url(left.name, "weak")
        terminal.until(lambda: terminal.call("init", "a", "--left", address, "--right", right.url).code == 0)
        assert terminal.call("init", "b", "--left", address, "--right", right.url, "--right-schema", "sales").code == 0
        checked = terminal.call("check", "-C", "b")
        assert checked.code == 1
        assert 'GRANT SELECT, INSERT, UPDATE, DELETE ON public.customers TO "weak";' in checked.out
        refused = terminal.call("plan", "-C", "b")
        assert refused.code == 1
        assert "permission denied for table customers" in refused.err
        assert "docs/privileges.md" in refused.err
    finally:
        left.run("DROP ROLE weak")
