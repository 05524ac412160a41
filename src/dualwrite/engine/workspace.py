"""A project opened for work: both systems, their schemas, the compiled maps, the journal.

Opening reads and connects; it writes nothing in either system.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import TypeVar

from dualwrite.connectors import connect
from dualwrite.connectors.base import Connector
from dualwrite.declared import complete
from dualwrite.engine.clocks import apart, difference
from dualwrite.engine.continuity import obstacles
from dualwrite.engine.data import DataCheck
from dualwrite.engine.edits import Edits
from dualwrite.engine.lifecycle import is_live, wants_to_run
from dualwrite.engine.link import Point, no_point
from dualwrite.engine.outage import silence
from dualwrite.engine.remembered import remember, remembered
from dualwrite.engine.retention import over_budget, retained_by, short_of_room
from dualwrite.engine.schemas import RUNS_ON, report, schema_changed
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.syncs import Watch, quiet
from dualwrite.engine.versions import keep
from dualwrite.errors import DualwriteError, Invalid, Problem, Unavailable, Usage
from dualwrite.journal import Journal, Lease, MapState
from dualwrite.journal.database import FOLDER
from dualwrite.mapping.check import check_maps
from dualwrite.mapping.compile import CompiledMap, compile_map, order_maps
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Side
from dualwrite.names import guess
from dualwrite.project import Project, load
from dualwrite.schema import Schema

_T = TypeVar("_T")


def _nobody(_: str) -> None:
    """Told, and heard by nobody."""


@dataclass
class Workspace:
    """An open project.  ``maps`` are those that compile, parents first; ``problems`` say why the others do not.

    ``who`` works with it; ``tell`` says a sentence to them.  ``absent`` are the systems that did not answer: their
    schemas are those of when an engine ran last.
    """

    project: Project
    connectors: Mapping[Side, Connector]
    schemas: Mapping[Side, Schema]
    maps: Mapping[str, CompiledMap]
    problems: list[Problem]
    journal: Journal
    lease: Lease
    who: str = ""
    tell: Callable[[str], None] = _nobody
    absent: Mapping[Side, Unavailable] = field(default_factory=dict)

    def chosen(self, names: Sequence[str]) -> list[CompiledMap]:
        """The maps of these names, all where none is given; raises Usage with the nearest name for an unknown one."""
        return [self.maps[name] for name in self._names(names)]

    def _names(self, names: Sequence[str]) -> list[str]:
        broken = {problem.map for problem in self.problems if problem.level == "error"} - self.maps.keys()
        wrong = broken.intersection(names)
        if wrong:
            raise Usage(f"map {min(wrong)} has errors", "see dualwrite check")
        return named(list(self.maps), names)

    def look_again(self) -> None:
        """Find out who answers by now."""
        asked = {side: silence(connector) for side, connector in self.connectors.items()}
        self.absent = {side: trouble for side, trouble in asked.items() if trouble is not None}

    @property
    def answering(self) -> Mapping[Side, Connector]:
        """The systems that answered."""
        return {side: connector for side, connector in self.connectors.items() if side not in self.absent}

    def states(self) -> dict[str, MapState]:
        """The state of every map of the project, those that never ran included, and of those that go on without their
        files."""
        known = self.journal.states()
        names = [table_map.name for table_map in self.project.maps]
        names += [name for name in self._broken() if name in known and name not in names]
        return {name: known.get(name) or MapState(name) for name in names}

    def numbers(self) -> dict[Side, int]:
        """The number of our last commit in each system: what the journal holds beyond it does not count.  One that does
        not answer is left out."""
        return {
            side: max((number for _, number in connector.positions().values()), default=0)
            for side, connector in self.answering.items()
        }

    def engine(self, point: Point = no_point, progress: Watch = quiet) -> Engine:
        """An engine for this link; to be opened by whoever holds the lease."""
        self._remember()
        return Engine(
            self.project.link,
            self.connectors,
            self._kept_maps(),
            self.journal,
            delete_limit=self.project.limits.deletes,
            share=self.project.limits.changes,
            updates=self.project.limits.updates,
            rounds=self.project.limits.rounds,
            audit=self.project.audit,
            broken=self._broken(),
            reload=self._reload,
            renew=self._renew if self.absent else None,
            compile=self._compiled,
            rescoped=partial(self._rescoped, Edits(self.project, attrgetter("companies"))),
            folder=self.project.folder / FOLDER / "syncs",
            point=point,
            progress=progress,
        )

    def _compiled(self, table_map: TableMap, schemas: Mapping[Side, Schema]) -> CompiledMap:
        return compiled(self.project, table_map, schemas, tolerated=RUNS_ON)

    def _rescoped(self, companies: Edits[tuple[str, ...]]) -> bool:
        """Does the project name other companies by now?  Maps are bound to these from here on."""
        with suppress(Invalid):  # whoever looks after the rest of the file tells it
            found = companies.changed()
            if found is not None:
                self.project = replace(self.project, companies=found)
                return True
        return False

    def _remember(self) -> None:
        """Note what the systems look like, for while one of them does not answer."""
        remember(self.journal, {side: each for side, each in self.schemas.items() if side not in self.absent})

    def _kept_maps(self) -> list[CompiledMap]:
        wanted = {name for name, state in self.states().items() if wants_to_run(state)}
        return [self.kept(one) if one.name in wanted else one for one in self.maps.values()]

    def _broken(self) -> dict[str, str]:
        """Why maps of the project cannot be had as their files say; a file that cannot be read may be that of any."""
        errors = [problem for problem in reversed(self.problems) if problem.level == "error"]
        named = {each.map: f"{each.code}: {each.message}" for each in errors if each.map}
        unread = next((f"{each.file}: {each.message}" for each in errors if each.file and not each.map), None)
        missing = self.journal.states().keys() - {each.name for each in self.project.maps}
        return {**({} if unread is None else dict.fromkeys(missing, unread)), **named}

    def _renew(self) -> tuple[Sequence[CompiledMap], Mapping[str, str]]:
        """The maps as the systems have them, now that both answer."""
        self.schemas = {side: connector.schema() for side, connector in self.connectors.items()}
        of_files = [problem for problem in self.problems if problem.file and not problem.map]
        self.problems = [*of_files, *problems_of(self.project, self.schemas)]
        self.maps = compiled_maps(self.project, self.schemas, self.problems)
        self.absent = {}
        self._remember()
        return self._kept_maps(), self._broken()

    def kept(self, compiled: CompiledMap) -> CompiledMap:
        """The map, after what its file says has become a version; what there is to say of its number is told."""
        version = keep(self.journal, compiled.table_map, self.who)
        if str(version):
            self.tell(str(version))
        return replace(compiled, table_map=version.table_map)

    def _reload(self, names: Collection[str]) -> Mapping[str, CompiledMap]:
        """The maps as files and systems have them by now; those of these names are about to be taken up."""
        project = load(self.project.folder)
        schemas = {side: connector.schema() for side, connector in self.connectors.items()}
        problems = check_maps(project.maps, schemas[Side.LEFT], schemas[Side.RIGHT])
        found = compiled_maps(project, schemas, problems)
        remember(self.journal, schemas)
        return {name: self.kept(one) if name in names else one for name, one in found.items()}

    def close(self) -> None:
        """Let go of everything.  Idempotent."""
        for connector in self.connectors.values():
            connector.close()
        self.lease.release()
        self.journal.close()


def named(known: Sequence[str], names: Sequence[str]) -> list[str]:
    """The maps of these names, in the order in which they are known, all where none is given; raises Usage with the
    nearest name for an unknown one."""
    if not names:
        return list(known)
    folded = {name.casefold(): name for name in known}
    unknown = next((name for name in names if name.casefold() not in folded), None)
    if unknown is not None:
        hint = guess(unknown, list(known)) or "see dualwrite status for the maps of this project"
        raise Usage(f"no map is called {unknown!r}", hint)
    wanted = {folded[name.casefold()] for name in names}
    return [name for name in known if name in wanted]


def connector_of(project: Project, side: Side) -> Connector:
    """The system on one side of a project."""
    place = project.environments[side]
    return connect(place.url, link=project.link, side=side, declared=project.declared.get(side), schema=place.schema)


@contextmanager
def opened(
    project: Project,
    who: str = "",
    tell: Callable[[str], None] = _nobody,
    found: Sequence[Problem] = (),
    *,
    patient: bool = False,
) -> Iterator[Workspace]:
    """Open a project and let go of it at the end.  Raises what the systems say; maps with errors are left out.

    ``found`` is what is wrong with its files.  ``patient``: a system that does not answer is taken to look as it did
    when an engine ran last, where one did.
    """
    with ExitStack() as stack:
        connectors = {side: connector_of(project, side) for side in Side}
        for connector in connectors.values():
            stack.callback(connector.close)
        schemas, absent = _schemas(project, connectors, patient)
        problems = [*found, *problems_of(project, schemas)]
        maps = compiled_maps(project, schemas, problems)
        journal, lease = Journal.open(project.folder), Lease(project.folder)
        workspace = Workspace(project, connectors, schemas, maps, problems, journal, lease, who, tell, absent)
        stack.callback(workspace.close)
        yield workspace


def _schemas(
    project: Project, connectors: Mapping[Side, Connector], patient: bool
) -> tuple[dict[Side, Schema], dict[Side, Unavailable]]:
    """What the systems look like, and which of them did not answer."""
    schemas: dict[Side, Schema] = {}
    absent: dict[Side, Unavailable] = {}
    for side, connector in connectors.items():
        try:
            schemas[side] = connector.schema()
        except Unavailable as trouble:
            known = last_schema(project, side) if patient else None
            if known is None:
                raise
            schemas[side], absent[side] = known, trouble
    return schemas, absent


def last_schema(project: Project, side: Side) -> Schema | None:
    """What a system looked like when an engine ran last; None where none did."""
    if not Journal.exists(project.folder):
        return None
    with Journal.open(project.folder) as journal:
        return remembered(journal, side)


def problems_of(project: Project, schemas: Mapping[Side, Schema]) -> list[Problem]:
    """What is wrong with what the project says of its systems."""
    return declaration_problems(project, schemas) + check_maps(project.maps, schemas[Side.LEFT], schemas[Side.RIGHT])


def declaration_problems(project: Project, schemas: Mapping[Side, Schema]) -> list[Problem]:
    """What the schema files declare although the systems do not have it."""
    return [p for side in Side if (d := project.declared.get(side)) for p in complete(schemas[side], d)[1]]


def compiled_maps(project: Project, schemas: Mapping[Side, Schema], problems: list[Problem]) -> dict[str, CompiledMap]:
    """The maps that have no errors, parents first; what compiling finds beyond the checks is added to ``problems``."""
    broken = {problem.map for problem in problems if problem.level == "error"}
    found = []
    for table_map in project.maps:
        if table_map.name in broken:
            continue
        try:
            found.append(compiled(project, table_map, schemas))
        except Invalid as invalid:
            problems.extend(invalid.problems)
    return {one.name: one for one in order_maps(found)}


def compiled(
    project: Project, table_map: TableMap, schemas: Mapping[Side, Schema], *, tolerated: Collection[str] = ()
) -> CompiledMap:
    """A map as a project's systems are; raises Invalid with every error but those with ``tolerated`` codes."""
    return compile_map(
        table_map,
        schemas[Side.LEFT],
        schemas[Side.RIGHT],
        companies=project.companies or None,
        conflict=project.conflict,
        timezones={side: place.timezone for side, place in project.environments.items()},
        tolerated=tolerated,
    )


def examine(project: Project, data: Watch | None = None) -> list[Problem]:
    """Everything that ``dualwrite check`` tells: prerequisites of both systems and all problems of all maps.

    With ``data``, which is told how far it is, also what in the data would hinder the maps that have no errors.
    """
    problems: list[Problem] = []
    connectors: dict[Side, Connector] = {}
    schemas: dict[Side, Schema] = {}
    for side in project.environments:
        found = _attempt(side, problems, partial(connector_of, project, side))
        if found is not None:
            connectors[side] = found
            schema = _schema(side, problems, found)
            if schema is not None:
                schemas[side] = schema
    try:
        if len(schemas) == len(Side):
            problems += problems_of(project, schemas)
            maps = compiled_maps(project, schemas, problems)
            for side, connector in connectors.items():
                problems += _health(side, connector, maps.values())
            problems += over_budget(retained_by(connectors), project.limits.retained)
            problems += short_of_room(project.folder)
            problems += apart(difference(connectors))
            told = {(problem.side, problem.remedy) for problem in problems if problem.side and problem.remedy}
            problems += [each for each in _obstacles(project, connectors) if (each.side, each.remedy) not in told]
            problems += _drift(project, schemas, maps)
            if data is not None:
                problems += DataCheck(connectors, schemas, list(maps.values()), data, project.companies).problems()
        else:
            for side in schemas:
                problems += _health(side, connectors[side], ())
    finally:
        for connector in connectors.values():
            connector.close()
    return list(dict.fromkeys(problems))


def _attempt(side: Side, problems: list[Problem], action: Callable[[], _T]) -> _T | None:
    try:
        return action()
    except DualwriteError as trouble:
        problems.append(Problem("connection", trouble.message, trouble.remedy, side=str(side)))
        return None


def _schema(side: Side, problems: list[Problem], connector: Connector) -> Schema | None:
    """A system's schema; where it cannot be read, the system's health says best why."""
    trouble: list[Problem] = []
    schema = _attempt(side, trouble, connector.schema)
    if schema is None:
        health = _health(side, connector, ())
        problems += health if any(problem.level == "error" for problem in health) else trouble
    return schema


def _obstacles(project: Project, connectors: Mapping[Side, Connector]) -> list[Problem]:
    """What keeps a link that has run from going on; nothing where it never ran, or an engine runs it."""
    if not Journal.exists(project.folder) or Lease(project.folder).owner() is not None:
        return []
    try:
        journal = Journal.open(project.folder)
    except DualwriteError as trouble:
        return [Problem("journal", trouble.message, trouble.remedy)]
    try:
        return obstacles(journal, connectors)
    finally:
        journal.close()


def _drift(project: Project, schemas: Mapping[Side, Schema], maps: Mapping[str, CompiledMap]) -> list[Problem]:
    """What has changed in the tables of maps that are carried, since an engine looked at them."""
    if not Journal.exists(project.folder):
        return []
    try:
        with Journal.open(project.folder) as journal:
            live = [state.map for state in journal.states().values() if is_live(state)]
            found = report(journal, schemas, maps, live)
    except DualwriteError:  # told elsewhere
        return []
    return [schema_changed(each.map, one) for each in found for one in each.differences]


def _health(side: Side, connector: Connector, maps: Iterable[CompiledMap]) -> list[Problem]:
    views = [compiled.views[side] for compiled in maps]
    problems: list[Problem] = []
    found = _attempt(side, problems, lambda: connector.health(views))
    return problems + (found or [])
