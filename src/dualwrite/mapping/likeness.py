"""How alike two names are, and two sets of values: what proposals are made of.

Names are compared by their letters.  Case, ``_``, blanks, a plural s and a prefix up to the first ``_`` do not count;
what is left counts by the groups of three letters that two names share, the rarer a group, the more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log
from typing import Final

ALIKE: Final = 0.97
"""Names of the same letters, apart from what does not count."""
_GROUP: Final = 3


def forms(name: str) -> tuple[str, ...]:
    """The spellings under which a name matches, the most exact first."""
    whole = singular(name.casefold().replace("_", "").replace(" ", ""))
    _, mark, rest = name.casefold().partition("_")
    bare = singular(rest.replace("_", "").replace(" ", "")) if mark else ""
    return (whole, bare) if bare and bare != whole else (whole,)


def singular(word: str) -> str:
    """A word without its plural s."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def _groups(form: str) -> frozenset[str]:
    padded = f"^{form}$"
    return frozenset(padded[at : at + _GROUP] for at in range(max(1, len(padded) - _GROUP + 1)))


class Names:
    """The names of two tables' columns, weighed against each other."""

    def __init__(self, spellings: Iterable[Iterable[str]]) -> None:
        """``spellings`` are those of every name of both tables."""
        self._groups: dict[str, frozenset[str]] = {}
        seen: Counter[str] = Counter()
        for each in spellings:
            groups = [self._of(form) for form in each]
            seen.update(frozenset().union(*groups) if groups else ())
        self._weight = {group: 1 / (1 + log(count)) for group, count in seen.items()}
        self._total = {form: sum(self._weight.get(group, 1) for group in it) for form, it in self._groups.items()}

    def _of(self, form: str) -> frozenset[str]:
        if form not in self._groups:
            self._groups[form] = _groups(form)
        return self._groups[form]

    def likeness(self, mine: Iterable[str], theirs: Iterable[str]) -> float:
        """From 0 to 1: how alike the best of two names' spellings are."""
        others = tuple(theirs)
        return max((self._alike(a, b) for a in mine for b in others), default=0.0)

    def table(self, mine: Iterable[str], theirs: Iterable[str], least: float) -> dict[str, dict[str, float]]:
        """How alike names of two lists are, where they are at least so much: by one of the first, then by the other.

        Names that share no group of letters are never held together, so lists may be long.
        """
        named: dict[str, list[str]] = {}
        for name in dict.fromkeys(theirs):
            for form in forms(name):
                named.setdefault(form, []).append(name)
        holders: dict[str, list[str]] = {}
        for form in named:
            for group in self._of(form):
                holders.setdefault(group, []).append(form)
        found: dict[str, dict[str, float]] = {}
        for name in dict.fromkeys(mine):
            best = found.setdefault(name, {})
            for form in forms(name):
                for other, likeness in self._near(form, holders):
                    if likeness >= least:
                        best.update((one, max(likeness, best.get(one, 0.0))) for one in named[other])
        return found

    def _near(self, form: str, holders: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, float]]:
        """The spellings that share a group of letters with one, and how alike they are."""
        shared: dict[str, float] = {}
        for group in self._of(form):
            for other in holders.get(group, ()):
                shared[other] = shared.get(other, 0.0) + self._weight[group]
        for other, weight in shared.items():
            yield other, 2 * weight / (self._total[form] + self._total[other])

    def _alike(self, a: str, b: str) -> float:
        if a == b:
            return 1.0
        shared = sum(self._weight[group] for group in self._of(a) & self._of(b))
        return 2 * shared / (self._total[a] + self._total[b]) if shared else 0.0
