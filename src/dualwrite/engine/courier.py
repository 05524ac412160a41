"""Sends what alerts have to say: by mail, or to a web hook.

What is to be sent stands in the journal until it was taken; what cannot be sent is tried again, at growing intervals,
for a day.  A crash in between may send it twice, never not at all.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dualwrite.errors import DualwriteError, Problem, Unavailable, Usage
from dualwrite.journal import Journal, Notice
from dualwrite.settings import MESSAGES, AlertSettings, MailSettings, WebhookSettings

PATIENCE: Final = 10.0
"""Seconds that a server has for each of its answers."""
PAUSES: Final = (5.0, 15.0, 60.0, 300.0)
"""Seconds between attempts; the last of them goes on."""
GIVEN_UP: Final = 86_400.0
"""Seconds after which a message is not tried again."""


class Courier:
    """Sends what the journal holds, by the settings as they are by then."""

    def __init__(self, journal: Journal, settings: Callable[[], AlertSettings]) -> None:
        self._journal = journal
        self._settings = settings

    def deliver(self) -> None:
        """Send what is due."""
        now = time.time()
        for notice in self._journal.notices():
            if notice.action in MESSAGES and notice.due <= now:
                self._try(notice)

    def _try(self, notice: Notice) -> None:
        about = {"rule": notice.rule, "action": notice.action}
        try:
            remark = send(self._settings(), notice.action, json.loads(notice.message))
        except DualwriteError as trouble:
            self._keep(notice, trouble, about)
            return
        with self._journal.batch() as batch:
            batch.drop_notice(notice.id)
            if notice.attempts or remark:
                batch.log("alert sent", detail={**about, "attempts": notice.attempts + 1, "remark": remark})

    def _keep(self, notice: Notice, trouble: DualwriteError, about: Mapping[str, object]) -> None:
        """For the next attempt; the first failure and the last are in the activity log."""
        reason, now = str(trouble), time.time()
        with self._journal.batch() as batch:
            if now - notice.at > GIVEN_UP:
                batch.drop_notice(notice.id)
                lost = {**about, "reason": reason, "text": json.loads(notice.message)["text"]}
                batch.log("alert could not be sent within a day; given up", detail=lost)
                return
            batch.delay_notice(notice.id, now + PAUSES[min(notice.attempts, len(PAUSES) - 1)], reason)
            if not notice.attempts:
                batch.log("alert could not be sent; it is tried again", detail={**about, "reason": reason})


def undelivered(journal: Journal) -> list[Problem]:
    """A warning for each message that could not be sent yet."""
    return [
        Problem(
            "alert",
            f"the alert {notice.rule!r} could not be sent by {notice.action} in {notice.attempts} attempt(s): "
            f"{notice.error}",
            "correct alerts: in dualwrite.yaml, or the server; a running engine tries again by itself",
            "warning",
        )
        for notice in journal.notices()
        if notice.attempts
    ]


def send(settings: AlertSettings, action: str, message: Mapping[str, object]) -> str:
    """Send one message; returns what there is to say of it.

    Raises Unavailable with the reason, without any secret, where that cannot be done.
    """
    if action == "mail" and settings.mail is not None:
        return _mail(settings.mail, message)
    if action == "webhook" and settings.webhook is not None:
        _post(settings.webhook, message)
        return ""
    raise Usage(f"there is no alerts.{action} any more", f"say where to send it, in {action}:")


# -- mail -------------------------------------------------------------------------------------------------------------


def letter(settings: MailSettings, message: Mapping[str, object]) -> EmailMessage:
    """The message as a mail."""
    made = EmailMessage()
    made["Subject"] = _one_line(f"dualwrite {message['link']}: {message['rule']}")
    made["From"] = settings.sender
    made["To"] = ", ".join(_recipients(settings, message))
    made["Date"] = format_datetime(datetime.now(UTC))
    made["Message-ID"] = make_msgid("dualwrite", settings.sender.rpartition("@")[2])
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(str(message["text"]) + "\n")
    return made


def _recipients(settings: MailSettings, message: Mapping[str, object]) -> Sequence[str]:
    to = message.get("to")
    return [str(each) for each in to] if isinstance(to, list) else settings.to


def _one_line(text: str) -> str:
    return "".join(" " if unicodedata.category(sign).startswith("C") else sign for sign in text)


def _mail(settings: MailSettings, message: Mapping[str, object]) -> str:
    where = f"the mail server {settings.host}:{settings.port}"
    try:
        with _server(settings) as server:
            if settings.user is not None and settings.password is not None:
                server.login(settings.user, settings.password.get_secret_value())
            refused = server.send_message(letter(settings, message))
    except smtplib.SMTPResponseException as refusal:
        words = refusal.smtp_error
        said = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        raise Unavailable(f"{where} refuses ({refusal.smtp_code} {said})", "see alerts.mail") from None
    except smtplib.SMTPRecipientsRefused as refusal:
        raise Unavailable(f"{where} refuses {', '.join(refusal.recipients)}", "correct alerts.mail.to") from None
    except (OSError, smtplib.SMTPException) as trouble:
        raise Unavailable(f"{where} cannot be used ({trouble})", "see alerts.mail: host, port and tls") from None
    return f"{where} has refused {', '.join(refused)}, and taken it for the others" if refused else ""


def _server(settings: MailSettings) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if settings.tls == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=PATIENCE, context=context)
    server = smtplib.SMTP(settings.host, settings.port, timeout=PATIENCE)
    if settings.tls == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


# -- web hooks --------------------------------------------------------------------------------------------------------


class _Stay(HTTPRedirectHandler):
    """Follows nobody elsewhere: the secret is for the server that is named."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """No request is made: the answer counts as a refusal."""


def _post(settings: WebhookSettings, message: Mapping[str, object]) -> None:
    url = settings.url.get_secret_value()
    body = {name: value for name, value in message.items() if name != "to"}
    headers = {"Content-Type": "application/json", "User-Agent": "dualwrite"}
    if settings.secret is not None:
        headers[settings.header] = settings.secret.get_secret_value()
    where = f"the web hook at {urlsplit(url).hostname}"
    try:
        request = Request(url, json.dumps(body, ensure_ascii=False).encode(), headers, method="POST")
        with build_opener(_Stay).open(request, timeout=PATIENCE) as answer:
            answer.read(1)
    except HTTPError as refusal:
        moved = ": it leads elsewhere, where no secret is sent" if 300 <= refusal.code < 400 else ""
        refusal.close()
        raise Unavailable(f"{where} answers {refusal.code} {refusal.reason}{moved}", "see alerts.webhook") from None
    except (OSError, URLError, HTTPException, ValueError) as trouble:
        reason = getattr(trouble, "reason", trouble)
        raise Unavailable(f"{where} cannot be reached ({reason})", "see alerts.webhook.url") from None
