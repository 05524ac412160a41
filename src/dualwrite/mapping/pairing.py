"""Which tables of two schemas belong together: by their names, else by their columns and the values of their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from dualwrite.losses import incompatible
from dualwrite.mapping.evidence import Samples, normal
from dualwrite.mapping.likeness import Names, forms
from dualwrite.mapping.paths import candidate_keys, is_id
from dualwrite.model import Side
from dualwrite.schema import Column, Table, TypeName

NO_NAME: Final = "has no table of that name on the"
LEAST: Final = 0.5
"""Tables that are less alike than this are not paired."""
LEAST_LOOKS: Final = 0.3
"""The same, where nothing but names and types speaks; of 74 published maps, nearly all such pairs are right."""
MARGIN: Final = 0.1
"""By how much a pair has to be better than its rivals."""
COMMON: Final = 10
"""Tables with a column of the same name, from which on that name says nothing."""
SAMPLED: Final = 200
"""Tables of a side without counterpart, up to which their keys' values are looked at."""
LEAST_COLUMN: Final = 0.4
"""Columns that are less alike than this are not."""
ALIKE_COLUMNS: Final = 3
"""Columns that must be alike where nothing but columns speaks for a pair of tables."""
FEW: Final = 5
"""Columns or values in common, below which nothing is concluded from them alone."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The tables that belong together, and sentences about the others.  ``looks``: those that only look alike."""

    tables: list[tuple[Table, Table]]
    skipped: list[str]
    looks: frozenset[tuple[str, str]]


Taken: TypeAlias = Mapping[Side, Collection[str]]
"""Tables of each side that are in a map already."""


def table_pairs(samples: Samples, include: Sequence[str], taken: Taken) -> Paired:
    """Which tables belong together, but those that are taken; ``include`` are patterns of their names."""
    left, right = (_free(samples.schemas[side].tables, taken.get(side, ())) for side in Side)
    pairs: list[tuple[Table, Table]] = []
    skipped: list[str] = []
    lonely: list[Table] = []
    seen: set[str] = set()
    lefts, rights = _Names(left), _Names(right)
    for table in left.values():
        candidates = rights.alike(table.name)
        seen.update(candidates)
        if not _included(include, table.name, *candidates):
            continue
        reason = _rivals(table.name, candidates, lefts) if candidates else None
        if not candidates:
            lonely.append(table)
        elif reason is None:
            pairs.append((table, right[candidates[0]]))
        else:
            skipped.append(f"{table.name} on the left {reason}.")
    others = [table for name, table in right.items() if name not in seen and _included(include, name)]
    strangers = _Strangers(samples, lonely, others)
    told = strangers.pairs()
    if include and not pairs and len(lonely) == len(others) == 1:
        told = {(lonely[0].name, others[0].name): "--include names no others"}
    looks = strangers.looks(told)
    found = {**told, **looks}
    paired = [{pair[at] for pair in found} for at in (0, 1)]
    skipped += [f"{one.name} on the left {NO_NAME} right." for one in lonely if one.name not in paired[0]]
    skipped += [f"{one.name} on the right {NO_NAME} left." for one in others if one.name not in paired[1]]
    skipped += [f"{a} and {b} have other names, but {why}." for (a, b), why in found.items()]
    tables = pairs + [(left[a], right[b]) for a, b in found]
    return Paired(tables, skipped, frozenset(looks))


def _free(tables: Mapping[str, Table], taken: Collection[str]) -> dict[str, Table]:
    return {name: table for name, table in tables.items() if name not in taken}


def _rivals(name: str, candidates: Sequence[str], lefts: _Names) -> str | None:
    """Why it is not clear which table a left one belongs to; None where it is."""
    if len(candidates) > 1:
        return f"could be any of {', '.join(candidates)}"
    rivals = [rival for rival in lefts.alike(candidates[0]) if rival != name]
    return f"could be {candidates[0]}, and so could {', '.join(rivals)}" if rivals else None


class _Names:
    """The names of a schema's tables, by the spellings under which they match."""

    def __init__(self, known: Iterable[str]) -> None:
        self._by_form: dict[str, list[str]] = {}
        for name in known:
            for form in forms(name):
                self._by_form.setdefault(form, []).append(name)

    def alike(self, name: str) -> list[str]:
        """Those that match a name best: all letters, else without a prefix."""
        mine = forms(name)
        ranked: dict[int, list[str]] = {}
        for candidate in dict.fromkeys(each for form in mine for each in self._by_form.get(form, ())):
            rank = 0 if candidate == name else 1 if mine[0] == forms(candidate)[0] else 2
            ranked.setdefault(rank, []).append(candidate)
        return ranked[min(ranked)] if ranked else []


def _included(include: Sequence[str], *names: str) -> bool:
    return not include or any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in include for name in names)


# --------------------------------------------------------------------------------------------------- strangers


class _Strangers:
    """Tables of both sides that have no counterpart by their names."""

    def __init__(self, samples: Samples, lefts: Sequence[Table], rights: Sequence[Table]) -> None:
        self._samples = samples
        self._tables = {Side.LEFT: {one.name: one for one in lefts}, Side.RIGHT: {one.name: one for one in rights}}
        self._names = Names(forms(one.name) for one in (*lefts, *rights))

    def pairs(self) -> Mapping[tuple[str, str], str]:
        """The names of each pair that no rival comes near, and why they are one."""
        return _unrivalled(self._scores(), LEAST)

    def looks(self, told: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """Further pairs, of which nothing but names and types speaks."""
        for at, side in enumerate(Side):
            paired = {pair[at] for pair in told}
            self._tables[side] = {name: one for name, one in self._tables[side].items() if name not in paired}
        return _unrivalled(self._likenesses(), LEAST_LOOKS)

    def _likenesses(self) -> Mapping[tuple[str, str], tuple[float, str]]:
        """How alike tables are by their names and those of their columns; nothing where there are too many tables."""
        if any(len(tables) > SAMPLED for tables in self._tables.values()):
            return {}
        columns = {side: {name: _own_columns(one) for name, one in self._tables[side].items()} for side in Side}
        spelled = [[c.name for some in columns[side].values() for c in some] for side in Side]
        likeness = Names(forms(name) for each in spelled for name in each).table(spelled[0], spelled[1], LEAST_COLUMN)
        found: dict[tuple[str, str], tuple[float, str]] = {}
        for a, mine in columns[Side.LEFT].items():
            for b, theirs in columns[Side.RIGHT].items():
                alike, fewest = _alike(likeness, mine, theirs), min(len(mine), len(theirs))
                share = sum(alike) / fewest if len(alike) >= ALIKE_COLUMNS else 0.0
                names = self._names.likeness(forms(a), forms(b))
                if share or names:
                    found[a, b] = ((share + names) / 2, _by_looks(names, len(alike), fewest))
        return found

    def _scores(self) -> Mapping[tuple[str, str], tuple[float, str]]:
        columns = {side: {name: _columns(one) for name, one in self._tables[side].items()} for side in Side}
        values = {side: {name: self._values(side, one) for name, one in self._tables[side].items()} for side in Side}
        shared = _shared(columns), _shared(values)
        found: dict[tuple[str, str], tuple[float, str]] = {}
        for a, b in {**shared[0], **shared[1]}:
            names = self._names.likeness(forms(a), forms(b))
            fewest = [min(len(words[Side.LEFT][a]), len(words[Side.RIGHT][b])) for words in (columns, values)]
            same = [shared[0][a, b], shared[1][a, b]]
            shares = [part / of if part >= FEW or of > part == 3 else 0 for part, of in zip(same, fewest, strict=True)]
            told = [f"{same[0]} of {fewest[0]} columns have the same names"] if shares[0] else []
            told += [f"{shares[1]:.0%} of their keys' values are the same"] if shares[1] else []
            found[a, b] = (0.4 * names + 0.6 * max(shares), " and ".join(told))
        return found

    def _values(self, side: Side, table: Table) -> frozenset[str]:
        """The values of the table's key, where it is one text; none where there are too many tables to look into."""
        if len(self._tables[side]) > SAMPLED:
            return frozenset()
        schema = self._samples.schemas[side]
        keys = [key[0] for key in candidate_keys(schema, table) if len(key) == 1 and len(key[0]) == 1]
        texts = (path for path in keys if (end := schema.resolve(table.name, path)) and end.type.name is TypeName.TEXT)
        path = next(texts, None)
        values = () if path is None else self._samples.values(side, table, path)
        return frozenset(text for text in map(normal, values) if text is not None)


def _by_looks(names: float, alike: int, fewest: int) -> str:
    """What speaks for two tables of which only names and types are known."""
    columns = f"{alike} of {fewest} columns are alike by name and type" if alike >= ALIKE_COLUMNS else ""
    tables = f"their names are alike by {names:.0%}" if names >= LEAST_COLUMN else ""
    return f"{' and '.join(filter(None, (columns, tables)))}, which is all that is known"


def _unrivalled(scores: Mapping[tuple[str, str], tuple[float, str]], least: float) -> Mapping[tuple[str, str], str]:
    """The pairs that are good enough and that no rival comes near, with what speaks for them.

    They are taken in rounds, the best first: a table that has its counterpart is no rival any more.
    """
    free = {pair: score for pair, (score, _) in scores.items() if score >= least}
    found: dict[tuple[str, str], str] = {}
    while clear := _clear(free):
        best = max(map(free.__getitem__, clear))
        found.update((pair, scores[pair][1]) for pair in clear if free[pair] >= best - MARGIN)
        taken = [{pair[at] for pair in found} for at in (0, 1)]
        free = {pair: score for pair, score in free.items() if pair[0] not in taken[0] and pair[1] not in taken[1]}
    return found


def _clear(scores: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """The pairs that no rival comes near."""
    rivals: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for pair, score in scores.items():
        for at, name in enumerate(pair):
            rivals[at].setdefault(name, []).append(score)
    return [
        pair
        for pair, score in scores.items()
        if all(sum(other > score - MARGIN for other in rivals[at][name]) == 1 for at, name in enumerate(pair))
    ]


def _alike(
    likeness: Mapping[str, Mapping[str, float]], mine: Sequence[Column], theirs: Sequence[Column]
) -> list[float]:
    """How alike the columns of two tables are that are each other's best, and can hold each other's values."""
    others = {column.name: column for column in theirs}
    scores = [
        (score, one.name, name)
        for one in mine
        for name, score in likeness[one.name].items()
        if (other := others.get(name)) and not (incompatible(one, other) or incompatible(other, one))
    ]
    found: list[float] = []
    taken: set[tuple[int, str]] = set()
    for score, one_name, name in sorted(scores, reverse=True):
        if not taken & {(0, one_name), (1, name)}:
            taken |= {(0, one_name), (1, name)}
            found.append(score)
    return found


def _own_columns(table: Table) -> list[Column]:
    """The columns of a table, apart from its own id."""
    own = table.primary_key if is_id(table) else ()
    return [column for column in table.columns if column.name not in own]


def _columns(table: Table) -> frozenset[str]:
    """The names of a table's columns, apart from its own id, as they match."""
    return frozenset(forms(column.name)[-1] for column in _own_columns(table))


def _shared(words: Mapping[Side, Mapping[str, frozenset[str]]]) -> Counter[tuple[str, str]]:
    """Per pair of tables how many words both have; words of many tables do not count."""
    holders: dict[str, list[str]] = {}
    for name, held in words[Side.RIGHT].items():
        for word in held:
            holders.setdefault(word, []).append(name)
    found: Counter[tuple[str, str]] = Counter()
    for name, held in words[Side.LEFT].items():
        for word in held:
            if len(holders.get(word, ())) <= COMMON:
                found.update((name, other) for other in holders.get(word, ()))
    return found
