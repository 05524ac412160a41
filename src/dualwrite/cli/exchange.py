"""The commands by which maps come in and go out: the formats of Dual-write, and the library of published maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from dualwrite import library, printing
from dualwrite.cli.maps import Map, maps_app, readable
from dualwrite.cli.session import HERE, Folder, Include, Json, KeysFile, NoValues, finish
from dualwrite.errors import Invalid, Problem, Usage
from dualwrite.mapping import d365
from dualwrite.mapping.d365 import Imported, newest, read_export, write_rows
from dualwrite.mapping.d365_keys import Keys, read_keys, with_key
from dualwrite.mapping.offline import check_alone
from dualwrite.mapping.tablemap import TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.names import guess
from dualwrite.project import Project, new_file, text_of_file

library_app = typer.Typer(help="Published maps, ready to use.", no_args_is_help=True)
maps_app.add_typer(library_app, name="library")
EXPORTED: Final = 100_000_000
"""Bytes of the largest export that is read."""
Exports = Annotated[list[Path], typer.Argument(help="JSON files.", metavar="FILE")]
Maps = Annotated[list[str] | None, typer.Argument(help="Names of maps; all when none is given.", metavar="MAP")]


def imported(files: Iterable[Path], keys: Keys | None) -> tuple[list[TableMap], list[Problem]]:
    """The newest version of every map in the files, with its key, and all that was said about them."""
    maps: list[TableMap] = []
    problems: list[Problem] = []
    for file in files:
        found = _read(file)
        maps += [replace(each, file=str(file)) for each in found.maps]
        problems += found.problems
    chosen, others = newest(maps)
    for other in others:
        meaning, remedy = d365.CODES["older_version"]
        message = f"version {other.version} of {other.name} is left out: {meaning[:1].lower()}{meaning[1:]}"
        problems.append(Problem("older_version", message, remedy, "warning", other.file, map=other.name))
    return [with_key(each, keys) if keys is not None else each for each in chosen], problems


def _read(file: Path) -> Imported:
    problems: list[Problem] = []
    text = text_of_file(file, problems, EXPORTED)
    try:
        return read_export(text, str(file)) if text is not None else Imported(str(file), problems=problems)
    except Invalid as invalid:
        return Imported(str(file), problems=list(invalid.problems))


def keys_in(file: Path | None) -> Keys | None:
    """The integration keys in a file; raises Invalid."""
    if file is None:
        return None
    problems: list[Problem] = []
    text = text_of_file(file, problems, EXPORTED)
    if text is None:
        raise Invalid(problems)
    return read_keys(text, str(file))


def examined(files: Iterable[Path], keys: Path | None) -> list[Problem]:
    """What is wrong or doubtful about exports, by themselves."""
    maps, problems = imported(files, known := keys_in(keys))
    told = {(problem.code, problem.map) for problem in problems}
    return problems + [each for each in check_alone(maps, known) if (each.code, each.map) not in told]


@maps_app.command("import")
def maps_import(
    files: Exports,
    keys: KeysFile = None,
    over: Annotated[bool, typer.Option("--replace", help="Replace maps that are there already.")] = False,
    folder: Folder = HERE,
) -> None:
    """Take maps over from Dual-write.

    Reads stored maps, rows of `msdyn_dualwriteentitymap` as the Web API returns them, and published maps.  Nothing of
    them is lost: what a map file cannot say is kept in it.
    """
    project = readable(folder)
    maps, problems = imported(files, keys_in(keys))
    present = {each.name.casefold(): each for each in project.maps}
    clashing = [each.name for each in maps if each.name.casefold() in present]
    if clashing and not over:
        raise Usage(f"there is a map {clashing[0]!r} already", "say --replace, or remove its file first")
    for table_map in maps:
        before = present.get(table_map.name.casefold())
        after = settled(table_map, before) if before else table_map
        file = Path(before.file) if before else new_file(project, table_map.name)
        written(file, write_map(after), anew=before is None)
    printing.problems.problems(problems)
    if maps:
        printing.said(f"{len(maps)} map(s) imported; next: look at them, then dualwrite check")
    finish(bool(maps) and not any(problem.level == "error" for problem in problems))


def settled(table_map: TableMap, before: TableMap) -> TableMap:
    """An imported map with what an export does not know, as the map that it replaces has it."""
    return replace(
        table_map,
        publisher=table_map.publisher or before.publisher,
        company=table_map.company or before.company,
        key=table_map.key or before.key,
        conflict=before.conflict,
        rows=before.rows,
        deletes=before.deletes,
        on_leave=before.on_leave,
        extra={**before.extra, **table_map.extra},
    )


@maps_app.command("propose")
def maps_propose(
    include: Include = None,
    no_values: NoValues = False,
    folder: Folder = HERE,
) -> None:
    """Propose maps for tables that are in no map yet.

    As `init` does.  No file of the project is overwritten.
    """
    from dualwrite.engine.proposing import proposed

    project = readable(folder)
    proposal = proposed(project, include or (), values=not no_values)
    printing.projects.proposal(proposal)
    for table_map in proposal.maps:
        remarks = [str(remark) for remark in proposal.remarks[table_map.name]]
        written(new_file(project, table_map.name), write_map(table_map, remarks), anew=True)
    printing.projects.follows(proposal)


def written(file: Path, text: str, *, anew: bool) -> None:
    """Write a map's file, and say so; never over another one when it is written anew."""
    try:
        with file.open("x" if anew else "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise Usage(f"cannot write {file}: {error.strerror}", "create the folder, or give it the rights") from error
    printing.said(f"wrote {file}")


def meant(project: Project, names: Sequence[str] | None) -> list[TableMap]:
    """The maps of these names, all where none is given; raises Usage for an unknown one."""
    return [found(project.maps, name, "see dualwrite maps list") for name in names] if names else list(project.maps)


def found(maps: Sequence[TableMap], name: str, else_: str) -> TableMap:
    """The map of that name; raises Usage with the nearest one."""
    known = {each.name.casefold(): each for each in maps}
    if name.casefold() not in known:
        near = [each.name for word, each in known.items() if name.casefold() in word]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if 0 < len(near) <= 5 else ""
        raise Usage(f"no map is called {name!r}", hint or guess(name, [each.name for each in maps]) or else_)
    return known[name.casefold()]


@maps_app.command("export")
def maps_export(
    maps: Annotated[
        list[str] | None, typer.Argument(help="Names of maps; all when none is given.", metavar="MAP")
    ] = None,
    bare: Annotated[bool, typer.Option("--bare", help="The stored maps alone, without their rows.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="Write to a file.", metavar="FILE")] = None,
    folder: Folder = HERE,
) -> None:
    """Write maps as Dual-write stores them.

    A list of rows of `msdyn_dualwriteentitymap`, as JSON.  What Dual-write has no place for is told.
    """
    exported = write_rows(meant(readable(folder), maps))
    text = printing.maps.export_text(exported.rows, bare=bare)
    if output is None:
        printing.verbatim(text)
    else:
        written(output, text, anew=False)
    printing.problems.problems(exported.problems)


@maps_app.command("show")
def maps_show(name: Map, folder: Folder = HERE, as_json: Json = False) -> None:
    """Show a map: its tables, key, filters and columns."""
    table_map = found(readable(folder).maps, name, "see dualwrite maps list")
    printing.json_out(printing.maps.map_shown_json(table_map)) if as_json else printing.maps.map_shown(table_map)


@library_app.command("list")
def library_list(as_json: Json = False) -> None:
    """List the published maps."""
    printing.json_out(printing.maps.maps_json(library.maps())) if as_json else printing.maps.maps(library.maps())


@library_app.command("add")
def library_add(
    names: Annotated[list[str], typer.Argument(help="Names, as in `maps library list`.", metavar="NAME")],
    folder: Folder = HERE,
) -> None:
    """Add published maps to the project.

    No map of the project is ever overwritten.
    """
    project = readable(folder)
    wanted = {
        each.name: each for name in names for each in [found(library.maps(), name, "see dualwrite maps library list")]
    }
    present = {each.name.casefold(): each for each in project.maps}
    for name in wanted:
        if name.casefold() in present:
            raise Usage(f"there is a map {name!r} already", f"it stands in {present[name.casefold()].file}")
    for name, table_map in wanted.items():
        written(new_file(project, name), library.texts()[table_map.file], anew=True)
