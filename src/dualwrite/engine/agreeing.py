"""Making both sides of maps that run agree, while everything flows on.

Whoever asks for it compares the sides, beside the engine.  What differs is looked at again by the engine, some records
at a time: only meanwhile do its flows stand still, and what it finds becomes weak changes, as in every initial sync.
So what users do, and what they have done since the sides were compared, is carried as ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from dualwrite.connectors.base import Connector, Snapshot
from dualwrite.engine.brakes import Allowance, unasked
from dualwrite.engine.compare import Difference
from dualwrite.engine.initial import InitialSync, Outcome, overwrites
from dualwrite.engine.lifecycle import is_delayed, is_live
from dualwrite.engine.link import chunks
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.syncs import counts, quiet, recorded
from dualwrite.engine.verify import Report, verify
from dualwrite.errors import Busy, GivenUp, RowProblem, Usage
from dualwrite.journal import Journal, MapState
from dualwrite.journal.syncs import Why
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Position, Row, Side

Do: TypeAlias = Callable[[str, Mapping[str, object]], Mapping[str, object]]
"""Has a command done by the engine."""
AGREE: Final = "agree"
"""The command about some records of a map."""
IN_A_PART: Final = 1_000
"""Records that are looked at while the flows stand still."""


def refuse_unless_running(states: Iterable[MapState]) -> None:
    """Raises Usage where one of these maps does not run: what queues for it would be taken for a difference."""
    for state in states:
        if not is_live(state):
            raise Usage(
                f"map {state.map} is not running",
                "start it: its initial sync makes both sides agree; or name the maps that run",
            )
        if is_delayed(state):
            raise Usage(f"changes of map {state.map} are queued", "resume it, and wait until it has caught up")


def agree(
    journal: Journal,
    connectors: Mapping[Side, Connector],
    compiled: CompiledMap,
    master: Side,
    why: Why,
    do: Do,
    *,
    report: Report | None = None,
    allowance: Allowance = unasked,
) -> tuple[int, Outcome]:
    """Make the records of a map that runs agree; differing values are taken from ``master``.

    Returns the id of its initial sync, and what that has done.  ``report`` is what a comparison has found already.
    What is parked stays so.  Raises Braked, with nothing written, where the ``allowance`` refuses.
    """

    def settle() -> bool:
        do("drain", {})
        return True

    settle()
    with recorded(journal, compiled, master, why, quiet) as recorder:
        if report is None:
            report = verify(compiled, connectors, settle, partial(recorder, compiled.name, "compare", total=0))
        tally = report.tally
        allowance(
            Counter(side for each in report.differences for side in overwrites(compiled, master, each)), tally.read
        )
        first: Mapping[Side, Position] | None = None
        done, total = 0, len(report.differences) + len(report.unusable)
        for some, keys in _in_parts(compiled, report):
            answer = do(AGREE, {"map": compiled.name, "master": master.value, "keys": keys})
            assert isinstance(answer["first"], Mapping)
            assert isinstance(answer["companies"], Mapping)
            first = first or {side: Position.parse(answer["first"][side.value]) for side in Side}
            for company, found in answer["companies"].items():
                tally.companies.setdefault(company, Counter()).update(found)
            done += some
            recorder(compiled.name, str(master.other), done, total)
        recorder.counts = counts(journal, compiled, tally, first, is_part=False)
    return recorder.id, Outcome(tally, recorder.counts)


def _in_parts(compiled: CompiledMap, report: Report) -> Iterator[tuple[int, Mapping[str, Sequence[Key]]]]:
    """The keys of what differs, or cannot be compared, for each side; some records at a time, with their number."""
    for block in report.differences.blocks():
        for differences in chunks(block, IN_A_PART):
            yield len(differences), _keys(compiled, [_rows(each) for each in differences])
    for unusable in report.unusable.blocks():
        for some in chunks(unusable, IN_A_PART):
            yield len(some), _keys(compiled, [{each.side: each.rows} for each in some])


def _rows(difference: Difference) -> dict[Side, Sequence[Row]]:
    return {side: [row] for side in Side if (row := difference.row(side)) is not None}


def _keys(compiled: CompiledMap, records: Sequence[Mapping[Side, Sequence[Row]]]) -> dict[str, list[Key]]:
    """By which keys each side may have these records: their own, and those of their counterparts."""
    keys: dict[Side, dict[Key, None]] = {side: {} for side in Side}
    for record in records:
        for side, rows in record.items():
            for row in rows:
                keys[side][compiled.views[side].natural_key(row)] = None
                with suppress(RowProblem):  # without a usable key it has no counterpart
                    keys[side.other][compiled.target_key(side, row)] = None
    return {side.value: list(found) for side, found in keys.items()}


# -- in the engine -----------------------------------------------------------------------------------------------------


class Chosen:
    """Of what a snapshot contains, the records with some keys that pass the map's filter, each once."""

    def __init__(self, snapshot: Snapshot, compiled: CompiledMap, side: Side, keys: Sequence[Key]) -> None:
        self._snapshot = snapshot
        self._compiled = compiled
        self._side = side
        self._keys = keys

    def blocks(self) -> Iterator[Sequence[Row]]:
        """See ``Snapshot``."""
        found: dict[Key, list[Row]] = {}
        for rows in self._snapshot.fetch(self._keys).values():
            own: dict[Key, list[Row]] = {}
            for row in rows:
                if self._compiled.passes(self._side, row):
                    own.setdefault(self._compiled.views[self._side].natural_key(row), []).append(row)
            found |= own  # two keys may find the same record
        if found:
            yield [row for rows in found.values() for row in rows]


def agree_on(engine: Engine, arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Make these records of a map agree; the flows stand still.

    Raises GivenUp where users keep one of them locked: the link is to be taken up anew, and what was carried stays.
    """
    name, master, keys = str(arguments["map"]), Side(str(arguments["master"])), arguments["keys"]
    assert isinstance(keys, Mapping)
    compiled = engine.link.maps.get(name)
    refuse_unless_running([engine.journal.states()[name] if compiled is not None else MapState(name)])
    assert compiled is not None
    engine.carry_committed()  # what is on its way when the sides are read is left to the flows
    chosen = {side: [tuple(key) for key in keys[side.value]] for side in Side}
    sync = InitialSync(
        engine.link,
        engine.flows,
        compiled,
        master,
        is_live=True,
        chosen=lambda side, snapshot: Chosen(snapshot, compiled, side, chosen[side]),
    )
    try:
        sync.compare()
        outcome = sync.apply()
    except Busy as trouble:
        remedy = "ask again when its users have ended their transaction: what agrees by then is left alone"
        raise GivenUp(f"map {name}: users keep a record locked: {trouble.message}", remedy) from trouble
    finally:
        sync.close()
    done = {
        company: {what: number for what, number in found.items() if what.startswith(("created ", "changed "))}
        for company, found in outcome.tally.companies.items()
    }
    return {"first": {side.value: str(at) for side, at in outcome.first.items()}, "companies": done}
