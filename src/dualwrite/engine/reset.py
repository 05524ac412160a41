"""Taking a link back: out of both systems (``uninstall``), and out of its project folder as well (``reset``).

Everything is exported first.  Each step can be done again: after a crash, or where a system did not answer, the same
command goes on with what is still there.  Users' tables are never touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dualwrite.connectors.base import Connector, Installation
from dualwrite.engine.continuity import check_home, is_same
from dualwrite.engine.workspace import connector_of
from dualwrite.errors import Denied, DualwriteError, Usage
from dualwrite.journal import Journal, Lease
from dualwrite.journal.audit import Images
from dualwrite.model import ABSENT, Side
from dualwrite.names import slug
from dualwrite.project import Project

README = """\
What the link {link} knew at {at}, before it was reset.

project/   dualwrite.yaml, the maps and the schema files, as they were
versions/  what each map said whenever an engine took it up
journal/   one file for each kind of note, one JSON object to a line, times in UTC:
           event.jsonl (the activity log), map_state.jsonl, parked.jsonl with queue.jsonl (parked changes),
           changes.jsonl (what was applied, newest first), conflict.jsonl with closure.jsonl and decision.jsonl
           (conflicts and how they were decided), and the others

To take the link up again, put the files of project/ back: it begins anew, with an initial sync.
"""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a reset finds: of each side what the link has there, or why nobody can tell, and the journal's files."""

    sides: Mapping[Side, Installation | DualwriteError]
    files: tuple[Path, ...]

    @property
    def is_empty(self) -> bool:
        """Is there nothing to remove?"""
        known = [found for found in self.sides.values() if isinstance(found, Installation)]
        return not self.files and not any(found.objects for found in known)


@contextmanager
def held(project: Project) -> Iterator[None]:
    """No engine runs this link inside.  Raises Usage where one does."""
    lease = Lease(project.folder)
    if not lease.acquire():
        raise Usage(f"an engine runs this link: {lease.owner()}", "stop it first")
    try:
        yield
    finally:
        lease.release()


def check_own(journal: Journal, side: Side, connector: Connector) -> None:
    """Raises Denied where what a system holds is another link's: that of another pair, or of the folder's original."""
    check_home(journal)
    known, found = journal.get(f"identity.{side}"), connector.installation()
    if known is not None and found.objects and not found.is_copy and not is_same(known, connector.identity()):
        raise Denied(
            f"{side}: this is {connector.identity()}, but the link was made with {known}: what is installed there may "
            "be another project's",
            f"point the environment to the right system, or leave it as it is: dualwrite reset --forget {side}",
        )


def survey(project: Project) -> Survey:
    """Look at what is there; writes nothing."""
    sides: dict[Side, Installation | DualwriteError] = {}
    for side in Side:
        try:
            with connected(project, side) as connector:
                sides[side] = connector.installation()
        except DualwriteError as trouble:
            sides[side] = trouble
    return Survey(sides, tuple(_files(project.folder)))


@contextmanager
def connected(project: Project, side: Side) -> Iterator[Connector]:
    """The system of one side."""
    connector = connector_of(project, side)
    try:
        yield connector
    finally:
        connector.close()


def _files(folder: Path) -> Iterator[Path]:
    if Journal.exists(folder):
        base = Path(folder) / ".dualwrite" / "journal.db"
        yield from (path for path in (Path(f"{base}{end}") for end in ("", "-wal", "-shm")) if path.exists())


def by_hand(project: Project, side: Side) -> str:
    """What a person runs in a system that cannot be reached now, once it can."""
    with connected(project, side) as connector:
        return connector.by_hand()


def uninstall(project: Project, journal: Journal | None, who: str, forget: Collection[Side] = ()) -> list[Denied]:
    """Remove the link from the systems, and bring the journal to a fresh start; those to forget stay as they are.

    Returns what a person has to do in a system before it can be done again; the journal then stays as it is.
    """
    refusals: list[Denied] = []
    for side in Side:
        if side not in forget:
            with connected(project, side) as connector:
                if journal is not None:
                    check_own(journal, side, connector)
                try:
                    connector.uninstall()
                except Denied as denied:
                    refusals.append(denied)
    if journal is not None and not refusals:
        _begin_anew(journal, who, forget)
    return refusals


def _begin_anew(journal: Journal, who: str, forgotten: Collection[Side]) -> None:
    with journal.batch() as batch:
        for side in Side:
            batch.put(f"identity.{side}", None)
            batch.settle(side, -1)
        for name in journal.states():
            batch.set_state(name, desired="stopped", state="not running", initial="none", reason="")
        detail = {"forgotten": [str(side) for side in forgotten]} if forgotten else {}
        batch.log("uninstalled", who=who, detail=detail)


# ---------------------------------------------------------------------------------------------------- exporting


def export(project: Project, journal: Journal, now: datetime | None = None) -> Path:
    """Write everything that project and journal know into a new folder beside the maps; complete, or not there."""
    at = now or datetime.now(UTC)
    place = _free(project.folder / f"reset-{project.link}-{at:%Y%m%d-%H%M%S}")
    scratch = place.with_name(f".{place.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir()
        (scratch / "README.txt").write_text(README.format(link=project.link, at=f"{at:%Y-%m-%d %H:%M:%S} UTC"))
        _export_project(project, scratch / "project")
        _export_versions(journal, scratch / "versions")
        _export_journal(journal, scratch / "journal")
        scratch.rename(place)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise Denied(f"{place} cannot be written: {error.strerror}", "nothing was removed; free some space") from error
    return place


def _free(place: Path) -> Path:
    names = (place, *(place.with_name(f"{place.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _export_project(project: Project, place: Path) -> None:
    place.mkdir()
    for name in ("dualwrite.yaml", project.place.rstrip("/"), "schema"):
        found = project.folder / name
        if found.is_dir():
            shutil.copytree(found, place / Path(name).name)
        elif found.exists():
            shutil.copy2(found, place / name)


def _export_versions(journal: Journal, place: Path) -> None:
    place.mkdir()
    for version in journal.versions():
        folder = place / (slug(version.map) or "map")
        folder.mkdir(exist_ok=True)
        mark = f"-{slug(version.publisher)}" if version.publisher else ""
        (folder / f"{version.version}{mark}.yaml").write_text(version.text, encoding="utf-8")


def _export_journal(journal: Journal, place: Path) -> None:
    place.mkdir()
    for name, rows in journal.dump():
        with (place / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    _export_audit(journal, place / "changes.jsonl")


def _export_audit(journal: Journal, file: Path) -> None:
    with file.open("w", encoding="utf-8") as out:
        for line in journal.audits.each({}):
            told = {
                "at": datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds"),
                "side": str(line.side),
                "map": line.carrier.map,
                "version": line.carrier.version,
                "key": line.key,
                "what": line.what,
                "decision": line.verdict,
                "source": _columns(line.source),
                "target": _columns(line.target),
            }
            out.write(f"{json.dumps(told, ensure_ascii=False)}\n")


def _columns(images: Images | None) -> dict[str, dict[str, object]] | None:
    """Per column what was there before and after, as far as it is known."""
    if images is None:
        return None
    both = {path: {"before": old, "after": new} for path, (old, new) in images.items()}
    return {path: {when: cell for when, cell in each.items() if cell is not ABSENT} for path, each in both.items()}


def remove_journal(project: Project) -> None:
    """Delete the journal, and its folder where nothing else is in it; the lock must be held."""
    for path in reversed(list(_files(project.folder))):
        path.unlink(missing_ok=True)
    folder = project.folder / ".dualwrite"
    shutil.rmtree(folder / "syncs", ignore_errors=True)  # what an initial sync that was cut short had left to do
    with suppress(OSError):
        (folder / "engine.lock").unlink(missing_ok=True)
        folder.rmdir()
