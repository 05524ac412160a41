"""Alerts as people get them: by mail, by a web hook, as maps that pause; on local servers."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from dualwrite.engine.courier import PAUSES, Courier, send
from dualwrite.errors import Unavailable
from dualwrite.journal import Journal, Notice
from dualwrite.settings import AlertSettings

MESSAGE = {"link": "shop", "rule": "too many", "text": "3 × too_long", "to": None, "at": 1.0}
SECRET = "Bearer hunter2"


class AnyPort(Controller):
    """A mail server at a port that is free."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Postbox:
    """A mail server that keeps what it gets."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], str]] = []
        self.logins: list[bytes] = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's
        """A mail."""
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append((envelope.rcpt_tos, f"{parsed['Subject']}\n{parsed.get_content()}"))
        return "250 taken"

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802 - aiosmtpd's
        """A recipient."""
        if address.startswith("nobody"):
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def login(self, _server, _session, _envelope, _mechanism, login):
        """A user."""
        self.logins.append(login.password)
        return AuthResult(success=login.password == b"right", handled=False)


@contextmanager
def postbox(**more) -> Iterator[tuple[Postbox, int]]:
    """A mail server, and its port."""
    handler = Postbox()
    more = {key: handler.login if value == "login" else value for key, value in more.items()}
    server = AnyPort(handler, hostname="127.0.0.1", port=0, **more)
    server.start()
    try:
        yield handler, server.port
    finally:
        server.stop()


class Hook:
    """A web server that keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], dict]] = []
        self.answer, self.elsewhere = 204, ""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            """Answers."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got.append((dict(self.headers), body))
                self.send_response(hook.answer)
                if hook.elsewhere:
                    self.send_header("Location", hook.elsewhere)
                self.end_headers()

            def do_GET(self) -> None:
                hook.got.append((dict(self.headers), {}))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A web server."""
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def by_mail(port: int, **more) -> AlertSettings:
    """Settings for a mail server."""
    mail = {"host": "localhost", "port": str(port), "tls": "none", "from": "dw@example.com", "to": ["it@example.com"]}
    return AlertSettings.model_validate({"mail": mail | more})


def by_hook(hook: Hook, **more) -> AlertSettings:
    """Settings for a web server."""
    return AlertSettings.model_validate({"webhook": {"url": hook.url, "secret": SECRET} | more})


def test_a_mail_arrives():
    """At the addresses of the settings, or of the rule."""
    with postbox() as (box, port):
        send(by_mail(port), "mail", MESSAGE)
        send(by_mail(port), "mail", MESSAGE | {"to": ["a@example.com", "b@example.com"]})
    assert box.mails[0] == (["it@example.com"], "dualwrite shop: too many\n3 × too_long\r\n")
    assert box.mails[1][0] == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_mail_goes_encrypted(tls, tmp_path, monkeypatch):
    """With the password, to a server whose certificate is trusted; to another one nothing is sent."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    upgrades = tls == "starttls"
    how = {"tls_context": context, "require_starttls": True} if upgrades else {"ssl_context": context}
    with postbox(**how, authenticator="login", auth_required=upgrades, auth_require_tls=upgrades) as (box, port):
        settings = by_mail(port, tls=tls, user="dw", password="right")
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            send(settings, "mail", MESSAGE)
        assert not box.logins
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        send(settings, "mail", MESSAGE)
        with pytest.raises(Unavailable, match=r"refuses \(535 ") as refused:
            send(by_mail(port, tls=tls, user="dw", password="hunter2"), "mail", MESSAGE)
        assert "hunter2" not in str(refused.value)
    assert len(box.mails) == 1


def test_addresses_that_a_server_refuses_are_told():
    """Some of them are said, and the others get their mail; when it refuses all, it has failed."""
    with postbox() as (box, port):
        assert "nobody@example.com" in send(by_mail(port, to=["nobody@example.com", "it@example.com"]), "mail", MESSAGE)
        with pytest.raises(Unavailable, match=r"refuses nobody@example\.com"):
            send(by_mail(port, to=["nobody@example.com"]), "mail", MESSAGE)
    assert [to for to, _ in box.mails] == [["it@example.com"]]


def test_a_hook_is_called(hook):
    """With what has happened as JSON, and the secret in its header."""
    send(by_hook(hook, header="X-Key"), "webhook", MESSAGE)
    ((headers, body),) = hook.got
    assert body == {name: value for name, value in MESSAGE.items() if name != "to"}
    assert (headers["X-Key"], headers["Content-Type"]) == (SECRET, "application/json")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_hook_that_leads_elsewhere_is_not_followed(hook, code):
    """The secret is for the server that is named, and for no other."""
    hook.answer, hook.elsewhere = code, hook.url + "/elsewhere"
    with pytest.raises(Unavailable, match=f"answers {code} .*leads elsewhere") as refused:
        send(by_hook(hook), "webhook", MESSAGE)
    assert len(hook.got) == 1
    assert SECRET not in str(refused.value)


def test_what_cannot_be_sent_is_tried_again(hook, monkeypatch):
    """It is told, with its reason, in the activity log once; after it was sent at last, nothing is left."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    with Journal.open("sqlite://") as journal:
        with journal.batch() as batch:
            batch.notify(Notice(now[0], "too many", "webhook", json.dumps(MESSAGE)))
        courier, hook.answer = Courier(journal, lambda: by_hook(hook)), 503
        for pause in PAUSES[:2]:
            courier.deliver()
            courier.deliver()
            now[0] += pause
        assert len(hook.got) == 2
        (notice,) = journal.notices()
        assert (notice.attempts, notice.due) == (2, now[0])
        assert "answers 503" in notice.error
        hook.answer = 200
        courier.deliver()
        assert journal.notices() == []
        assert [event.what for event in journal.events()] == [
            "alert sent",
            "alert could not be sent; it is tried again",
        ]


def test_a_message_is_given_up_after_a_day(hook):
    """With all that it said in the activity log."""
    hook.answer = 500
    with Journal.open("sqlite://") as journal:
        with journal.batch() as batch:
            batch.notify(Notice(1000.0, "too many", "webhook", json.dumps(MESSAGE)))
        Courier(journal, lambda: by_hook(hook)).deliver()
        assert journal.notices() == []
        (event,) = journal.events()
        assert event.detail["text"] == MESSAGE["text"]


RULES = """
alerts:
  webhook: {{url: "{url}", secret: "${{HOOK_SECRET}}"}}
  rules:
    - {{name: too many, errors: [parked], count: {count}, interval: 1h, maps: [Customers], actions: [webhook, pause]}}
"""


def test_an_alert_of_a_running_engine(shop, hook, monkeypatch):
    """Rules that are edited count at once; the hook is called, the map pauses, and both stand in the activity log."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    file = shop.folder / "dualwrite.yaml"
    settings = file.read_text()
    file.write_text(settings + RULES.format(url=hook.url, count=100))
    with shop.engine() as engine:
        shop.sql(
            shop.left, "INSERT INTO customers VALUES ('C7', ?, 1, 'open'), ('C8', ?, 1, 'open')", "x" * 30, "y" * 30
        )
        shop.until(lambda: shop.call("status", "--json").json()["maps"][0]["parked"] == 2)
        assert not hook.got
        file.write_text(settings + RULES.format(url=hook.url, count=2))
        shop.until(lambda: hook.got)
        shop.until(lambda: shop.call("status", "--json").json()["maps"][0]["state"] == "paused")
        ended = shop.end(engine)
    ((headers, body),) = hook.got
    assert headers["Authorization"] == SECRET
    assert body["found"] == [{"kind": "too_long", "map": "customers", "count": 2}]
    assert SECRET not in ended.err
    said = [(event["what"], event["who"]) for event in shop.call("log", "--json").json()]
    assert ("alert", "alert") in said
    assert ("pause wanted", "alert too many") in said
    listed = shop.call("alerts", "list", "--json").json()
    assert [(each["name"], each["fired"] is not None) for each in listed["rules"]] == [("too many", True)]


def test_a_rule_can_be_tested(shop, hook, monkeypatch):
    """A message that says it is a test; no map is touched; what fails is told with exit code 1."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    file = shop.folder / "dualwrite.yaml"
    file.write_text(file.read_text() + RULES.format(url=hook.url, count=2))
    sent = shop.call("alerts", "test", "TOO MANY")
    assert (sent.code, sent.out) == (0, "sent by webhook\n")
    assert hook.got[0][1]["test"] is True
    assert "this is a test" in hook.got[0][1]["text"]
    hook.answer = 404
    failed = shop.call("alerts", "test", "too many")
    assert failed.code == 1
    assert "answers 404" in failed.err
    assert shop.call("alerts", "test", "too mny").code == 2
    assert "too many" in shop.call("alerts", "list").out


def test_what_could_not_be_sent_is_told(shop):
    """``status`` and ``alerts list`` warn, and exit as they would without it."""
    file = shop.folder / "dualwrite.yaml"
    file.write_text(file.read_text() + "alerts: {webhook: {url: 'http://localhost:1/'}}\n")
    with Journal.open(shop.folder) as journal, journal.batch() as batch:
        batch.notify(Notice(1.0, "too many", "webhook", "{}", 4, 0.0, "it answers 503"))
    stood = shop.call("status", "--json")
    assert stood.code == 0
    (problem,) = stood.json()["problems"]
    assert (problem["code"], problem["level"]) == ("alert", "warning")
    assert "'too many' could not be sent by webhook in 4 attempt(s): it answers 503" in problem["message"]
    assert "4 attempt(s)" in shop.call("alerts", "list").out


WRONG = {
    "rules: [{name: a, errors: [parkd], actions: [stop]}]": "alerts.rules.0.errors.0 'parkd' is no kind of trouble",
    "rules: [{name: a, errors: [parked], actions: [mial]}]": "alerts.rules.0.actions.0 cannot be 'mial'",
    "rules: [{name: a, errors: [parked], actions: [mail]}]": "there is no alerts.mail",
    "rules: [{name: a, errors: [parked], actions: [stop], maps: [custmers]}]": "no map is called 'custmers'",
    "rules: [{name: a, errors: [parked], actions: [stop], interval: 5 years}]": "'5 years' is not a length of time",
    "rules: [{name: a, errors: [lag], actions: [stop]}, {name: A, errors: [lag], actions: [stop]}]": "two rules",
    "webhook: {url: 'ftp://x'}": "is not the URL of a web hook",
    "webhook: {url: 'http://x/', secret: abc}": "alerts.webhook.secret stands in the file itself",
    "mail: {host: h, from: a@b.c, to: [d@e.f], port: 99999}": "alerts.mail.port '99999' is too large",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_rules_that_are_wrong_are_told(shop, wrong):
    """With file, line and key, and what to write instead."""
    file = shop.folder / "dualwrite.yaml"
    file.write_text(f"{file.read_text()}alerts:\n  {wrong}\n")
    told = shop.call("check")
    assert told.code == 1
    assert "dualwrite.yaml:5" in told.out
    assert WRONG[wrong] in told.out
