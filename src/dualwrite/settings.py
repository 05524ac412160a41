"""What may stand in ``dualwrite.yaml``: every setting with its checks, and each mistake in our words, with its line.

Secrets come from the environment (``${CRM_URL}``) and are never shown: not in messages, not in what Python prints of
these values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from dualwrite.document import Entries, Findings, Items, Node, Text, plain, read
from dualwrite.errors import Usage
from dualwrite.model import Side
from dualwrite.names import guess
from dualwrite.troubles import CODES
from dualwrite.urls import holds_secret, mask

MAPS: Final = "maps/"
LOOPBACK: Final = "127.0.0.1"
DAY: Final = 86_400.0
INTERVAL: Final = 900.0
"""Seconds within which a rule counts, unless it says otherwise."""
KINDS: Final[Mapping[str, str]] = {
    "connection": "a system does not answer; each attempt counts",
    "parked": "a change is parked and needs a person: all codes but `behind` and `missing_parent`, which mostly settle "
    "by themselves, and those that are kinds of their own",
    "conflict": "both sides changed a column at once, or a change waits because of it",
    "brake": "more is deleted or changed than the limits allow unasked",
    "loop": "a record keeps changing on both sides",
    "attention": "a map has stopped by itself",
    "drift": "the tables of a map have changed",
    "lag": "a change has been waiting for longer than the interval",
    "retained": "a system keeps more of its log than `limits.retained`",
}
"""Kinds of trouble that rules count, besides the codes of parked changes."""
RETAINED: Final = 1 << 30
CHANGES: Final = 0.5
"""The share of a table that an initial sync may change unasked, unless the settings say otherwise."""
ROUNDS: Final = 20
"""How often a record may go from side to side within five minutes, unless the settings say otherwise."""
AUDITED: Final = 1 << 30
LINK: Final = re.compile(r"[a-z][a-z0-9_]{0,29}")
_VARIABLE = re.compile(r"\$\{(?P<name>[^}]*)(?P<end>\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNITS: Final = {"KB": 10, "MB": 20, "GB": 30, "TB": 40}
_SIZE = re.compile(r"(?P<number>[1-9]\d{0,5}) ?(?P<unit>[kMGT]B)", re.IGNORECASE)
_SHARE = re.compile(r"(?P<number>\d{1,3}) ?%")
_URL = re.compile(r"[a-z][a-z0-9+.-]*:.+", re.DOTALL)
_HTTP = re.compile(r"https?://[^\s/]+\S*")
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_DURATION = re.compile(r"(?P<number>[1-9]\d{0,5}) ?(?P<unit>s|min|h)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3_600}


def _refuse(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy})


def _plain_word(link: str) -> str:
    if not LINK.fullmatch(link):
        remedy = "write at most 30 of a-z, 0-9 and _, starting with a letter: database objects carry this name"
        raise _refuse("is not a plain word", remedy)
    return link


def _not_empty(text: str) -> str:
    if not text.strip():
        raise _refuse("is empty", "write a value")
    return text


def _is_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if not _URL.fullmatch(text):
        raise _refuse("is not a URL", 'write something like "sqlite:///file.db"')
    if text.startswith("sqlite:") and not text.removeprefix("sqlite:///").removeprefix("sqlite:"):
        raise _refuse("names no file", 'write "sqlite:///file.db", with three slashes')
    if text.startswith("sqlite:") and not text.startswith("sqlite:///"):
        raise _refuse("is not a SQLite URL", 'write "sqlite:///file.db", with three slashes')
    return url


def _is_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        remedy = guess(name, sorted(available_timezones())) or "write a name like Europe/Berlin"
        raise _refuse("is not a time zone", remedy) from None
    return name


def _size(text: object) -> int:
    found = _SIZE.fullmatch(str(text))
    if not found:
        raise _refuse("is not a size", "write a number with its unit, like 500MB or 2GB")
    return int(found["number"]) << _UNITS[found["unit"].upper()]


Action = Literal["mail", "webhook", "pause", "stop"]
"""What a rule can do."""
MESSAGES: Final[Sequence[Action]] = ("mail", "webhook")
"""Actions that send something; the others are done to maps."""


def _share(text: object) -> float:
    found = _SHARE.fullmatch(str(text))
    if not found or int(found["number"]) > 100:
        raise _refuse("is not a share", "write 0% to 100%, like 50%")
    return int(found["number"]) / 100


def _or_off(value: object) -> object:
    if value == "off":
        return None
    if not isinstance(value, dict):
        raise _refuse("is neither off nor a mapping", "write off, or {days: 90, size: 1GB}")
    return value


_Word = Annotated[str, AfterValidator(_not_empty)]
_Policy = Literal["left", "right", "newest", "manual", "max", "min", "sum"]


class Model(BaseModel):
    """A mapping of settings; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class EnvironmentSettings(Model):
    """``left:`` or ``right:``."""

    name: _Word | None = None
    url: Annotated[SecretStr, AfterValidator(_is_url)]
    schema_name: _Word | None = Field(default=None, alias="schema")
    timezone: Annotated[str, AfterValidator(_is_timezone)] = "UTC"


class LimitSettings(Model):
    """``limits:``."""

    deletes: Annotated[int, Field(ge=1)] | None = None
    retained: Annotated[int, BeforeValidator(_size)] = RETAINED
    rounds: Annotated[int, Field(ge=1)] = ROUNDS
    changes: Annotated[float, BeforeValidator(_share)] = CHANGES
    updates: Annotated[float, BeforeValidator(_share)] | None = None


def _listen(text: object) -> tuple[str, int]:
    return listen_at(str(text))


def listen_at(text: str) -> tuple[str, int]:
    """Where to listen: ``PORT`` on this machine alone, or ``HOST:PORT``; raises ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise _refuse("is no place to listen at", "write a port like 9464, or HOST:PORT like 0.0.0.0:9464")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


class MetricsSettings(Model):
    """``metrics:``."""

    listen: Annotated[tuple[str, int], BeforeValidator(_listen)]


def _seconds(text: object) -> float:
    found = _DURATION.fullmatch(str(text))
    if not found:
        raise _refuse("is not a length of time", "write a number with its unit, like 30s, 15min or 1h")
    seconds = float(found["number"]) * _SECONDS[found["unit"]]
    if seconds > DAY:
        raise _refuse("is too long", "write 24h at most")
    return seconds


def _hook(url: SecretStr) -> SecretStr:
    if not _HTTP.fullmatch(url.get_secret_value()):
        raise _refuse("is not the URL of a web hook", 'write something like "https://example.com/hooks/dualwrite"')
    return url


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise _refuse("is not an e-mail address", "write somebody@example.com")
    return text


def _kind(text: str) -> str:
    if text not in KINDS and text not in CODES:
        remedy = guess(text, sorted([*KINDS, *CODES])) or f"choose of {', '.join(KINDS)}, or codes of parked changes"
        raise _refuse("is no kind of trouble", remedy)
    return text


_Address = Annotated[str, AfterValidator(_address)]


class MailSettings(Model):
    """``alerts.mail:``."""

    host: _Word
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: _Word | None = None
    password: SecretStr | None = None
    sender: _Address = Field(alias="from")
    to: Annotated[list[_Address], Field(min_length=1)]


class WebhookSettings(Model):
    """``alerts.webhook:``."""

    url: Annotated[SecretStr, AfterValidator(_hook)]
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    secret: SecretStr | None = None


class RuleSettings(Model):
    """One of ``alerts.rules:``."""

    name: _Word
    errors: Annotated[list[Annotated[str, AfterValidator(_kind)]], Field(min_length=1)]
    count: Annotated[int, Field(ge=1)] = 1
    interval: Annotated[float, BeforeValidator(_seconds)] = INTERVAL
    maps: Annotated[list[_Word], Field(min_length=1)] | None = None
    actions: Annotated[list[Action], Field(min_length=1)]
    to: Annotated[list[_Address], Field(min_length=1)] | None = None


class AlertSettings(Model):
    """``alerts:``."""

    mail: MailSettings | None = None
    webhook: WebhookSettings | None = None
    rules: list[RuleSettings] = []

    @property
    def secrets(self) -> list[str]:
        """What must never be shown."""
        hook = self.webhook
        found = [self.mail.password if self.mail else None, *((hook.secret, hook.url) if hook else ())]
        return [secret.get_secret_value() for secret in found if secret is not None]


class AuditSettings(Model):
    """``audit:``, where it is not ``off``."""

    days: Annotated[int, Field(ge=1)] = 90
    size: Annotated[int, BeforeValidator(_size)] = AUDITED


class Settings(Model):
    """The whole file."""

    link: Annotated[str, AfterValidator(_plain_word)]
    left: EnvironmentSettings
    right: EnvironmentSettings
    companies: Annotated[list[_Word], Field(min_length=1)] | None = None
    conflict: _Policy = "newest"
    maps: _Word = MAPS
    limits: LimitSettings = LimitSettings()
    metrics: MetricsSettings | None = None
    alerts: AlertSettings = AlertSettings()
    audit: Annotated[AuditSettings | None, BeforeValidator(_or_off)] = AuditSettings()
    _written: Entries | None = PrivateAttr(default=None)

    def line(self, *place: int | str) -> int:
        """The line of the file where something stands."""
        return _at(self._written, place).line if self._written is not None else 0


MODELS: Final[Mapping[tuple[str, ...], type[Model]]] = {
    (): Settings,
    ("left",): EnvironmentSettings,
    ("right",): EnvironmentSettings,
    ("limits",): LimitSettings,
    ("metrics",): MetricsSettings,
    ("alerts",): AlertSettings,
    ("alerts", "mail"): MailSettings,
    ("alerts", "webhook"): WebhookSettings,
    ("alerts", "rules"): RuleSettings,
    ("audit",): AuditSettings,
}
"""What may stand at each place of the file."""


_SECRETS: Final[Mapping[tuple[str, ...], str]] = {
    ("alerts", "mail", "password"): "SMTP_PASSWORD",
    ("alerts", "webhook", "secret"): "WEBHOOK_SECRET",
}
"""Where secrets stand, and what a variable for each may be called."""


def read_settings(text: str, findings: Findings, variables: Mapping[str, str] = os.environ) -> Settings | None:
    """The settings in the text of ``dualwrite.yaml``; None, and what is wrong noted, where they cannot be read."""
    node = read(text, findings)
    if isinstance(node, Entries):
        return _validated(node, _replaced(node, variables, findings), findings)
    if not findings.problems:
        findings.add("bad_entry", 1, "dualwrite.yaml holds no settings", "it starts with link:, left: and right:")
    return None


def expanded(url: str, variables: Mapping[str, str] = os.environ) -> str:
    """A URL with every ``${NAME}`` replaced from the environment; raises Usage where that cannot be done."""
    findings = Findings("")
    text = _VARIABLE.sub(lambda found: _variable(found, 0, variables, findings), url)
    for problem in findings.problems:
        raise Usage(problem.message, problem.remedy)
    return text


def _validated(written: Entries, node: Node, findings: Findings) -> Settings | None:
    _refuse_secrets(written, findings)
    try:
        settings = Settings.model_validate(plain(node, findings))
    except ValidationError as error:
        noted = {problem.line for problem in findings.problems}
        for detail in error.errors(include_input=False, include_url=False):
            if _at(written, detail["loc"]).line not in noted:
                _explain(detail, written, findings)
        return None
    settings._written = written
    return settings


def _refuse_secrets(written: Entries, findings: Findings) -> None:
    """Secrets come from the environment."""
    for side in Side:
        url = _at(written, (side.value, "url"))
        if isinstance(url, Text) and url.value and holds_secret(url.value):
            remedy = f'put the URL into an environment variable and write url: "${{{side.value.upper()}_URL}}"'
            findings.add("secret", url.line, f"the URL of {side} holds a password: {mask(url.value)}", remedy)
    for place, variable in _SECRETS.items():
        found = _at(written, place)
        if isinstance(found, Text) and found.value and "${" not in found.value:
            name = ".".join(place)
            remedy = f'put it into an environment variable and write {place[-1]}: "${{{variable}}}"'
            findings.add("secret", found.line, f"{name} stands in the file itself", remedy)


def _at(node: Node, place: Sequence[int | str]) -> Node:
    """The node at a place that pydantic names, or the last one that exists on the way there."""
    for step in place:
        inner: Node | None = None
        if isinstance(node, Entries):
            inner = next((value for key, value in node.pairs if key.value == step), None)
        elif isinstance(node, Items) and isinstance(step, int):
            inner = node.nodes[step]
        if inner is None:
            break
        node = inner
    return node


def _explain(detail: ErrorDetails, written: Entries, findings: Findings) -> None:
    """Note a finding of pydantic in our words, with the value as it stands in the file."""
    node, name = _at(written, detail["loc"]), ".".join(map(str, detail["loc"]))
    value = f" {mask(node.value)!r}" if isinstance(node, Text) and node.value else ""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            findings.add("missing_key", node.line, f"{name} is missing", f"add {name}: …")
        case "extra_forbidden":
            last = str(detail["loc"][-1])
            known = _known(detail["loc"][:-1])
            findings.add(
                "unknown_key", _key_line(written, detail["loc"]), f"there is no entry {name!r}", guess(last, known)
            )
        case "refused":
            findings.add("bad_entry", node.line, f"{name}{value} {context['message']}", context["remedy"])
        case "literal_error":
            remedy = guess(value.strip(" '"), _choices(detail["loc"]))
            findings.add("bad_entry", node.line, f"{name} cannot be{value or ' empty'}", remedy)
        case "list_type" | "too_short":
            findings.add("bad_entry", node.line, f"{name} must be a list that is not empty", "write [one, two]")
        case "model_type":
            findings.add("bad_entry", node.line, f"{name} must be a mapping", "write it as {key: value}")
        case "int_parsing" | "int_parsing_size" | "int_type" | "greater_than_equal":
            findings.add(
                "bad_entry", node.line, f"{name}{value} is not a whole number from 1 on", "write a number like 1000"
            )
        case "less_than_equal":
            findings.add("bad_entry", node.line, f"{name}{value} is too large", f"write {context['le']} at most")
        case "string_pattern_mismatch":
            findings.add("bad_entry", node.line, f"{name}{value} is no name of a header", "write letters and -")
        case _:
            findings.add("bad_entry", node.line, f"{name} must be one text", "write one value on the line")


def _known(place: Sequence[int | str]) -> list[str]:
    """The entries that may stand there."""
    model = MODELS[tuple(step for step in place if isinstance(step, str))]
    return [each.alias or name for name, each in model.model_fields.items()]


def _choices(place: Sequence[int | str]) -> Sequence[str]:
    """The words of which one may stand there."""
    kinds: Mapping[object, object] = {"actions": Action, "tls": Literal["starttls", "tls", "none"]}
    last = next(step for step in reversed(place) if isinstance(step, str))
    return get_args(kinds.get(last, _Policy))


def _key_line(node: Node, place: Sequence[int | str]) -> int:
    parent = _at(node, place[:-1])
    keys = [key.line for key, _ in parent.pairs if key.value == place[-1]] if isinstance(parent, Entries) else []
    return keys[0] if keys else parent.line


def _replaced(node: Node, variables: Mapping[str, str], findings: Findings) -> Node:
    """The node with every ``${NAME}`` replaced from the environment."""
    match node:
        case Text(value=str() as text):
            value = _VARIABLE.sub(lambda found: _variable(found, node.line, variables, findings), text)
            return replace(node, value=value)
        case Items(nodes=nodes):
            return replace(node, nodes=tuple(_replaced(item, variables, findings) for item in nodes))
        case Entries(pairs=pairs):
            return replace(node, pairs=tuple((key, _replaced(value, variables, findings)) for key, value in pairs))
    return node


def _variable(found: re.Match[str], line: int, variables: Mapping[str, str], findings: Findings) -> str:
    name = found["name"]
    if not found["end"] or not _VARIABLE_NAME.fullmatch(name):
        findings.add("bad_variable", line, f"{found[0]!r} names no environment variable", "write ${NAME}")
    elif name not in variables:
        findings.add("unset_variable", line, f"the environment variable {name} is not set", f"export {name}=… first")
    else:
        return variables[name]
    return ""
