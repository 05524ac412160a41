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
from typing import Final

import yaml

from dualwrite.declared import Declared, read_declared
from dualwrite.document import Findings, Quoted, flow, quote
from dualwrite.errors import Invalid, Problem, Usage
from dualwrite.journal import Retention
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side
from dualwrite.names import guess, slug
from dualwrite.settings import (
    CHANGES,
    LINK,
    MAPS,
    RETAINED,
    ROUNDS,
    AlertSettings,
    EnvironmentSettings,
    Settings,
    expanded,
    read_settings,
)
from dualwrite.urls import holds_secret, located, mask, relative_to

FILE: Final = "dualwrite.yaml"
LARGEST: Final = 1_000_000
"""Bytes of the largest file that people write: a map of ten thousand columns has less."""


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

    ``retained``: the bytes of its log that a system may keep for the link before somebody is told.  ``rounds``: how
    often a record may go from side to side within five minutes.  ``changes``: which share of a table an initial sync
    may change unasked; ``updates``: the same of what people change within a minute (None: no limit).
    """

    deletes: int | None = None
    retained: int = RETAINED
    rounds: int = ROUNDS
    changes: float = CHANGES
    updates: float | None = None


USUAL_AUDIT: Final = Retention()


@dataclass(frozen=True, slots=True)
class Project:
    """A link as people wrote it down.  ``companies`` is empty for all; ``place`` is the folder of the maps;
    ``metrics`` where they are served."""

    folder: Path
    link: str
    environments: Mapping[Side, Environment]
    companies: tuple[str, ...] = ()
    conflict: str = "newest"
    limits: Limits = Limits()
    audit: Retention | None = USUAL_AUDIT
    maps: tuple[TableMap, ...] = ()
    declared: Mapping[Side, Declared] = field(default_factory=dict)
    place: str = MAPS
    metrics: tuple[str, int] | None = None
    alerts: AlertSettings = field(default_factory=AlertSettings)


# ------------------------------------------------------------------------------------------------------ reading


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
    problems += _rule_problems(settings, str(folder / FILE), [table_map.name for table_map in maps])
    project = Project(
        folder=folder,
        link=settings.link,
        environments={
            Side.LEFT: _environment(folder, Side.LEFT, settings.left),
            Side.RIGHT: _environment(folder, Side.RIGHT, settings.right),
        },
        companies=tuple(settings.companies or ()),
        conflict=settings.conflict,
        limits=Limits(**settings.limits.model_dump()),
        audit=None if settings.audit is None else Retention(settings.audit.days, settings.audit.size),
        maps=maps,
        declared=declared,
        place=settings.maps,
        metrics=settings.metrics.listen if settings.metrics else None,
        alerts=settings.alerts,
    )
    return project, problems


def _rule_problems(settings: Settings, file: str, maps: Sequence[str]) -> list[Problem]:
    """What is wrong with rules of alerts that are well written: names that are taken or unknown, nowhere to send to."""
    findings, names = Findings(file), set[str]()
    known = {name.casefold() for name in maps}
    missing = {each for each in ("mail", "webhook") if getattr(settings.alerts, each) is None}
    for number, rule in enumerate(settings.alerts.rules):
        place = ("alerts", "rules", number)
        if rule.name.casefold() in names:
            line = settings.line(*place, "name")
            findings.add("bad_entry", line, f"two rules are called {rule.name!r}", "give one of them another name")
        names.add(rule.name.casefold())
        for index, name in enumerate(rule.maps or ()):
            if name.casefold() not in known:
                line, remedy = settings.line(*place, "maps", index), guess(name, list(maps))
                findings.add("bad_entry", line, f"rule {rule.name!r}: no map is called {name!r}", remedy)
        for index, action in enumerate(rule.actions):
            if action in missing:
                line, message = (
                    settings.line(*place, "actions", index),
                    f"rule {rule.name!r}: there is no alerts.{action}",
                )
                findings.add("bad_entry", line, message, f"say under alerts: where to send it, in {action}:")
    return findings.sorted()


def _environment(folder: Path, side: Side, written: EnvironmentSettings) -> Environment:
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
    except FileNotFoundError:
        problems.append(Problem("unreadable", "there is no such file", "correct its name", file=str(path)))
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


def _settings(folder: Path, variables: Mapping[str, str], problems: list[Problem]) -> Settings | None:
    text = text_of_file(folder / FILE, problems)
    findings = Findings(str(folder / FILE))
    found = None if text is None else read_settings(text, findings, variables)
    problems += findings.sorted()
    return found


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
    if not LINK.fullmatch(link):
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
    return word if LINK.fullmatch(word) else f"link_{word}"[:30].strip("_")


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


def pointed(project: Project, side: Side, url: str) -> Project:
    """The project with another URL for a side; its file stays as it is."""
    place = replace(project.environments[side], url=located(expanded(url), project.folder))
    return replace(project, environments={**project.environments, side: place})


def repoint(project: Project, side: Side, url: str) -> None:
    """Write another URL for a side into ``dualwrite.yaml``; nothing else of it changes.

    Raises Usage where a person has to write it: it stands in a variable, or more than once, or holds a password.
    """
    path = project.folder / FILE
    text = path.read_bytes().decode("utf-8-sig")
    written = str(yaml.load(text, Loader=yaml.BaseLoader)[side.value]["url"])
    remedy = f"write it there yourself, or set the variable, then: dualwrite relink {side}"
    if "${" in written:
        raise Usage(f"the url of {side} is {written} in {path}", remedy)
    if text.count(written) != 1 or holds_secret(url) or '"' in url or "'" in url:
        raise Usage(f"the url of {side} cannot be written into {path} by itself", remedy)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text.replace(written, url), encoding="utf-8")
    os.replace(scratch, path)


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
