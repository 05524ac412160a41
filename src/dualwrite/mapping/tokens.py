"""What the grammars of filters and formulas share: names and values as they are spelled, and a cursor over tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dualwrite.canonical import CastError, canonical
from dualwrite.expression import FilterError, Misread
from dualwrite.model import Path
from dualwrite.schema import ColumnType, TypeName

WORD: Final = r"[^\W\d]\w*"
_INNER: Final = r"(?:[^\]]|\]\])+"
NAME: Final = rf"(?:{WORD}|\[{_INNER}\])"
"""A plain word, or any name in brackets, with its closing ones doubled."""
_STEP: Final = re.compile(rf"({WORD})|\[({_INNER})\]")
BARE: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
"""Canonical text that is spelled as a number without quotes."""
MOMENT: Final = re.compile(r"([1-9]\d{3}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,6})?)(\+00)?", re.ASCII)
"""The canonical text of a moment: its day, its time, and the zone if it has one."""
LONGEST: Final = 50_000
"""So many characters a condition or formula may have."""
DEEPEST: Final = 50
"""So many levels of parentheses, and of whatever else holds a part, one may have."""
END: Final = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text.  ``column`` counts from 1; behind the last piece stands one of the kind ``end``."""

    kind: str
    text: str
    column: int


def path_of(text: str) -> Path:
    """The steps of a path whose names are written as ``NAME``."""
    return tuple(plain or bracketed.replace("]]", "]") for plain, bracketed in _STEP.findall(text))


def moment(text: str, column: int) -> str:
    """A moment in canonical text: with a time zone where it was written with one.  Raises FilterError."""
    zoned = re.search(r"(?:Z|[+-]\d\d:\d\d)$", text, re.IGNORECASE)
    kind = TypeName.TIMESTAMPTZ if zoned else TypeName.TIMESTAMP
    try:
        return canonical(ColumnType(kind))(text)
    except CastError as error:
        raise FilterError(error.message, column) from None


def limit(text: str, what: str, error: Callable[[str, int], Misread]) -> None:
    """Raise where a text is too long to be read in good time."""
    if len(text) > LONGEST:
        raise error(f"{what} is longer than {LONGEST} characters: make it shorter", LONGEST + 1)


class Cursor:
    """A place in the tokens of a text."""

    def __init__(
        self,
        text: str,
        pattern: re.Pattern[str],
        what: str,
        error: Callable[[str, int], Misread],
        misplaced: Callable[[Token], Misread],
        deepest: int = DEEPEST,
    ) -> None:
        """``pattern`` has a group per kind of token; ``blank`` is passed over, and nothing is read behind ``junk``.

        ``misplaced`` tells what is wrong with a token where a parenthesis or the end should be.
        """
        limit(text, what, error)
        self._what = what
        self._error = error
        self._misplaced = misplaced
        self._tokens: list[Token] = []
        for match in pattern.finditer(text):
            if match.lastgroup != "blank":
                self._tokens.append(Token(match.lastgroup or "", match[0], match.start() + 1))
            if match.lastgroup == "junk":  # no grammar takes it, and a text without an end is looked through just once
                break
        self._tokens.append(Token(END, "", len(text) + 1))
        self._at = 0
        self._depth = 0
        self._deepest = deepest

    @property
    def here(self) -> Token:
        """The token at the cursor."""
        return self._tokens[self._at]

    @property
    def next(self) -> Token:
        """The token behind it."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def take(self) -> Token:
        """The token at the cursor, which moves on."""
        token = self.here
        if token.kind != END:
            self._at += 1
        return token

    def skip(self, text: str) -> bool:
        """Move on behind a sign, if it stands here."""
        found = self.here.text == text and self.here.kind in ("sign", "word")
        self._at += found
        return found

    def close(self, opened: Token) -> None:
        """Move on behind the parenthesis that closes another one."""
        if self.skip(")"):
            return
        if self.here.kind == END:
            raise self._error("this parenthesis is never closed", opened.column)
        raise self._misplaced(self.here)

    def finish(self) -> None:
        """Nothing may stand here."""
        if self.here.text == ")":
            raise self._error("this parenthesis closes none", self.here.column)
        if self.here.kind != END:
            raise self._misplaced(self.here)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further in."""
        self._depth += 1
        if self._depth > self._deepest:
            raise self._error(f"{self._what} is nested deeper than {self._deepest} levels", self.here.column)
        yield
        self._depth -= 1
