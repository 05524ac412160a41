"""Texts cut into tokens that know their place, and a cursor over them: what the hand-written grammars share."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dualwrite.expression import Misread

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
        deepest: int = DEEPEST,
    ) -> None:
        """``pattern`` has a group per kind of token; ``blank`` is passed over, and nothing is read behind ``junk``."""
        limit(text, what, error)
        self._what = what
        self._error = error
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

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further in."""
        self._depth += 1
        if self._depth > self._deepest:
            raise self._error(f"{self._what} is nested deeper than {self._deepest} levels", self.here.column)
        yield
        self._depth -= 1
