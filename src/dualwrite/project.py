"""A project folder: ``dualwrite.yaml``, the maps in ``maps/`` and what is declared in ``schema/``.

``load`` reads all of it and reports all that is wrong at once; ``create`` writes a new one.  Secrets come from the
environment (``${CRM_URL}``) and are never shown: not in messages, not in what Python prints of these values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from dualwrite.declared import Declared, read_declared
from dualwrite.document import Entries, Findings, Items, Node, Quoted, Text, flow, plain, quote, read
from dualwrite.errors import Invalid, Problem, Usage
from dualwrite.mapping.notation import read_map, write_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Side
from dualwrite.names import guess, slug
from dualwrite.urls import holds_secret, located, mask, relative_to

FILE: Final = "dualwrite.yaml"
MAPS: Final = "maps/"
LARGEST: Final = 1_000_000
"""Bytes of the largest file that people write: a map of ten thousand columns has less."""
RETAINED: Final = 1 << 30
_VARIABLE = re.compile(r"\$\{(?P<name>[^}]*)(?P<end>\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINK = re.compile(r"[a-z][a-z0-9_]{0,29}")
_UNITS: Final = {"KB": 10, "MB": 20, "GB": 30, "TB": 40}
_SIZE = re.compile(r"(?P<number>[1-9]\d{0,5}) ?(?P<unit>[kMGT]B)", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*:.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the two linked systems.  ``url`` may hold a password: show ``shown_url``."""

    name: str
    url: str = field(repr=False)
    schema: str | None = None
    timezone: str = "UTC"

    @property
    def shown_url(self) -> str:
        """The URL with its secrets masked."""
        return mask(self.url)


@dataclass(frozen=True, slots=True)
class Limits:
    """``deletes``: more deletes of a map within a minute wait for a person (None: no limit).

    ``retained``: the bytes of its log that a system may keep for the link before somebody is told.
    """

    deletes: int | None = None
    retained: int = RETAINED


@dataclass(frozen=True, slots=True)
class Project:
    """A link as people wrote it down.  ``companies`` is empty for all; ``place`` is the folder of the maps."""

    folder: Path
    link: str
    environments: Mapping[Side, Environment]
    companies: tuple[str, ...] = ()
    conflict: str = "newest"
    limits: Limits = Limits()
    maps: tuple[TableMap, ...] = ()
    declared: Mapping[Side, Declared] = field(default_factory=dict)
    place: str = MAPS


# ------------------------------------------------------------------------------------------------------ reading


def _refuse(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy})


def _plain_word(link: str) -> str:
    if not _LINK.fullmatch(link):
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


_Word = Annotated[str, AfterValidator(_not_empty)]
_Policy = Literal["left", "right", "newest", "manual", "max", "min", "sum"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Environment(_Model):
    name: _Word | None = None
    url: Annotated[SecretStr, AfterValidator(_is_url)]
    schema_name: _Word | None = Field(default=None, alias="schema")
    timezone: Annotated[str, AfterValidator(_is_timezone)] = "UTC"


class _Limits(_Model):
    deletes: Annotated[int, Field(ge=1)] | None = None
    retained: Annotated[int, BeforeValidator(_size)] = RETAINED


class _Settings(_Model):
    link: Annotated[str, AfterValidator(_plain_word)]
    left: _Environment
    right: _Environment
    companies: Annotated[list[_Word], Field(min_length=1)] | None = None
    conflict: _Policy = "newest"
    maps: _Word = MAPS
    limits: _Limits = _Limits()


def load(folder: Path, variables: Mapping[str, str] = os.environ) -> Project:
    """The project in a folder; raises Invalid with everything that is wrong in any of its files."""
    project, problems = load_readable(folder, variables)
    if project is None or problems:
        raise Invalid(problems)
    return project


def load_readable(folder: Path, variables: Mapping[str, str] = os.environ) -> tuple[Project | None, list[Problem]]:
    """The project in a folder as far as its files can be read (None without settings), and all that is wrong in them.

    Raises Usage where there is no project.
    """
    if not (folder / FILE).is_file():
        raise Usage(f"there is no {FILE} in {folder}", "run `dualwrite init`, or name the project folder with -C")
    problems: list[Problem] = []
    settings = _settings(folder, variables, problems)
    maps = _maps(folder, settings.maps if settings else MAPS, problems)
    declared = {side: _declared(folder, side, problems) for side in Side}
    if settings is None:
        return None, problems
    project = Project(
        folder=folder,
        link=settings.link,
        environments={
            Side.LEFT: _environment(folder, Side.LEFT, settings.left),
            Side.RIGHT: _environment(folder, Side.RIGHT, settings.right),
        },
        companies=tuple(settings.companies or ()),
        conflict=settings.conflict,
        limits=Limits(settings.limits.deletes, settings.limits.retained),
        maps=maps,
        declared=declared,
        place=settings.maps,
    )
    return project, problems


def _environment(folder: Path, side: Side, written: _Environment) -> Environment:
    url = located(written.url.get_secret_value(), folder)
    return Environment(written.name or side.value, url, written.schema_name, written.timezone)


def text_of_file(path: Path, problems: list[Problem], most: int = LARGEST) -> str | None:
    """A file's text; trouble in reading it is noted, and so is a file of more than ``most`` bytes."""
    try:
        if path.exists() and not path.is_file():
            problems.append(Problem("unreadable", "this is not a file", "move it elsewhere", file=str(path)))
            return None
        data = _bytes(path, most, problems)
        return None if data is None else data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        remedy = "let this user read it, or remove it"
        problems.append(Problem("unreadable", f"cannot be read: {error.strerror}", remedy, file=str(path)))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        remedy = "save it as UTF-8"
        problems.append(Problem("unreadable", "this is not UTF-8 text", remedy, file=str(path), line=line))
    return None


def _bytes(path: Path, most: int, problems: list[Problem]) -> bytes | None:
    size = path.stat().st_size
    if size <= most:
        return path.read_bytes()
    message = f"this file has {size / 1e6:,.1f} MB, and more than {most / 1e6:,.0f} MB are not read"
    problems.append(
        Problem("too_large", message, "check that it is the file that you mean, or divide it", file=str(path))
    )
    return None


def _settings(folder: Path, variables: Mapping[str, str], problems: list[Problem]) -> _Settings | None:
    text = text_of_file(folder / FILE, problems)
    findings = Findings(str(folder / FILE))
    node = read(text, findings) if text is not None else None
    settings = None
    if isinstance(node, Entries):
        settings = _validated(node, _replaced(node, variables, findings), findings)
    elif text is not None and not findings.problems:
        findings.add("bad_entry", 1, f"{FILE} holds no settings", "it starts with link:, left: and right:")
    problems += findings.sorted()
    return settings


def _validated(written: Entries, node: Node, findings: Findings) -> _Settings | None:
    for side in Side:
        url = _at(written, (side.value, "url"))
        if isinstance(url, Text) and url.value and holds_secret(url.value):
            remedy = f'put the URL into an environment variable and write url: "${{{side.value.upper()}_URL}}"'
            findings.add("secret", url.line, f"the URL of {side} holds a password: {mask(url.value)}", remedy)
    try:
        return _Settings.model_validate(plain(node, findings))
    except ValidationError as error:
        noted = {problem.line for problem in findings.problems}
        for detail in error.errors(include_input=False, include_url=False):
            if _at(written, detail["loc"]).line not in noted:
                _explain(detail, written, findings)
        return None


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
            remedy = guess(value.strip(" '"), get_args(_Policy))
            findings.add("bad_entry", node.line, f"{name} cannot be{value or ' empty'}", remedy)
        case "list_type" | "too_short":
            findings.add("bad_entry", node.line, f"{name} must be a list that is not empty", "write [one, two]")
        case "model_type":
            findings.add("bad_entry", node.line, f"{name} must be a mapping", "write it as {key: value}")
        case "int_parsing" | "int_parsing_size" | "int_type" | "greater_than_equal":
            findings.add(
                "bad_entry", node.line, f"{name}{value} is not a whole number from 1 on", "write a number like 1000"
            )
        case _:
            findings.add("bad_entry", node.line, f"{name} must be one text", "write one value on the line")


def _known(place: Sequence[int | str]) -> list[str]:
    """The entries that may stand there."""
    models: dict[Sequence[int | str], type[_Model]] = {(): _Settings, ("limits",): _Limits}
    model = models.get(tuple(place), _Environment)
    return [each.alias or name for name, each in model.model_fields.items()]


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


def _maps(folder: Path, name: str, problems: list[Problem]) -> tuple[TableMap, ...]:
    """All maps of the folder, sorted by file name."""
    place = folder / name
    try:
        paths = sorted(path for path in place.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        message = f"the folder of the maps cannot be read: {error.strerror}"
        problems.append(Problem("no_maps", message, f"create {name}, or set maps: in {FILE}", file=str(place)))
        return ()
    maps: dict[str, TableMap] = {}
    for path in paths:
        table_map = _map(path, problems)
        if table_map is None:
            continue
        first = maps.setdefault(table_map.name.casefold(), table_map)
        if first is not table_map:
            message = f"map {table_map.name!r} is also in {first.file}"
            problem = Problem("duplicate_map", message, "give one of them another name", map=table_map.name)
            problems.append(replace(problem, file=table_map.file, line=table_map.lines.get("map", 0)))
    return tuple(maps.values())


def _map(path: Path, problems: list[Problem]) -> TableMap | None:
    text = text_of_file(path, problems)
    try:
        return None if text is None else read_map(text, str(path))
    except Invalid as error:
        problems += error.problems
        return None


def _declared(folder: Path, side: Side, problems: list[Problem]) -> Declared:
    path = folder / "schema" / f"{side}.yaml"
    if not path.exists() and not path.is_symlink():
        return Declared()
    text = text_of_file(path, problems)
    try:
        return Declared() if text is None else read_declared(text, str(path))
    except Invalid as error:
        problems += error.problems
        return Declared()


# ------------------------------------------------------------------------------------------------------ writing


@dataclass(frozen=True, slots=True)
class Created:
    """The files of a new project, and the environment variables that must be set before it can be used."""

    files: tuple[Path, ...]
    variables: tuple[str, ...]


def expanded(url: str, variables: Mapping[str, str] = os.environ) -> str:
    """A URL with every ``${NAME}`` replaced from the environment; raises Usage where that cannot be done."""
    findings = Findings("")
    text = _VARIABLE.sub(lambda found: _variable(found, 0, variables, findings), url)
    for problem in findings.problems:
        raise Usage(problem.message, problem.remedy)
    return text


def create(
    folder: Path,
    link: str,
    left_url: str,
    right_url: str,
    maps: Sequence[TableMap],
    schemas: Mapping[Side, str | None] = MappingProxyType({}),
    remarks: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Created:
    """Write a new project; refuses, before writing anything, when one of its files exists.

    ``remarks`` are comments for the columns of a map, by its name.  A URL that holds a password becomes a variable.
    A relative SQLite path is taken from the current directory.
    """
    if not _LINK.fullmatch(link):
        remedy = "use at most 30 of a-z, 0-9 and _, starting with a letter"
        raise Usage(f"{link!r} cannot be the name of a link", remedy)
    urls = {Side.LEFT: left_url, Side.RIGHT: right_url}
    variables = {side: f"{side.value.upper()}_URL" for side, url in urls.items() if holds_secret(url)}
    shown = {
        side: f"${{{variables[side]}}}" if side in variables else relative_to(located(url, Path.cwd(), folder), folder)
        for side, url in urls.items()
    }
    files = {folder / MAPS / name: write_map(one, remarks.get(one.name, ())) for name, one in _named(maps)}
    places = {side: {"name": _name(url, side), "url": Quoted(shown[side])} for side, url in urls.items()}
    for side, schema in schemas.items():
        places[side] |= {"schema": schema} if schema else {}
    files[folder / FILE] = _settings_text(link, places)
    _write(folder, files)
    return Created(tuple(files), tuple(variables.values()))


def link_name(folder: Path) -> str:
    """A link's name made from a folder's."""
    word = slug(folder.resolve().name).replace("-", "_")[:30].strip("_")
    return word if _LINK.fullmatch(word) else f"link_{word}"[:30].strip("_")


def _settings_text(link: str, places: Mapping[Side, Mapping[str, str]]) -> str:
    sides = [f"{f'{side}:':6} {flow(places[side])}" for side in Side]
    return "\n".join([f"link: {quote(link)}", *sides, "conflict: newest", f"maps: {quote(MAPS)}"]) + "\n"


def _name(url: str, side: Side) -> str:
    """A short name for an environment: its database's, where the URL tells."""
    stem = Path(url.partition("?")[0].rpartition("/")[2]).stem
    return stem if re.fullmatch(r"\w[\w-]*", stem) else side.value


def _named(maps: Sequence[TableMap]) -> list[tuple[str, TableMap]]:
    """Each map with its file's name; names that clash are numbered."""
    taken: dict[str, TableMap] = {}
    for table_map in maps:
        word = slug(table_map.name) or "map"
        names = (f"{word}-{number}.yaml" if number > 1 else f"{word}.yaml" for number in count(1))
        taken[next(name for name in names if name not in taken)] = table_map
    return list(taken.items())


def new_file(project: Project, name: str) -> Path:
    """A file that is not there yet, for a map of this name."""
    word = slug(name) or "map"
    marks = chain([""], (f"-{number}" for number in count(2)))
    files = (project.folder / project.place / f"{word}{mark}.yaml" for mark in marks)
    return next(file for file in files if not file.exists())


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise Usage(f"{', '.join(existing)} exists already", "choose another folder, or remove it")
    written: list[Path] = []
    try:
        (folder / MAPS).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise Usage(f"cannot write the project in {folder}: {error.strerror}", "choose another folder") from error
