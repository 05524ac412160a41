"""Versions of maps: what a file said whenever an engine took its map up, or before something else was put in its place.

The number in the file is what travels with the project folder, so it is kept true: a text that says something else
under a number that is taken gets the next one, in the journal and in its file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dualwrite.engine.lifecycle import INITIALIZING, RUNNING
from dualwrite.errors import Denied, Invalid, Usage
from dualwrite.journal import Journal, MapState, MapVersion, Writer
from dualwrite.mapping.difference import differences
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.numbering import content, number_of, numbers, with_version
from dualwrite.mapping.tablemap import TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.names import guess
from dualwrite.project import Project, new_file


@dataclass(frozen=True, slots=True)
class Kept:
    """A map under the number of its version; ``was`` was that of its file, which has the new one where ``written``."""

    table_map: TableMap
    was: str
    written: bool = True

    def __str__(self) -> str:
        """What there is to tell; empty where the number in the file was right."""
        if self.was == self.table_map.version:
            return ""
        file, version = self.table_map.file, self.table_map.version
        told = f"map {self.table_map.name}: {file} says something else than version {self.was} did, so it is {version}"
        return told + ("; the file says so now" if self.written else f": write version: {version} into it")


def keep(journal: Journal, table_map: TableMap, who: str) -> Kept:
    """Keep what a map's file says as a version, and let the file have that version's number."""
    known = _named(journal.versions(table_map.name), table_map.version, table_map.publisher)
    if known is not None and known.text == _text(table_map):  # the usual case costs no reading of texts
        return Kept(table_map, table_map.version)
    text = _says(table_map)
    kept = _keep(journal, table_map, text or write_map(table_map), who)
    if kept.version == table_map.version:
        return Kept(table_map, table_map.version)
    renumbered = None if text is None else with_version(text, kept.version)
    written = renumbered is not None and _write(Path(table_map.file), renumbered, text)
    return Kept(replace(table_map, version=kept.version), table_map.version, written)


def _keep(journal: Journal, table_map: TableMap, text: str, who: str) -> MapVersion:
    def settle(known: Sequence[MapVersion]) -> MapVersion:
        version = number_of(table_map, of_publisher(known, table_map.publisher))
        return MapVersion(table_map.name, version, table_map.publisher, with_version(text, version) or text, 0.0, who)

    return journal.keep_version(table_map.name, settle)


def of_publisher(known: Sequence[MapVersion], publisher: str) -> list[TableMap]:
    """The known versions of a publisher, read; what an earlier program wrote and this one cannot read is left out."""
    found = []
    for each in known:
        if each.publisher == publisher:
            with suppress(Invalid):
                found.append(replace(read_map(each.text, ""), version=each.version))
    return found


def _text(table_map: TableMap) -> str | None:
    """The text of a map's file; None where it cannot be read (any more)."""
    try:
        return _read(Path(table_map.file))
    except (OSError, UnicodeDecodeError):
        return None


def _says(table_map: TableMap) -> str | None:
    """The text of a map's file; None where it does not say (any more) what was read from it."""
    text = _text(table_map)
    with suppress(Invalid):
        if text is not None and write_map(read_map(text, "")) == write_map(table_map):
            return text
    return None


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _write(path: Path, text: str, expected: str | None) -> bool:
    """Put a text into a file that holds what is expected; False where it does not, or cannot be written."""
    real = path.resolve()
    scratch = real.with_name(f".{real.name}.new")
    try:
        if expected is not None and _read(real) != expected:  # somebody edits it right now
            return False
        scratch.write_bytes(text.encode("utf-8"))
        if real.exists():
            scratch.chmod(real.stat().st_mode)
        os.replace(scratch, real)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        return False
    return True


# --------------------------------------------------------------------------------------------------- switching


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch did: ``kept`` is what the file held before (None: nothing), ``now`` what it holds."""

    kept: Kept | None
    now: MapVersion
    file: str


def switch(journal: Journal, project: Project, name: str, wanted: str, who: str) -> Switched:
    """Put a version of a map into its file, after what the file holds has become a version.

    Raises Usage for a version that is not known, Denied where the file cannot be written.
    """
    current = next((each for each in project.maps if each.name == name), None)
    now = version_of(journal.versions(name), current, wanted)
    kept = text = None
    if current is not None:
        text = _says(current)
        version = _keep(journal, current, text or write_map(current), who).version
        kept = Kept(replace(current, version=version), current.version, written=False)
    file = Path(current.file) if current else new_file(project, name)
    if (current and text is None) or not _write(file, now.text, text):
        raise Denied(f"{file} cannot be written", "let this user write it, and see that nobody else edits it")
    before = kept.table_map if kept else None
    journal.log("version switched", map=name, who=who, detail=_changed(before, now))
    return Switched(kept, now, str(file))


def _changed(before: TableMap | None, now: MapVersion) -> dict[str, object]:
    """For the activity log: which version is in place of which, and what it says differently."""
    detail: dict[str, object] = {"version": called(now)}
    if before is not None:
        detail |= {"was": _called(before.version, before.publisher)}
        with suppress(Invalid):  # an earlier program wrote what this one cannot read
            detail |= {"differences": [str(each) for each in differences(before, read_map(now.text, ""))]}
    return detail


def log_change(journal: Journal, batch: Writer, last: MapState, table_map: TableMap) -> None:
    """Write into the activity log that a map is carried with another version than the last one, if it is."""
    if not last.version or (last.version, last.publisher) == (table_map.version, table_map.publisher):
        return
    known = journal.versions(table_map.name)
    before = _named(known, last.version, last.publisher)
    now = _named(known, table_map.version, table_map.publisher)
    if now is None:
        return
    was: dict[str, object] = {"was": _called(last.version, last.publisher)}
    with suppress(Invalid):
        was |= _changed(None if before is None else replace(read_map(before.text, ""), version=before.version), now)
    batch.log("mapping changed", map=table_map.name, who=now.who, detail=_changed(None, now) | was)


def version_of(known: Sequence[MapVersion], current: TableMap | None, wanted: str) -> MapVersion:
    """The version that is called ``1.0.0.0`` or ``1.0.0.0@publisher``; raises Usage where none is.

    A number that several publishers have means that of the file's publisher.
    """
    number, mark, publisher = wanted.partition("@")
    found = [each for each in known if _is_number(number) and numbers(each.version) == numbers(number)]
    found = [each for each in found if not mark or each.publisher == publisher]
    own = [each for each in found if current is not None and each.publisher == current.publisher]
    if len(own or found) == 1:
        return (own or found)[0]
    names = [called(each) for each in found or known]
    if found:
        raise Usage(f"version {wanted} is of several publishers", f"name one of {', '.join(names)}")
    hint = guess(wanted, names) or "see dualwrite maps versions"
    raise Usage(f"there is no version {wanted!r}", hint if known else "a map has versions once an engine has run it")


def called(version: MapVersion) -> str:
    """A version as it can be asked for beyond doubt."""
    return _called(version.version, version.publisher)


def _called(version: str, publisher: str) -> str:
    return f"{version}@{publisher}" if publisher else version


def _is_number(text: str) -> bool:
    return all(part.isascii() and part.isdecimal() and len(part) < 10 for part in text.split("."))


# ----------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True, slots=True)
class History:
    """A map's versions, oldest first; ``here`` is the one in its file, ``runs`` the one that an engine carries with.

    ``edited``: the file holds what is no version yet, and would become ``becomes``.
    """

    map: str
    versions: tuple[MapVersion, ...]
    current: TableMap | None
    here: MapVersion | None
    runs: MapVersion | None
    becomes: str | None = None

    @property
    def edited(self) -> bool:
        """Does the file hold what is no version yet?"""
        return self.becomes is not None


def history(journal: Journal | None, project: Project, name: str) -> History:
    """The versions of a map, beside its file; nothing is written."""
    known = journal.versions(name) if journal else []
    state = journal.states().get(name) if journal else None
    current = next((each for each in project.maps if each.name == name), None)
    number = number_of(current, of_publisher(known, current.publisher)) if current else None
    here = _named(known, number, current.publisher if current else "")
    is_running = state is not None and state.state in (RUNNING, INITIALIZING)
    running = _named(known, state.version, state.publisher) if state and is_running else None
    return History(name, tuple(known), current, here, running, number if here is None else None)


def _named(known: Sequence[MapVersion], version: str | None, publisher: str) -> MapVersion | None:
    return next((each for each in known if (each.version, each.publisher) == (version, publisher)), None)


def as_it_ran(journal: Journal, state: MapState) -> TableMap | None:
    """The version of a map with which an engine last took it up; None where it is not known or cannot be read."""
    found = _named(journal.versions(state.map), state.version, state.publisher)
    with suppress(Invalid):
        return None if found is None else replace(read_map(found.text, ""), version=found.version)
    return None


def differs(table_map: TableMap, version: MapVersion) -> bool:
    """Does a map's file say something else than a version?"""
    if version.text == _text(table_map):
        return False
    try:
        kept = read_map(version.text, "")
    except Invalid:
        return True
    return content(kept) != content(table_map) or kept.publisher != table_map.publisher
