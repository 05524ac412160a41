"""What people ask of a link: done by the running engine where there is one, else here.

Each command is a function of an open engine whose flows stand still, a mapping of arguments (plain JSON values, since
they may come from another process) and an answer of the same kind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from dualwrite.engine import wishes
from dualwrite.engine.agreeing import AGREE, Do, agree, agree_on, refuse_unless_running
from dualwrite.engine.as_user import shown
from dualwrite.engine.brakes import allowed, refuse_changes, used
from dualwrite.engine.data import DataCheck
from dualwrite.engine.editing import edit
from dualwrite.engine.initial_syncs import master_of
from dualwrite.engine.lifecycle import refuse_unless_allowed
from dualwrite.engine.link import chunks, key_of
from dualwrite.engine.outage import trouble_of
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.syncs import Watch, quiet
from dualwrite.engine.undo import undo, undo_conflict
from dualwrite.engine.verify import Report
from dualwrite.engine.wishes import RECONCILE
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import Braked, DualwriteError, Problem, Unavailable, Usage
from dualwrite.journal import Conflict, Images, Journal, Lease, Parked
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Side

Answer = Mapping[str, object]
ANSWER_WITHIN = 3600.0
"""Seconds that a command waits for the running engine: an initial sync may come first."""
IN_A_PART = 1_000
"""Parked records that are taken while the flows stand still."""
LOOK_EVERY = 1.0
"""Seconds after which it looks whether the engine waits itself."""


def _reconcile(engine: Engine, _arguments: Mapping[str, object]) -> Answer:
    return {"synced": len(engine.reconcile())}


def _drain(engine: Engine, _arguments: Mapping[str, object]) -> Answer:
    engine.drain()
    return {}


def chosen_of(journal: Journal, numbers: Mapping[Side, int], which: Mapping[str, object]) -> Iterator[Parked]:
    """The parked records that are meant: by ``map``, ``code``, ``side``, ``column``, ``key`` (as it is shown) and
    ``before`` (parked before this time), and with ids behind ``after`` and up to ``until``; what is not said is any."""
    name, code, side, column, key = (
        None if which.get(one) is None else str(which[one]) for one in ("map", "code", "side", "column", "key")
    )
    before = None if which.get("before") is None else float(str(which["before"]))
    after, until = (None if which.get(one) is None else int(str(which[one])) for one in ("after", "until"))
    of_side = None if side is None else Side(side)
    return journal.each_parked(
        numbers, name, of_side, code=code, column=column, shown_key=key, before=before, after=after, until=until
    )


def _parked(engine: Engine, arguments: Mapping[str, object]) -> list[Parked]:
    ids = arguments.get("ids")
    if not isinstance(ids, list):
        return list(chosen_of(engine.journal, {}, arguments))
    found = engine.journal.parked({}, ids=ids)
    missing = set(ids) - {entry.id for entry in found}
    if missing:
        raise Usage(f"nothing is parked under {', '.join(map(str, sorted(missing)))}", "see dualwrite parked list")
    return found


def _records(entries: Sequence[Parked]) -> dict[Side, list[tuple[str, Key]]]:
    records: dict[Side, list[tuple[str, Key]]] = {}
    for entry in entries:
        records.setdefault(entry.side, []).append((entry.map, key_of(entry.key)))
    return records


def _retry(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    chosen = _parked(engine, arguments)
    freed = engine.retry(_records(chosen))
    return {"tried": len(chosen), "freed": freed}


def _discard(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    chosen = _parked(engine, arguments)
    who = str(arguments.get("who", ""))
    with engine.journal.batch() as batch:
        for entry in chosen:
            detail = {"key": entry.key, "side": str(entry.side), "changes": entry.changes, "reason": entry.reason}
            batch.log("parked changes discarded", map=entry.map, who=who, detail=detail)
    return {"discarded": engine.discard(_records(chosen))}


def _edit(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    values, who = arguments["values"], str(arguments.get("who", ""))
    assert isinstance(values, dict)
    (entry,) = _parked(engine, {"ids": [arguments["id"]]})
    done = edit(engine, entry, values, who)
    return {"side": str(done.side), "columns": _columns(done.columns), "freed": done.is_free}


def _resolve(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    number, winner = arguments["id"], Side(str(arguments["winner"]))
    conflict = next(iter(engine.journal.conflicts({}, id=int(str(number)))), None)
    if conflict is None:
        raise Usage(f"there is no conflict {number}", "see dualwrite conflicts list --open")
    record = (conflict.map, key_of(conflict.key))
    if conflict.open:
        decide(engine, conflict, winner, str(arguments.get("who", "")))
    elif not conflict.winner:
        raise Usage(
            f"nothing waits for conflict {number} any more: what was parked for it has been dropped",
            "each side has what it had; dualwrite verify --repair left or right makes them agree",
        )
    elif conflict.winner != winner or all(record not in side.parked for side in engine.link.sides.values()):
        raise Usage(f"already decided: conflict {number}", "see dualwrite conflicts list --open")
    freed = engine.retry({side: [record] for side in Side})
    return {"winner": str(winner), "freed": freed}


def decide(engine: Engine, conflict: Conflict, winner: Side, who: str) -> None:
    """Write a person's decision down; both flows will follow it."""
    assert conflict.loser is not None
    assert conflict.beats is not None
    covers = {Side.LEFT: conflict.loser, Side.RIGHT: conflict.beats}
    with engine.journal.batch() as batch:
        batch.decide(conflict.map, conflict.key, conflict.unit, winner, covers, who)
        batch.close_conflict(conflict.id, winner.value, conflict.side, 0)
        detail = {"key": conflict.key, "column": conflict.unit, "winner": str(winner)}
        batch.log("conflict resolved", map=conflict.map, who=who, detail=detail)
    engine.link.read_decisions()


def _undo(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    who, conflict = str(arguments.get("who", "")), arguments.get("conflict")
    done = (
        undo(engine, str(arguments["change"]), who)
        if conflict is None
        else undo_conflict(engine, int(str(conflict)), who)
    )
    return {"side": str(done.side), "columns": _columns(done.columns), "kind": done.kind}


def _columns(images: Images) -> Mapping[str, Sequence[str]]:
    """By column what it held and what it holds now, in words."""
    return {path: [shown(old), shown(new)] for path, (old, new) in images.items()}


def _refresh(engine: Engine, arguments: Mapping[str, object]) -> Answer:
    """Raises Drifted where maps are to be taken up anew first: the runner does so, and asks again."""
    names = arguments["maps"]
    assert isinstance(names, list)
    engine.refresh(names)
    engine.look_again()
    engine.drain()
    return {}


COMMANDS: Mapping[str, Callable[[Engine, Mapping[str, object]], Answer]] = {
    RECONCILE: _reconcile,
    "drain": _drain,
    "retry": _retry,
    "discard": _discard,
    "edit": _edit,
    "resolve": _resolve,
    "undo": _undo,
    AGREE: agree_on,
    "refresh": _refresh,
}


def execute(engine: Engine, command: str, arguments: Mapping[str, object]) -> Answer:
    """Do a command on an open engine; raises Usage for an unknown one."""
    if command not in COMMANDS:
        raise Usage(f"the running engine does not know {command!r}", "run the same version of dualwrite everywhere")
    return COMMANDS[command](engine, arguments)


def ask(workspace: Workspace, command: str, arguments: Mapping[str, object]) -> Answer:
    """Have a command done: by the running engine, or by an engine of our own where none is running.

    Raises what the command raises.
    """
    with _asking(workspace) as do:
        return do(command, arguments)


def ask_in_parts(workspace: Workspace, command: str, which: Mapping[str, object]) -> Mapping[str, int]:
    """As ``ask``, what is to be done to parked records, however many they are: some at a time, so that a running engine
    carries what comes meanwhile.  The numbers that are answered are added up."""
    with _asking(workspace) as do:
        return _in_parts(workspace.journal, do, command, which)


def _in_parts(journal: Journal, do: Do, command: str, which: Mapping[str, object]) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    ids = [] if which.get("ids") else [entry.id for entry in chosen_of(journal, {}, which)]
    bounds = [{"after": some[0] - 1, "until": some[-1]} for some in chunks(ids, IN_A_PART)]
    for part in bounds or [{}]:
        answer = do(command, {**which, **part})
        found.update({name: int(str(number)) for name, number in answer.items()})
    return found


def repair(workspace: Workspace, reports: Sequence[Report], master: Side) -> None:
    """Make the records agree that a comparison has found to differ, with the values of ``master``."""
    journal = workspace.journal
    with _asking(workspace) as do:
        for report in reports:
            compiled = workspace.maps[report.map]
            _, done = agree(journal, workspace.connectors, compiled, master, "repair", do, report=report)
            created, changed = sum(done.created.values()), sum(done.changed.values())
            detail = {"master": str(master), "created": created, "changed": changed}
            journal.log("repaired", map=report.map, who=workspace.who, detail=detail)
        do("drain", {})


def sync_again(workspace: Workspace, names: Sequence[str], master: Side | None, *, leave_parked: bool) -> list[int]:
    """Initial syncs of maps that run: what is missing or differs, and what failed unless that is left aside.

    Returns their ids.  Raises Usage, with nothing written, where so much must not be changed unasked.
    """
    journal, states, ids = workspace.journal, workspace.states(), list[int]()
    refuse_unless_running(states[name] for name in names)
    with _asking(workspace) as do:
        for name in names:
            chosen = master or master_of(states[name])
            freed = 0 if leave_parked else _in_parts(journal, do, "retry", {"map": name})["freed"]
            share, let = workspace.project.limits.changes, allowed(journal, name)
            allowance = partial(refuse_changes, name, share=share, allowed=let, command="syncs again")
            try:
                id, done = agree(
                    journal, workspace.connectors, workspace.maps[name], chosen, "again", do, allowance=allowance
                )
            except Braked as braked:  # the map goes on
                raise Usage(f"map {name}: {braked.message}", braked.remedy) from None
            used(journal, name)
            detail: dict[str, object] = {"master": str(chosen), "freed": freed}
            detail |= {what: sum(getattr(count, what) for count in done.counts) for what in ("inserted", "updated")}
            journal.log("initial sync done again", map=name, who=workspace.who, detail=detail)
            ids.append(id)
        do("drain", {})
    return ids


@contextmanager
def _asking(workspace: Workspace) -> Iterator[Do]:
    """How commands are done: by the running engine, or by one of our own that is open meanwhile."""
    if not workspace.lease.acquire():
        yield partial(_ask_running, workspace.journal)
        return
    engine = workspace.engine()
    try:
        engine.open()
        yield partial(execute, engine)
    finally:
        engine.close()
        workspace.lease.release()


def _ask_running(journal: Journal, command: str, arguments: Mapping[str, object]) -> Answer:
    answer = journal.await_answer(journal.request(command, arguments), ANSWER_WITHIN)
    if answer is None:
        raise Unavailable(f"the running engine has not answered {command!r}", "see dualwrite log")
    _raise_refusal(answer)
    return answer


def settle_with(workspace: Workspace) -> Callable[[], bool]:
    """Waits until a running engine has carried everything committed by now; False where none is running."""

    def settle() -> bool:
        if workspace.lease.owner() is None:
            return False
        ask(workspace, "drain", {})
        return True

    return settle


def start(
    workspace: Workspace, maps: Sequence[CompiledMap], *, master: Side | None, initial_sync: bool, who: str
) -> None:
    """Wish these maps to run.  A running engine makes it so before this returns; otherwise the next one does."""
    names = [compiled.name for compiled in maps]
    refuse_unless_allowed("start", wishes.states_of(workspace.journal, names))
    for compiled in maps:
        workspace.kept(compiled)
    wishes.start(workspace.journal, names, master=master, initial_sync=initial_sync, who=who)
    make_so(workspace.journal, workspace.lease)


def key_problems(workspace: Workspace, maps: Sequence[CompiledMap], progress: Watch = quiet) -> list[Problem]:
    """What is wrong with the keys of these maps' records: an initial sync finds that out by itself.

    Reads the tables of both sides, and writes nothing.
    """
    check = DataCheck(workspace.connectors, workspace.schemas, list(workspace.maps.values()), progress)
    return [problem for compiled in maps for problem in check.keys(compiled)]


def stop(workspace: Workspace, maps: Sequence[CompiledMap], *, who: str) -> None:
    """Wish these maps not to run."""
    wishes.stop(workspace.journal, [compiled.name for compiled in maps], who=who)
    if not make_so(workspace.journal, workspace.lease):
        ask(workspace, RECONCILE, {})  # what is tracked for a stopped map ends now, not with the next run


def make_so(journal: Journal, lease: Lease) -> bool:
    """Wait until a running engine has made so what is wanted; False where none is running.

    An engine that waits itself, for a system that does not answer, is not waited for: it does so later.
    """
    if lease.owner() is None:
        return False
    number, end = wishes.tell(journal), time.monotonic() + ANSWER_WITHIN
    while (answer := journal.await_answer(number, LOOK_EVERY)) is None:
        if trouble_of(journal) is not None or lease.owner() is None or time.monotonic() > end:
            return True
    _raise_refusal(answer)
    return True


def _raise_refusal(answer: Answer) -> None:
    if "error" in answer:
        kind = Usage if answer.get("usage") else DualwriteError
        raise kind(str(answer["error"]), str(answer.get("remedy", "")))
